"""`replay sweep` as a user meets it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest

from tests.cli.calls import call
from tests.sweeping.common import ROOT, RUNS, TOML, content

COMPILING = "replay: compiling kernels for this machine, once; later runs start in a second\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.toml").write_text(TOML)
    return tmp_path


def test_dry_run_run_resume_show(place, capsys):
    code, out, err = call(capsys, "sweep", "plan.toml", "--dry-run")
    assert (code, err.replace(COMPILING, "")) == (0, "")
    assert f"{RUNS} runs of 96 points on 2 trace(s)" in out
    assert "time:" in out
    assert "memory:" in out
    assert sorted(path.name for path in place.iterdir()) == ["plan.toml"]
    told = json.loads(call(capsys, "sweep", "plan.toml", "--dry-run", "--shard", "1/4", "--json")[1])
    assert (told["runs"], told["baselines"]) == (RUNS // 4, ["today"])
    code, out, err = call(capsys, "sweep", "plan.toml", "-o", "out", "--jobs", "2")
    assert (code, err) == (0, "")
    assert f"{RUNS} runs: 0 were there, {RUNS} run in" in out
    before = content(place / "out")
    code, _, err = call(capsys, "sweep", "plan.toml", "-o", "out")
    assert code == 2
    assert "--resume" in err
    told = json.loads(call(capsys, "sweep", "plan.toml", "-o", "out", "--resume", "--json")[1])
    assert (told["found"], told["ran"], told["failed"], told["complete"]) == (RUNS, 0, {}, True)
    assert content(place / "out") == before
    code, out, _ = call(
        capsys, "sweep", "show", "out", "--by", "design,link", "--best", "downtime", "--baseline", "today"
    )
    assert code == 0
    assert "double-ring:64" in out
    assert "119.2 MiB/s" in out
    assert max(map(len, out.splitlines())) <= 100
    ranking = json.loads(call(capsys, "sweep", "show", "out", "--by", "log.entries", "--json")[1])["ranking"]
    assert {row["log.entries"] for row in ranking} == {"1024", "4096"}
    assert all(row["runs"] == 32 for row in ranking)
    rows = json.loads(call(capsys, "sweep", "show", "out", "--json")[1])["ranking"]
    assert {key for key in rows[0] if key in ("trace", "design", "link", "log")} == {"trace", "design", "link", "log"}
    assert all(row["low"] <= row["mean"] <= row["high"] for row in rows if row["mean"] is not None)
    assert "guest lost" in out
    code, out, _ = call(capsys, "sweep", "show", "out", "--by", "design", "--best", "guest-lost")
    assert code == 0
    assert "Least share of its time that the guest did not run" in out
    assert " % fault" in out or " % full" in out
    told = json.loads(call(capsys, "sweep", "show", "out", "--by", "design", "--best", "stall-full", "--json")[1])
    assert (told["figure"], told["unit"]) == ("stall-full", "ns")
    for row in told["ranking"]:
        parts = sum(row[f"modelled_{cause}_pct"] for cause in ("full", "sync", "throttle", "fault", "fetch"))
        assert row["modelled_lost_pct"] == pytest.approx(parts, rel=1e-4)


def test_failed_runs_are_exit_code_1(place, capsys):
    (place / "plan.toml").write_text(TOML.replace("link =", 'start = ["0s", "1h"]\nlink =').replace("starts = 2\n", ""))
    code, out, _ = call(capsys, "sweep", "plan.toml", "-o", "out")
    assert code == 1
    assert "failed: run" in out
    assert "start must lie within" in out
    assert "complete: replay sweep show out" in out


def test_what_makes_no_sense_is_exit_code_2(place, capsys):
    for words in (
        ("plan.toml",), ("plan.toml", "more.toml", "-o", "x"), ("show",), ("plan.toml", "-o", "x", "--jobs", "0"),
        ("plan.toml", "-o", "x", "--best", "speed"), ("plan.toml", "-o", "x", "--executor", "gpu"),
        ("none.toml", "-o", "x"),
    ):  # fmt: skip
        code, _, err = call(capsys, "sweep", *words)
        assert code == 2, words
        assert "Traceback" not in err
    code, _, err = call(capsys, "sweep", "show", ".")
    assert code == 4
    assert "holds no sweep" in err


def test_progress_is_for_terminals(place):
    """On a terminal: how many of how many, the time left, the best run so far."""
    leader, follower = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120", "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "replay", "sweep", "plan.toml", "-o", "out"],
        stdout=subprocess.PIPE, stderr=follower, env=environment, cwd=place,
    )  # fmt: skip
    os.close(follower)
    seen = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"complete" in out
    assert b"\x1b" not in out
    assert f"/{RUNS}".encode() in seen
    assert b"best" in seen
