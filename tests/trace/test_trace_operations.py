"""describe against a naive twin, and the subcommand that prints it."""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.cli import trace as command
from replay.errors import UsageError
from replay.trace.operations import describe
from replay.trace.reader import Trace, open_trace
from replay.trace.schema import SOURCE_NAMES, PageRun
from replay.trace.writer import write_trace


def naive(t_ns: list[int], page: list[int], duration_ns: int, window_ns: int) -> dict[str, Any]:
    n = -(-duration_ns // window_ns)
    sets: list[set[int]] = [set() for _ in range(n)]
    events = [0] * n
    for time, number in zip(t_ns, page, strict=True):
        window = min(time // window_ns, n - 1)
        sets[window].add(number)
        events[window] += 1
    sizes = [len(pages) for pages in sets]
    return {
        "window_ns": window_ns,
        "windows": n,
        "mean_unique_pages": sum(sizes) / n,
        "max_unique_pages": max(sizes),
        "peak_events_per_s": max(events) / (min(window_ns, duration_ns) / 1e9),
    }


@settings(max_examples=60, deadline=None)
@given(
    events=st.lists(
        st.tuples(st.integers(0, 1000), st.integers(0, 99_999), st.integers(0, 2), st.integers(0, 4)),
        min_size=1,
        max_size=150,
    ),
    windows=st.lists(st.integers(1, 1200), max_size=3),
    chunk=st.integers(1, 60),
)
def test_describe_against_naive(events: Any, windows: list[int], chunk: int) -> None:
    events = sorted(events)
    t_ns, page, vcpu, source = (list(column) for column in zip(*events, strict=True))
    trace = Trace.from_arrays(
        t_ns, page, vcpu, source, memory_bytes=100_000 * 4096, n_vcpus=3, duration_ns=1000
    )
    whole = Trace.windows
    trace.windows = lambda: whole(trace, chunk)  # type: ignore[method-assign,assignment]
    figures = describe(trace, windows)
    assert figures["working_set"] == [naive(t_ns, page, 1000, window) for window in windows]
    assert figures["unique_pages"] == len(set(page))
    assert figures["unique_bytes"] == len(set(page)) * 4096
    assert figures["density"] == len(set(page)) / 100_000
    assert (figures["first_event_ns"], figures["last_event_ns"]) == (t_ns[0], t_ns[-1])
    n = len(events)
    assert figures["vcpu_shares"] == {str(v): count / n for v, count in Counter(vcpu).items()}
    assert figures["source_shares"] == {SOURCE_NAMES[s]: count / n for s, count in Counter(source).items()}


@pytest.fixture
def file(tmp_path: Path, make_metadata: Any) -> Path:
    rng = np.random.default_rng(1)
    metadata = make_metadata(
        page_classes=(PageRun(0, 10, "zero"), PageRun(10, 990, "data")), rearm_times_ns=(500_000,)
    )
    path = tmp_path / "t.parquet"
    write_trace(path, metadata, np.sort(rng.integers(0, 10**6, 5000)), rng.integers(0, 1000, 5000), 2)
    return path


def test_describe_a_file(file: Path) -> None:
    figures = describe(file)
    assert figures["digest"] == open_trace(file).digest
    assert figures["bytes_per_event"] == file.stat().st_size / 5000
    assert figures["pages_by_class"] == {"zero": 10, "data": 990}
    assert (figures["rearms"], figures["rearm_gap_ns"]) == (1, 500_000)
    assert figures["events_per_s"] == pytest.approx(5e6)
    assert len(figures["working_set"]) == 3
    with pytest.raises(UsageError, match="positive"):
        describe(file, [0])


def _run(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.main(parser.parse_args([str(word) for word in words]))


def test_info_prints_at_most_100_columns(file: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("NO_COLOR", "1")
    assert _run("info", file) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    assert "\x1b" not in out
    for word in ("working set", "5,000", "CC0-1.0", "100 ms", "density", "10 zero, 990 data", "500 us"):
        assert word in out


def test_json_of_info_and_validate(file: Path, capsys: Any) -> None:
    assert _run("info", file, "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(describe(file)))
    assert _run("validate", file, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(file), "valid": True, "faults": []}
    os.truncate(file, 1000)
    assert _run("validate", file, "--json") == 4
    found = json.loads(capsys.readouterr().out)
    assert not found["valid"]
    assert "truncated" in found["faults"][0]["message"]


def test_shipped_traces_are_found_by_name(capsys: Any) -> None:
    assert _run("validate", "idle-1g") == 0
    assert "idle-1g.parquet: no faults" in capsys.readouterr().out
    with pytest.raises(UsageError, match="Did you mean 'redis-1g'"):
        _run("info", "redis1g")


def test_validate_of_a_good_file_says_so(file: Path, capsys: Any) -> None:
    assert _run("validate", file) == 0
    assert "no faults" in capsys.readouterr().out


def test_importing_the_subcommand_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    root = Path(__file__).resolve().parents[2]
    code = (
        "import sys, replay.cli.trace, argparse; replay.cli.trace.add_arguments(argparse.ArgumentParser());"
        "assert not {'numpy', 'pyarrow', 'numba', 'polars', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(root)})


def test_the_trace_package_needs_neither_numba_nor_polars() -> None:
    import subprocess
    import sys

    root = Path(__file__).resolve().parents[2]
    code = (
        "import sys, replay.trace.operations, replay.trace.writer, replay.trace.documentation;"
        "assert not {'numba', 'polars'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(root)})
