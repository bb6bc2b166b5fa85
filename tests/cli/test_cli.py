"""The command line as a user meets it: every command, its JSON, its errors, its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import replay
from replay.plugins import names
from tests.cli.calls import call

ROOT = Path(__file__).resolve().parents[2]


FAST = ("--max-bandwidth", "200MB/s", "--give-up", "3s")


def test_run_prints_the_rounds_and_a_summary(capsys):
    code, out, _ = call(capsys, "run", "idle-1g", "--log", "tcg", *FAST)
    assert code == 0
    assert "completed" in out
    assert "0 lost" in out
    assert max(len(line) for line in out.splitlines()) <= 100


def test_run_as_json_and_to_a_file(capsys, tmp_path):
    path = tmp_path / "r.parquet"
    code, out, _ = call(capsys, "run", "seq-1g", "--log", "kvm-ring:4096", "--design", "double-ring:1024", "--memory", "8G",
                        "--max-bandwidth", "1250MiB/s", "--downtime-limit", "300ms", "-o", str(path), "--json")  # fmt: skip
    told = json.loads(out)
    assert code == 0
    assert told["lost_pages"] == 0
    assert told["ram"]["total"] == 8 << 30
    assert replay.load(path).as_dict() == told


def test_compare_side_by_side(capsys):
    code, out, _ = call(capsys, "compare", "rand-1g", "--design", "bitmap", "--design", "double-ring:64", *FAST)
    assert code == 0
    assert "double-ring:64" in out
    assert "modelled" in out
    assert "measured" in out
    assert max(len(line) for line in out.splitlines()) <= 100
    code, out, _ = call(
        capsys, "compare", "rand-1g", "--log", "tcg", "--log", "kvm-bitmap", "--design", "bitmap", *FAST, "--json"
    )
    told = json.loads(out)
    assert [row["log"] for row in told["comparison"]] == ["tcg", "kvm-bitmap"]
    assert len(told["results"]) == 2


def test_list_everything(capsys):
    code, out, _ = call(capsys, "list")
    assert code == 0
    for name in (*names("log"), *names("design"), "redis-1g"):
        assert name in out
    for kind in ("logs", "designs", "traces", "costs", "columns", "vcpu-columns", "counters"):
        code, out, _ = call(capsys, "list", kind, "--json")
        assert code == 0
        assert json.loads(out)[kind]
    told = json.loads(call(capsys, "list", "logs", "--json")[1])["logs"]
    ring = next(entry for entry in told if entry["name"] == "kvm-ring")
    assert ring["summary"]
    assert ring["parameters"][0]["name"] == "entries"


def test_trace_info_and_validate(capsys):
    assert call(capsys, "trace", "validate", str(ROOT / "traces/idle-1g.parquet"))[0] == 0
    code, out, _ = call(capsys, "trace", "info", "idle-1g", "--json")
    assert code == 0
    assert json.loads(out)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("run", "idle-1g", "--design", "double-rings"), 2, "Did you mean 'double-ring'"),
        (("run", "idle-1g", "--log", "kvm-ringg"), 2, "Did you mean 'kvm-ring'"),
        (("run", "idle-1g", "--memory", "lots"), 2, "not a size"),
        (("run", "idle-1g", "--memory", "1M"), 2, "less than the recorded"),
        (("run", "idle-1g", "--downtime-limit", "300"), 2, "needs a unit"),
        (("run", "idle-1g", "--fit", "stretched"), 2, "there are: embed, stretch, tile"),
        (("run", "idle-2g"), 2, "Did you mean 'idle-1g'"),
        (("run", "nowhere.parquet"), 4, "nowhere.parquet"),
        (("run", "README.md"), 4, "README.md"),
        (("run", "idle-1g", "--start", "99s"), 2, "within the recording"),
        (("run", "idle-1g", "--costs", "cheap"), 2, "no cost table"),
        (("compare", "idle-1g", "--design", "bitmap"), 2, "needs two"),
        (("list", "desings"), 2, "Did you mean 'designs'"),
        (("trace", "validate", "nowhere.parquet"), 4, "nowhere.parquet"),
        (("fly",), 2, "invalid choice"),
        (("run",), 2, "required"),
        ((), 2, "required"),
        (("run", "idle-1g", "--log", "tcg", "-o", "nowhere/out.parquet", *FAST), 4, "cannot be written"),
    ],
)  # fmt: skip
def test_mistakes_are_named_and_have_an_exit_code(capsys, monkeypatch, arguments, code, told):
    monkeypatch.chdir(ROOT)
    got, out, err = call(capsys, *arguments)
    assert got == code
    assert told in err + out
    assert "Traceback" not in err


def test_lost_pages_are_exit_code_3(capsys, monkeypatch):
    """An engine that loses pages is shown everything and then refused: here the count itself is tampered with."""
    from replay.migration import precopy

    monkeypatch.setattr(precopy, "count_set", lambda words: 5)
    code, out, err = call(capsys, "run", "idle-1g", "--log", "tcg", *FAST)
    assert code == 3
    assert "5 lost" in out
    assert "5 pages were lost" in err


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
        timeout=300,
        check=False,
    )


def test_the_demo_runs_from_the_shell():
    done = python("-m", "replay", "demo", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [row["design"] for row in told["comparison"]] == ["bitmap", "double-ring:65536", "bitmap:off"]
    assert all(row["lost_pages"] == 0 for row in told["comparison"])
    assert all(row["lost_pages"] == 0 for row in told["results"])
    text = python("-m", "replay", "demo", NO_COLOR="1")
    assert "Side by side" in text.stdout
    assert max(len(line) for line in text.stdout.splitlines()) <= 120


def test_a_closed_pipe_is_quiet():
    done = subprocess.run(
        f"{sys.executable} -m replay list | head -1", shell=True, capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert "Traceback" not in done.stderr
