"""Slices against plain lists of events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.errors import UsageError
from replay.reshaping.cut import slice_trace
from replay.reshaping.ranges import Cut
from replay.trace.operations import validate
from replay.trace.reader import Trace
from replay.trace.schema import RamBlock
from tests.reshaping.common import DURATION, PAGES, EventList, events_of, lists, made, slow_ok, zero_of


@slow_ok
@given(
    events=lists, span=st.tuples(st.integers(0, DURATION - 1), st.integers(1, DURATION)), pages=st.booleans(),
    keep=st.tuples(st.booleans(), st.booleans()), window=st.sampled_from([3, 1 << 19]),
)  # fmt: skip
def test_slices(
    tmp_path: Path, monkeypatch: Any, events: EventList, span: tuple[int, int], pages: bool, keep: Any, window: int
) -> None:
    begin, end = span[0], min(DURATION, span[0] + span[1])
    ranges = [(150, 180), (10, 60)] if pages else None
    number = {page: i for i, page in enumerate([*range(10, 60), *range(150, 180)])} if pages else {}
    inside = [
        (t, p, v) for t, p, v in events if begin <= t and (t < end or end == DURATION) and (not pages or p in number)
    ]
    trace = made(tmp_path / "in.parquet", events)
    monkeypatch.setattr("replay.reshaping.cut.WINDOW_EVENTS", window)
    out = tmp_path / "out.parquet"
    out.unlink(missing_ok=True)

    def cut() -> Trace:
        return slice_trace(trace, out, from_ns=begin, to_ns=end, pages=ranges, keep_times=keep[0], keep_pages=keep[1])

    if not inside:
        with pytest.raises(UsageError, match="no event in this slice"):
            cut()
        assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]
        return
    got = cut()
    shift = 0 if keep[0] else begin
    assert events_of(got) == [(t - shift, p if keep[1] or not pages else number[p], v) for t, p, v in inside]
    assert validate(out) == []
    meta = got.metadata
    assert meta.duration_ns == end - shift
    assert meta.rearm_times_ns == tuple(t - shift for t in (0, 300, 600) if begin <= t <= end)
    assert meta.n_pages == (80 if pages and not keep[1] else PAGES)
    written_before = {p for t, p, _ in events if t < begin}
    zero = [p >= 50 and p not in written_before for p in range(PAGES)]
    assert zero_of(got) == ([zero[p] for p in number] if pages and not keep[1] else zero)


def test_blocks_of_a_slice() -> None:
    cut = Cut(((10, 60), (100, 140)))
    blocks = cut.blocks((RamBlock("low", 0, 120), RamBlock("high", 120, 80)))
    assert blocks == (RamBlock("low#0", 0, 50), RamBlock("low#1", 50, 20), RamBlock("high", 70, 20))


def test_a_slice_says_what_it_lacks(tmp_path: Path) -> None:
    trace = made(tmp_path / "in.parquet", [(5, 60, 0), (350, 1, 0), (700, 2, 1)], migration_start_ns=200)
    got = slice_trace(trace, tmp_path / "a.parquet", from_ns=100, to_ns=800)
    assert (
        "up to t = 200 ns pages that were written since the re-arm before the slice are missing" in got.metadata.limits
    )
    assert (got.metadata.rearm_times_ns, got.metadata.rearm_gap_ns) == ((200, 500), 300)
    assert got.metadata.migration_start_ns == 100
    late = slice_trace(trace, tmp_path / "b.parquet", from_ns=300)
    assert late.metadata.migration_start_ns is None
    assert "sliced" not in late.metadata.limits, "it begins at a re-arm: nothing is missing"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"from_ns": 1000}, "not a part of a recording of 1"),
        ({"to_ns": 1001}, "not a part"),
        ({"from_ns": 500, "to_ns": 500}, "not a part"),
        ({"from_ns": -1}, "not a part"),
        ({}, "say what to keep"),
        ({"pages": [(0, 50), (49, 60)]}, "0-50 and 49-60 overlap"),
        ({"pages": [(5, 5)]}, "not a range"),
        ({"pages": [(0, 201)]}, "not a range of the trace's 200 pages"),
        ({"pages": [(150, 200)]}, "no event in this slice"),
    ],
)
def test_cuts_that_cannot_be(tmp_path: Path, options: Any, told: str) -> None:
    trace = made(tmp_path / "in.parquet", [(0, 1, 0), (900, 2, 1)])
    with pytest.raises(UsageError, match=told):
        slice_trace(trace, tmp_path / "out.parquet", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]
