"""The migration stream: runs of pages at once against one page at a time, and against bytes counted one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.migration import link
from replay.work import FLUSHES, N_COUNTERS
from tests.reference.stream import Stream

PUTS = st.lists(st.tuples(st.sampled_from(["normal", "zero", "bytes"]), st.integers(0, 200)), max_size=40)


@settings(max_examples=100, deadline=None)
@given(puts=PUTS)
def test_runs_pages_and_bytes_agree(puts):
    runs, single, twin = link.new_stream(), link.new_stream(), Stream()
    work, work_single = np.zeros(N_COUNTERS, np.uint64), np.zeros(N_COUNTERS, np.uint64)
    for kind, count in puts:
        if kind == "normal":
            link.put_normals(runs, np.uint64(count), work)
            for _ in range(count):
                link.put_page(single, False, work_single)
                twin.page(False)
        elif kind == "zero":
            link.put_buffered(runs, np.uint64(9 * count), work)
            for _ in range(count):
                link.put_page(single, True, work_single)
                twin.page(True)
        else:
            link.put_buffered(runs, np.uint64(count), work)
            for _ in range(count):
                link.put_buffered(single, np.uint64(1), work_single)
            twin.buffered(count)
        assert runs.tolist() == single.tolist()
    for stream, counts in ((runs, work), (single, work_single)):
        assert stream[link.FLUSHED] == twin.flushed
        assert stream[link.QUEUED] == twin.queued
        assert counts[FLUSHES] == twin.flushes


@pytest.mark.parametrize("pages", [1, 31, 32, 33, 4096])
def test_a_flush_comes_every_32_pages(pages):
    stream, work = link.new_stream(), np.zeros(N_COUNTERS, np.uint64)
    link.put_normals(stream, np.uint64(pages), work)
    assert stream[link.FLUSHED] == pages // 32 * 131_328
    assert stream[link.QUEUED] == pages % 32 * 4104
    link.flush(stream, work)
    assert stream[link.FLUSHED] == pages * 4104


def test_the_limit_is_on_what_has_left():
    stream = link.new_stream()
    stream[link.LIMIT], stream[link.QUEUED] = 100, 1000
    assert not link.rate_exceeded(stream)
    stream[link.FLUSHED] = 100
    assert not link.rate_exceeded(stream)
    stream[link.FLUSHED] = 101
    assert link.rate_exceeded(stream)
    stream[link.LIMIT] = 0
    assert not link.rate_exceeded(stream)
