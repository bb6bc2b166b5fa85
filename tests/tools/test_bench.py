"""The benchmarks run, compare like with like, and report in the documented shape. Never a time."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
ROW = {"what", "ours", "theirs", "unit", "ratio", "spread", "target", "met", "stretch"}
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")


def run_bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/bench", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment or None, capture_output=True, text=True, check=False)


def report(command: str) -> dict[str, Any]:
    done = run_bench(command, "--quick", "--json")
    assert done.returncode == 0, done.stderr
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


@needs_gcc
@pytest.mark.parametrize("command", ["scan", "sync", "decode", "ring", "apply", "replay"])
def test_both_sides_compute_the_same(command: str) -> None:
    found = report(command)
    assert set(found) == {"machine", "rows", "samples"}
    assert found["machine"]["cpu"]
    assert found["machine"]["gcc"]
    assert found["rows"]
    assert set(found["samples"]) == {row["what"] for row in found["rows"]}
    for row in found["rows"]:
        assert set(row) == ROW
        assert row["ratio"] > 0
        samples = found["samples"][row["what"]]
        assert samples["ours_result"] == samples["theirs_result"]
        assert len(samples["ours_ns"]) == len(samples["theirs_ns"]) > 0


def test_scripts_migrate_the_same_and_reports_are_compared(tmp_path: Path) -> None:
    """The command itself raises when a script comes to other pages or another end."""
    found = report("peers")
    assert [row["what"].split("against ")[1].split(",")[0].split(":")[0] for row in found["rows"]] == [
        "NumPy", "polars", "pyroaring", "plain Python", "simpy",
    ]  # fmt: skip
    for row in found["rows"]:
        assert (row["ours"] is None) == row["what"].endswith("not installed")
    (tmp_path / "old.json").write_text(json.dumps(found))
    row = found["rows"][0]
    row["ratio"] *= 2
    row["what"], found["samples"]["x"] = "x", {}
    found["rows"].append({**row, "what": found["rows"][1]["what"], "ratio": 2 * found["rows"][1]["ratio"]})
    del found["rows"][1]
    (tmp_path / "new.json").write_text(json.dumps(found))
    names = [str(tmp_path / name) for name in ("new.json", "old.json")]
    lines = run_bench("--read", names[0], "--compare", names[1]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["slower", "new", "gone"]
    assert "(+100%)" in lines[0]
    assert "Missed:" in run_bench("--read", names[1], "--markdown").stdout
    (tmp_path / "new.json").write_text("[]")
    assert "no report of" in run_bench("--read", names[0]).stderr


def test_files_and_arrays_apply_the_same() -> None:
    found = report("trace")
    read = [row for row in found["rows"] if row["unit"] == "ns/event"]
    sizes = [row for row in found["rows"] if row["unit"] == "B"]
    assert len(read) == 3 * len(sizes) == 9  # read in one thread, read ahead, mapped
    for row in read:
        samples = found["samples"][row["what"]]
        assert samples["ours_result"] == samples["theirs_result"] > 0
    assert {row["met"] for row in sizes} == {True}  # bytes, not times: the same on every machine


def test_two_threads_and_memory_are_measured() -> None:
    for command in ("threads", "memory"):
        found = report(command)
        for row in found["rows"]:
            assert set(row) == ROW
            assert row["ours"] > 0
            assert row["theirs"] > 0
            assert row["met"] in (True, False)
            samples = found["samples"][row["what"]]
            assert min(map(len, samples.values())) > 0


def test_without_a_compiler_the_c_side_is_skipped(tmp_path: Path) -> None:
    done = run_bench("scan", "--quick", "--json", PATH=str(tmp_path), HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "no gcc" in done.stderr
    found = json.loads(done.stdout)
    assert found["machine"]["gcc"] is None
    assert {row["theirs"] for row in found["rows"]} == {None}
    assert {row["met"] for row in found["rows"]} == {None}


def test_tables() -> None:
    plain = run_bench("ring", "--quick")
    assert max(map(len, plain.stdout.splitlines())) <= 100
    table = run_bench("ring", "--quick", "--markdown").stdout.splitlines()
    assert table[0].startswith("| what | ours | theirs | unit | ratio |")
    assert len(table) >= 8


def test_different_results_are_an_error() -> None:
    sys.path.insert(0, str(ROOT))
    try:
        from tools.bench import harness
    finally:
        sys.path.pop(0)
    side = harness.Side(run=lambda: None, result=lambda: 1)
    other = harness.Side(run=lambda: None, result=lambda: 2)
    with pytest.raises(harness.DifferentResultsError, match="ours 1, theirs 2"):
        harness.compare("x", side, other, unit="ns", quick=True)
