"""`replay generate` and `replay phase` as a user meets them, and workloads wherever a trace is taken."""

from __future__ import annotations

import json

import polars as pl
import pytest

from tests.cli.calls import call
from tests.cli.test_cli import FAST

SMALL = ("--max-bandwidth", "200MB/s", "--give-up", "3s", "--log", "tcg")
PAIR = ("--design", "bitmap", "--design", "double-ring")


def test_generate_writes_a_valid_trace(capsys, tmp_path):
    path = str(tmp_path / "made.parquet")
    given = ("--memory", "512M", "--vcpus", "2", "--duration", "2s", "--rate", "5000", "--seed", "7", "-o", path)
    code, out, _ = call(capsys, "generate", "file-cache:largest=64", *given)
    assert code == 0
    assert "10,000 events in 2 s, 512 MiB, 2 vCPUs, seed 7" in out
    assert call(capsys, "trace", "validate", path)[0] == 0
    told = json.loads(call(capsys, "trace", "info", path, "--json")[1])
    assert (told["n_vcpus"], told["memory_bytes"], told["n_events"]) == (2, 512 << 20, 10_000)
    assert told["provenance"]["made_from"] == "file-cache:5000,largest=64"
    again = json.loads(call(capsys, "generate", "file-cache:largest=64", *given, "--json")[1])
    assert again["n_events"] == 10_000
    assert call(capsys, "run", path, *SMALL)[0] == 0


def test_generate_help_shows_commands_to_paste(capsys):
    code, out, _ = call(capsys, "generate", "--help")
    assert code == 0
    assert "replay generate uniform --rate 50000" in out
    assert "exit codes" in out


def test_a_workload_runs_wherever_a_trace_does(capsys):
    code, out, _ = call(capsys, "run", "hot-cold:rate=2000", "--memory", "256M", *SMALL, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["ram"]["total"] == 256 << 20
    assert told["provenance"]["trace"]["title"] == "generated: hot-cold:2000"
    code, out, _ = call(capsys, "compare", "idle+zipf:rate=500", "--memory", "256M", *PAIR, *SMALL)
    assert code == 0
    assert "0" in out


def test_workloads_are_listed(capsys):
    told = json.loads(call(capsys, "list", "workloads", "--json")[1])["workloads"]
    assert {"idle", "sequential", "uniform", "zipf", "hot-cold", "phases", "file-cache"} <= {w["name"] for w in told}
    assert all(w["parameters"][0]["name"] == "rate" for w in told)


def test_phase_prints_a_table_that_fits_and_writes_everything(capsys, tmp_path):
    grid, picture = tmp_path / "grid.parquet", tmp_path / "grid.png"
    code, out, err = call(
        capsys, "phase", "idle:rate=500", "--x", "memory=128M,512M", "--y", "dirty-rate=0.5x,2x",
        "--facet", "ring-size=16,1024", *PAIR, *SMALL, "-o", str(grid), "--plot", str(picture),
    )  # fmt: skip
    assert code == 0
    assert "Least total time, modelled; ring-size 16" in out
    assert "12 replays" in out
    assert max(len(line) for line in out.splitlines()) <= 100
    assert "replays" not in err
    assert pl.read_parquet(grid).height == 16
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_phase_with_many_columns_and_as_json(capsys):
    given = ("phase", "uniform:rate=2000", "--x", "downtime-limit=1ms,3ms,10ms,30ms,100ms", "--y", "memory=64M", *PAIR)
    code, out, _ = call(capsys, *given, *SMALL, "--figure", "find-cpu")
    assert code == 0
    assert max(len(line) for line in out.splitlines()) <= 100
    told = json.loads(call(capsys, *given, *SMALL, "--figure", "find-cpu", "--json")[1])
    assert told["figure"] == "find-cpu"
    assert [cell["x"] for cell in told["cells"]] == ["1ms", "3ms", "10ms", "30ms", "100ms"]
    assert all(cell["winner"] in ("bitmap", "double-ring") for cell in told["cells"])
    assert len(told["runs"]) == 10
    assert set(told["provenance"]) >= {"trace", "numba", "cpu", "options", "candidates"}


def test_phase_names_who_did_not_converge(capsys):
    code, out, _ = call(
        capsys, "phase", "uniform:rate=200000", "--x", "memory=256M", "--y", "dirty-rate=1x", *PAIR, "--log", "tcg",
        "--max-bandwidth", "20MB/s", "--give-up", "2s",
    )  # fmt: skip
    assert code == 0
    assert "none" in out
    assert "cannot win, any design: not-converged: memory 256M, dirty-rate 1x" in out


def test_phase_never_lets_a_design_win_that_loses_pages(capsys, monkeypatch):
    from replay.migration import precopy

    monkeypatch.setattr(precopy, "count_set", lambda words: 5)
    code, out, _ = call(capsys, "phase", "idle:rate=500", "--x", "memory=64M", "--y", "dirty-rate=1x", *PAIR, *SMALL)
    assert code == 0
    assert "cannot win, any design: unsafe, lost 5 pages" in out


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("generate", "uniform"), 2, "required"),
        (("generate", "uniformm", "-o", "x.parquet"), 2, "Did you mean 'uniform'"),
        (("generate", "uniform", "--memory", "lots", "-o", "x.parquet"), 2, "not a size"),
        (("generate", "uniform", "--vcpus", "x", "-o", "x.parquet"), 2, "whole number"),
        (("generate", "uniform", "--duration", "5", "-o", "x.parquet"), 2, "needs a unit"),
        (("generate", "uniform", "--rate", "fast", "-o", "x.parquet"), 2, "not a rate"),
        (("generate", "uniform", "--seed", "-1", "-o", "x.parquet"), 2, "seed"),
        (("generate", "uniform", "-o", "nowhere/x.parquet"), 4, "cannot be written"),
        (("generate", "nowhere.parquet", "-o", "x.parquet"), 4, "no such file"),
        (("run", "zipf:skew=x", *FAST), 2, "is a number"),
        (("run", "zipf:rate", *FAST), 2, "not a rate"),
        (("run", "zipf", "--start", "11s", *FAST), 2, "within the recording"),
        (("phase", "idle", "--x", "memry"), 2, "Did you mean 'memory'"),
        (("phase", "idle", "--x", "give-up"), 2, "give its values"),
        (("phase", "idle", "--figure", "speed"), 2, "there are: bytes"),
        (("phase", "idle", "--tie", "much"), 2, "not a share"),
        (("phase", "idle", "--design", "bitmap"), 2, "two or more"),
        (("phase", "idle", "--plot", "x.doc"), 2, "must end in .png"),
        (("phase", "idle", "--plot", "nowhere/x.png"), 2, "no such folder"),
        (("phase", "idle", "-o", "nowhere/x.parquet"), 2, "no such folder"),
        (("phase", "idle-2g"), 2, "Did you mean 'idle-1g'"),
        (("phase", "idle-1g", "--x", "memory=512M", *PAIR), 2, "less than the recorded"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(capsys, monkeypatch, tmp_path, arguments, code, told):
    monkeypatch.chdir(tmp_path)
    got, out, err = call(capsys, *arguments)
    assert got == code
    assert told in err + out
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
