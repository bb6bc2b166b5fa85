"""`replay check` as a user meets it, and the verbs of real designs explored in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import replay
from replay.cli.main import main
from replay.errors import UsageError
from replay.safety.explorer import Step
from tests.engine.test_unsafe import DESIGN

ROOT = Path(__file__).resolve().parents[2]
TINY = {"pages": 2, "ring": 1, "writes": 2}


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory):
    path = tmp_path_factory.mktemp("mine") / "forgetful.py"
    path.write_text(DESIGN)
    return path


@pytest.mark.parametrize(
    "design",
    ["bitmap", "hierarchical-bitmap", "direct-reap", "ring-only", "ring-fallback", "double-ring", "ring-background"],
)
def test_shipped_designs_are_safe(design):
    verdict = replay.check(design, **TINY)
    assert (verdict.safe, verdict.proven, verdict.property, verdict.schedule) == (True, True, None, ())
    assert {part.part for part in verdict.parts} == {"protocol", "verbs"}
    assert {part.log for part in verdict.parts if part.part == "verbs"} == {"tcg", "kvm-bitmap", "kvm-ring"}


def test_an_unsafe_one_has_a_schedule():
    verdict = replay.check("direct-reap:literal", **TINY)
    assert (verdict.safe, verdict.property) == (False, "loss")
    assert isinstance(verdict.schedule[0], Step)
    with pytest.raises(AttributeError):
        verdict.safe = True  # type: ignore[misc]


VERBS_ALONE = """
from replay.plugins import parse
from replay.safety.check import Request, _verbs
request = Request(design=DESIGN, pages=2, ring=2, writes=2)
for part, found in _verbs(request, parse("design", request.design), parse("log", "kvm-ring"), None):
    if found.property:
        print(part.part, found.property, found.schedule[-1].step)
        break
"""


@pytest.mark.parametrize("design", ["direct-reap:literal", "ring-background:source=kvm-ring,rearm=after"])
def test_verbs_that_read_before_they_arm_lose(design):
    """The code itself, not its model."""
    text = VERBS_ALONE.replace("DESIGN", repr(design.replace("ring-background:", "ring-background:64,")))
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
        timeout=300,
    )
    assert done.stdout == "verbs loss complete\n", done.stderr


def test_a_design_of_ones_own_that_forgets_is_found(forgetful):
    verdict = replay.check(f"{forgetful}:1", pages=1, writes=1)
    assert (verdict.safe, verdict.property) == (False, "loss")
    assert {part.part for part in verdict.parts} == {"verbs"}
    assert [step.step for step in verdict.schedule][:3] == ["pop", "re-arm", "read"]
    assert replay.check(f"{forgetful}:0", **TINY).safe


def test_the_design_of_the_readme_is_safe(tmp_path):
    path = tmp_path / "byte_map.py"
    path.write_text((ROOT / "README.md").read_text().split("<!-- a whole design -->\n```python\n")[1].split("```")[0])
    assert replay.check(str(path), **TINY).safe


def test_the_shell_prints_the_schedule_and_exits_with_3(capsys):
    assert main(["check", "direct-reap:literal"]) == 3
    out, err = capsys.readouterr()
    assert "RESET" in out
    assert "unsafe: loss" in err
    assert max(len(line) for line in out.splitlines()) <= 100


def test_json(capsys):
    assert main(["check", "ring-background:source=kvm-ring,rearm=after", "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["design"], told["safe"], told["property"]) == (
        "ring-background:65536,source=kvm-ring,rearm=after", False, "loss"
    )  # fmt: skip
    assert {"actor", "step", "page"} <= set(told["schedule"][0])
    assert told["states"] > 0


def test_safe_is_said_in_a_line_a_part_by_a_cold_process():
    done = subprocess.run(
        [sys.executable, "-m", "replay", "check", "bitmap", "--pages", "2", "--writes", "2"],
        capture_output=True, text=True, cwd=ROOT, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("bitmap: safe: protocol on kvm-bitmap")


def test_running_out_of_states_is_never_safe(capsys):
    assert main(["check", "bitmap", "--max-states", "50"]) == 1
    out, err = capsys.readouterr()
    assert "not proven" in out + err
    assert ": safe" not in out
    verdict = replay.check("bitmap", max_states=50)
    assert (verdict.safe, verdict.proven) == (False, False)


@pytest.mark.parametrize(
    ("bounds", "told"),
    [({"pages": 9}, "from 1 to 6"), ({"writes": 0}, "from 1 to"), ({"vcpus": 0, "devices": 0}, "nobody writes"),
     ({"rings": 2}, "Did you mean 'ring'"), ({"pages": 2.5}, "whole number"), ({"log": "kvm-rong"}, "kvm-ring")],
)  # fmt: skip
def test_senseless_bounds(bounds, told):
    with pytest.raises(UsageError, match=told):
        replay.check("bitmap", **bounds)


def test_unknown_design():
    with pytest.raises(UsageError, match="Did you mean"):
        replay.check("bitmaps")
