"""The capture commands of the page, as written, where this machine can run them."""

from __future__ import annotations

import random
import shlex

import pytest

from replay.cli.main import main
from replay.plugins import constant, names
from tests.captures.common import ROOT, events, needs_kvm, needs_tracking

SECTION = (ROOT / "replay" / "captures" / "README.md").read_text()
COMMANDS = [
    shlex.split(line) for line in SECTION.replace("\\\n", " ").splitlines() if line.startswith("replay capture ")
]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(
            command[1:], id=" ".join(command), marks={"kvm-microvm": needs_kvm, "process": needs_tracking}[kind]
        )
        for command in COMMANDS
        for kind in [command[2]]
        if kind in ("kvm-microvm", "process")
    ],
)
def test_commands_run(command, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    numbers = random.Random(1)
    (tmp_path / "big.txt").write_text("".join(f"{numbers.random()}\n" for _ in range(200_000)))
    assert main(command) == 0
    assert len(events(tmp_path / command[command.index("-o") + 1])) > 100


def test_every_kind_is_on_the_page():
    assert len(COMMANDS) >= 3
    for name in names("capture"):
        assert f"| `{name}` |" in SECTION
        assert constant("capture", name, "COST")
        assert constant("capture", name, "HOW")
        assert constant("capture", name, "COMMAND") in ("none", "required", "optional")


def test_the_help_has_kinds_costs_and_how(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["capture", "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for name in names("capture"):
        assert f"cost: {constant('capture', name, 'COST')}" in out
        assert constant("capture", name, "HOW") in out
        with pytest.raises(SystemExit):
            main(["capture", name, "--help"])
