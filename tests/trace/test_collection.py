"""The index of the shipped traces: fresh, used by every list, and what damage is measured against."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from replay.cli.main import main
from replay.errors import TraceError, UsageError
from replay.trace import shipped
from replay.trace.reader import open_trace

ROOT = Path(__file__).resolve().parents[2]


def test_the_index_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "tools/index_traces.py", "--check"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_entry_is_its_trace() -> None:
    entries = shipped.index()
    assert [entry["name"] for entry in entries] == shipped.names()
    for entry in entries:
        path = shipped.find(entry["name"])
        trace = open_trace(path)
        assert (entry["events"], entry["duration_ns"]) == (trace.n_events, trace.metadata.duration_ns)
        assert (entry["memory_bytes"], entry["sha256"]) == (trace.metadata.memory_bytes, trace.digest)
        assert entry["capture"] in ("stores", "first writes")
        assert entry["licence"] == "CC0-1.0"
        assert shipped.checksum_fault(path) is None


def test_the_index_is_in_the_package() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert shipped.INDEX in data["replay.shipped"]


def test_both_lists_come_from_the_index(capsys: Any) -> None:
    assert main(["trace", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["traces"] == shipped.index()
    assert main(["list", "traces", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["traces"]
    assert [(item["name"], item["bytes"]) for item in listed] == [(e["name"], e["bytes"]) for e in shipped.index()]
    assert main(["trace", "list"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    assert all(entry["name"] in out for entry in shipped.index())


def test_cards_are_printed(capsys: Any) -> None:
    assert main(["trace", "card", "redis-1g"]) == 0
    assert capsys.readouterr().out == (ROOT / "traces/redis-1g.md").read_text()
    assert main(["trace", "card", "redis1g"]) == 2
    assert "Did you mean 'redis-1g'" in capsys.readouterr().err
    with pytest.raises(UsageError, match="no shipped trace"):
        shipped.card("../README")


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two shipped traces with an index, in the place of the real one."""
    for name in ("idle-1g", "xz-1g"):
        shutil.copy(ROOT / f"traces/{name}.parquet", tmp_path)
    (tmp_path / shipped.INDEX).write_text(shipped.index_text(tmp_path))
    monkeypatch.setattr(shipped, "_PLACES", (tmp_path,))
    return tmp_path


def test_a_changed_trace_is_found_by_its_checksum(copy: Path, capsys: Any) -> None:
    assert main(["trace", "validate", "idle-1g"]) == 0
    shutil.copy(copy / "xz-1g.parquet", copy / "idle-1g.parquet")
    capsys.readouterr()
    assert main(["trace", "validate", "idle-1g", "--json"]) == 4
    [fault] = json.loads(capsys.readouterr().out)["faults"]
    assert fault["what"] == "checksum"
    assert "is not the" in fault["message"]


def test_a_trace_that_is_not_in_the_index_says_so(copy: Path, capsys: Any) -> None:
    shutil.copy(copy / "xz-1g.parquet", copy / "new.parquet")
    assert main(["trace", "validate", "new"]) == 4
    assert "run tools/index_traces.py" in capsys.readouterr().out


@pytest.mark.parametrize("text", [None, "", "[]", '{"traces": [5]}', '{"traces": [{"name": "x"}]}', "{}"])
def test_a_broken_index_is_an_error_not_a_traceback(copy: Path, text: str | None, capsys: Any) -> None:
    if text is None:
        (copy / shipped.INDEX).unlink()
    else:
        (copy / shipped.INDEX).write_text(text)
    with pytest.raises(TraceError, match=r"index\.json"):
        shipped.index()
    assert main(["trace", "list"]) == 4
    assert "index.json" in capsys.readouterr().err
