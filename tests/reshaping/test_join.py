"""Merged traces against plain lists of events."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.errors import UsageError
from replay.reshaping import streams
from replay.reshaping.join import merge_traces
from replay.trace.events import Events
from replay.trace.operations import validate
from replay.trace.reader import Trace
from replay.trace.schema import RamBlock
from tests.reshaping.common import PAGES, events_of, made, metadata, slow_ok, zero_of


@slow_ok
@given(parts=st.lists(st.lists(st.integers(0, 12), max_size=20).map(sorted), min_size=1, max_size=4), cut=st.data())
def test_streams_are_joined_in_time_and_stream_order(parts: list[list[int]], cut: Any) -> None:
    def stream(index: int, times: list[int]) -> Any:
        row = 0
        while row < len(times):
            size = cut.draw(st.integers(0, 5))
            t = np.array(times[row : row + size], np.uint64)
            yield Events(t, np.arange(row, row + t.size, dtype=np.uint32), np.full(t.size, index, np.uint16))
            row += size

    got = [
        (t, i, r)
        for window in streams.joined([stream(index, times) for index, times in enumerate(parts)])
        for t, r, i in zip(*(column.tolist() for column in window), strict=True)
    ]
    assert got == sorted((t, i, r) for i, times in enumerate(parts) for r, t in enumerate(times))


def test_merged_guests_stand_side_by_side(tmp_path: Path) -> None:
    a = made(tmp_path / "a.parquet", [(0, 1, 0), (500, 199, 2)])
    b = made(tmp_path / "b.parquet", [(0, 1, 1), (400, 0, 0)], duration_ns=700, page_classes=None, licence="MIT")
    got = merge_traces([a, b], tmp_path / "out.parquet")
    assert events_of(got) == [(0, 1, 0), (0, 201, 4), (400, 200, 3), (500, 199, 2)]
    meta = got.metadata
    assert (meta.n_pages, meta.n_vcpus, meta.duration_ns) == (400, 6, 1000)
    assert [block.name for block in meta.ram_blocks] == ["1/low", "1/high", "2/low", "2/high"]
    assert zero_of(got) == zero_of(a) + [False] * 200
    assert "recording 2 is quiet from 0.000 s on" in meta.limits
    assert meta.licence == "CC0-1.0 AND MIT"
    assert validate(got.path) == []


def test_merged_vcpus_share_their_memory(tmp_path: Path) -> None:
    a, b = (made(tmp_path / f"{n}.parquet", [(5, 1, v), (9, 7, 0)]) for n, v in (("a", 0), ("b", 1)))
    got = merge_traces([a, b], tmp_path / "out.parquet", of="vcpus")
    assert events_of(got) == [(5, 1, 0), (5, 1, 4), (9, 7, 0), (9, 7, 3)]
    assert (got.metadata.n_pages, got.metadata.n_vcpus) == (PAGES, 6)
    assert got.metadata.rearm_times_ns == (0, 300, 600)
    assert zero_of(got) == zero_of(a)


def test_merges_that_cannot_be(tmp_path: Path) -> None:
    a = made(tmp_path / "a.parquet", [(0, 1, 0)])
    other = made(tmp_path / "b.parquet", [(0, 1, 0)], ram_blocks=(RamBlock("ram", 0, PAGES),))
    out = tmp_path / "out.parquet"
    large = dataclasses.replace(metadata(), page_size=8192, memory_bytes=PAGES * 8192)
    eight = Trace.from_arrays([0], [1], metadata=large)
    for traces, of, told in (
        ([a], "guests", "two or more"),
        ([a, other], "vcpus", "RAM blocks of these traces differ"),
        ([a, a], "hosts", "there are: guests, vcpus"),
        ([a, eight], "guests", "pages of 4096, 8192 bytes"),
        ([a] * 2731, "guests", "8193 vCPUs in all"),
    ):
        with pytest.raises(UsageError, match=told):
            merge_traces(traces, out, of=of)
    assert not out.exists()
