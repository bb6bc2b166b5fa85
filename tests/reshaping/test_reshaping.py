"""What holds for slices, samples, merges and scales alike."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from replay.errors import TraceError, UsageError
from replay.reshaping.cut import slice_trace
from replay.reshaping.join import merge_traces
from replay.reshaping.scale import scale_trace
from replay.reshaping.thin import sample_trace
from replay.trace.events import origin_source
from replay.trace.reader import open_trace
from replay.trace.writer import write_trace
from tests.reshaping.common import DURATION, PAGES, made, metadata


def test_the_output_may_not_be_an_input(tmp_path: Path) -> None:
    trace = made(tmp_path / "in.parquet", [(0, 1, 0), (900, 2, 1)])
    before = trace.path.read_bytes()
    (tmp_path / "link.parquet").symlink_to(trace.path)
    for out in (trace.path, tmp_path / "link.parquet"):
        for reshape in (
            lambda out: slice_trace(trace, out, to_ns=5),
            lambda out: sample_trace(trace, out, keep=0.5),
            lambda out: merge_traces([trace, trace], out),
            lambda out: scale_trace(trace, out, speed_up=Fraction(2)),
        ):
            with pytest.raises(UsageError, match="is the input"):
                reshape(out)
    assert trace.path.read_bytes() == before


def test_a_damaged_trace_leaves_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    events = sorted(zip(*(rng.integers(0, n, 5000).tolist() for n in (DURATION, PAGES, 3)), strict=True))
    path = made(tmp_path / "in.parquet", events).path
    data = bytearray(path.read_bytes())
    data[1000:3000] = bytes(2000)
    path.write_bytes(data)
    trace = open_trace(path)
    out = tmp_path / "out.parquet"
    for reshape in (
        lambda: slice_trace(trace, out, from_ns=1),
        lambda: sample_trace(trace, out, keep=0.5, by="events"),
        lambda: merge_traces([trace, trace], out),
        lambda: scale_trace(trace, out, memory_bytes=PAGES * 8192, fit="stretch"),
        lambda: scale_trace(trace, out, memory_bytes=PAGES * 8192, fit="tile"),
    ):
        with pytest.raises(TraceError, match="in.parquet"):
            reshape()
        assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_sources_survive(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    write_trace(path, metadata(), [0, 5, 9], [1, 2, 3], [0, 0, 1], ["vcpu", "dma", "vcpu"])
    trace = open_trace(path)
    for got in (
        slice_trace(trace, tmp_path / "a.parquet", from_ns=1),
        scale_trace(trace, tmp_path / "b.parquet", speed_up=Fraction(1, 2)),
        merge_traces([trace, trace], tmp_path / "c.parquet"),
    ):
        assert 2 in origin_source(got.decode().origin)
