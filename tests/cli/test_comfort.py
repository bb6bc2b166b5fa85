"""Doctor, completion, suggestions, --quiet and --verbose."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import time

import pytest

import replay
from replay import checkup, units
from replay.cli.main import COMMANDS
from replay.config import make
from tests.cli.calls import call


def test_doctor_says_what_is_here(capsys):
    code, out, _ = call(capsys, "doctor", "--json")
    found = {one["part"]: one for one in json.loads(out)["findings"]}
    assert code == int(any(one["status"] == "broken" for one in found.values()))
    assert found["numba"]["status"] == "ok"
    assert found["replay"]["told"] == replay.__version__
    assert {"CPU", "CPU features", "/dev/kvm", "tracefs", "matplotlib", "kernel"} <= set(found)
    assert all(bool(one["advice"]) == (one["status"] != "ok") for one in found.values())
    code, out, _ = call(capsys, "doctor")
    assert max(map(len, out.splitlines())) <= 100


def test_doctor_says_what_is_not_here(capsys, monkeypatch, tmp_path):
    from replay import jit

    monkeypatch.setattr(checkup, "OPTIONAL", {"no-such-package": ("plots", "charts")})
    monkeypatch.setattr(checkup, "NEEDED", ("no-such-package-either",))
    monkeypatch.setattr(jit, "CACHE_FOLDER", None)
    monkeypatch.setattr(jit, "DISABLED", False)
    monkeypatch.setenv("PATH", str(tmp_path))
    code, out, _ = call(capsys, "doctor")
    assert code == 1
    assert "pip install 'dirtyreplay[plots]'" in out
    assert "REPLAY_CACHE_DIR" in out
    assert "install gcc" in out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script(capsys, shell):
    code, out, _ = call(capsys, "completion", shell)
    assert code == 0
    assert all(name in out for name in (*COMMANDS, "redis-1g", "--downtime-limit"[2:], "double-ring"))
    program = shutil.which(shell)
    if program is not None:
        done = subprocess.run([program, "-n"], input=out, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


def test_bash_completes(capsys):
    script = call(capsys, "completion", "bash")[1]

    def completed(*words):
        line = " ".join(f"'{word}'" for word in words)
        ask = (
            f"{script}\nCOMP_WORDS=({line}) COMP_CWORD={len(words) - 1}\n_replay; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        return subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True).stdout.split()

    assert completed("replay", "rep") == ["report", "reproduce"]
    assert completed("replay", "run", "--downt") == ["--downtime-limit"]
    assert "double-ring" in completed("replay", "run", "redis-1g", "--design", "")
    assert completed("replay", "run", "redi") == ["redis-1g"]
    assert "heatmap" in completed("replay", "trace", "h")
    assert completed("replay", "help", "addi") == ["adding-a-design"]
    assert completed("replay", "help", "double") == ["double-ring"]
    assert completed("replay", "plot", "time") == ["timeline"]
    assert completed("replay", "reproduce", "xu") == ["xu-2020"]
    assert completed("replay", "run", "redis-1g", "--log", "=", "kvm-") == ["kvm-bitmap", "kvm-ring"]
    assert "bitmap" in completed("replay", "run", "--design", "=")


def test_an_interactive_bash_completes(capsys, tmp_path):
    """Keys go to a bash on a terminal, as a user's do."""
    (tmp_path / "completion").write_text(call(capsys, "completion", "bash")[1])
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"TERM": "dumb", "PS1": "ready> "}
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
    shown = b""

    def press(keys, until):
        nonlocal shown
        shown = b""
        os.write(terminal, keys)
        deadline = time.monotonic() + 30
        while until not in shown:
            assert time.monotonic() < deadline, shown
            if select.select([terminal], [], [], 0.2)[0]:
                shown += os.read(terminal, 65536)

    try:
        press(b"", b"ready> ")
        press(f"source {tmp_path}/completion; echo so''urced\n".encode(), b"sourced\r\nready> ")
        press(b"replay run redi\t", b"replay run redis-1g ")
        press(b"--design=doub\t", b"--design=double-ring ")
        press(b"\x15replay help addi\t", b"adding-a-design ")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("rnu", "idle-1g"), "Did you mean 'run'"),
        (("run", "idle-1g", "--desing", "bitmap"), "Did you mean '--design'"),
        (("trace", "heatmpa", "idle-1g"), "Did you mean 'heatmap'"),
        (("completion", "tcsh"), "there are: bash, fish, zsh"),
        (("run", "idle-1g", "--qemu-version", "ten"), "there are: 10.0, 10.2, 7.2, 9.x"),
    ],
)
def test_a_mistyped_name_gets_the_nearest(capsys, arguments, told):
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert told in err
    assert "Traceback" not in err


def test_quiet_and_verbose_stand_anywhere(capsys):
    code, out, err = call(capsys, "list", "-q", "logs", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["logs"]
    code, _, err = call(capsys, "list", "logs", "-v")
    assert code == 0
    assert f"replay: {replay.__version__}" in err
    code, _, err = call(capsys, "--verbose", "run", "no-such-trace")
    assert code != 0
    assert "Traceback" in err
    assert "no-such-trace" in err


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10Gb/s", 1_250_000_000), ("10 Gbps", 1_250_000_000), ("10GB/s", 10**10), ("100MBps", 10**8), ("8Mb/s", 10**6),
        ("50mB/s", 5 * 10**7), ("1250MiB/s", 1250 << 20), ("1 Gbit/s", 125_000_000), ("8Kib/s", 1024), ("12", 12),
        ("100 M", 10**8), ("10gbit", 1_250_000_000),
    ],
)  # fmt: skip
def test_bandwidths_in_every_common_form(text, value):
    assert units.parse_bandwidth(text) == value


def test_a_full_version_number_is_a_version():
    versions = ("7.2.22", "9.1", "10.0.2", "10.2.0", "10.0")
    assert [make({"qemu_version": text}).qemu_version for text in versions] == ["7.2", "9.x", "10.0", "10.2", "10.0"]


def test_durations_in_every_common_form():
    for text in (
        "1.5 s",
        "1500ms",
        "1500 msec",
        "1.5 seconds",
        "0.025 minutes",
        "1500000us",
        "1500000\N{GREEK SMALL LETTER MU}s",
    ):
        assert units.parse_duration_ns(text) == 1_500_000_000
