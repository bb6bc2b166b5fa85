"""A trace that is streamed to a replay comes to what its arrays come to, whatever the windows."""

from __future__ import annotations

import dataclasses
import threading
import time

import numpy as np
import pytest

import replay
from replay.errors import TraceError
from replay.migration import feed
from replay.trace import reader
from replay.trace.ahead import DEPTH, ahead
from replay.trace.events import origin_vcpu
from replay.trace.writer import write_trace
from tests.engine.test_scale_and_feed import small_trace

PAIRS = [("tcg", "bitmap"), ("kvm-ring:4096", "bitmap")]


@pytest.fixture
def path(tmp_path):
    trace = small_trace(events=2000)
    events = trace.decode()
    write_trace(tmp_path / "t.parquet", trace.metadata, events.t_ns, events.page, origin_vcpu(events.origin))
    return tmp_path / "t.parquet"


def outcome(trace, log, design, **more):
    result = replay.run(
        trace, log=log, design=design, max_bandwidth="10MB/s", downtime_limit="5ms", give_up="3s", **more
    )
    rows = [{name: value for name, value in row.items() if not name.startswith("measured_")} for row in result.rows]
    return rows, result.guest, result.lost_pages, result.redundant_pages, result.provenance["trace"]["sha256"]


@pytest.mark.parametrize(("log", "design"), PAIRS)
@pytest.mark.parametrize("at_end", ["loop", "hold"])
def test_streamed_and_shared_come_to_the_same(path, log, design, at_end, monkeypatch):
    shared = outcome(path, log, design, at_end=at_end)
    monkeypatch.setattr(reader, "SHARED_EVENTS", 0)
    monkeypatch.setattr(reader, "READ_ROWS", 37)
    monkeypatch.setattr(feed, "LANE_EVENTS", 11)
    trace = replay.open_trace(path)
    assert outcome(trace, log, design, at_end=at_end) == shared
    assert trace._events is None or at_end == "loop"
    assert outcome(trace, log, design, at_end=at_end) == shared
    assert trace._events is not None


def test_a_fault_is_met_when_it_is_reached(path, monkeypatch, tmp_path):
    trace = replay.open_trace(path)
    bad = dataclasses.replace(trace.metadata, duration_ns=int(trace.decode().t_ns[-1]) - 1)
    monkeypatch.setattr(reader, "SHARED_EVENTS", 0)
    faulty = replay.open_trace(path)
    faulty._reader.metadata = bad
    with pytest.raises(TraceError, match="after the end of the recording"):
        outcome(faulty, *PAIRS[0], at_end="hold", start="1ms")


def test_nobody_works_ahead_for_nobody():
    made = []

    def items():
        for number in range(1000):
            made.append(number)
            yield np.full(1, number)

    wanted = ahead(items(), lambda: None)
    assert [int(next(wanted)[0]) for _ in range(3)] == [0, 1, 2]
    wanted.close()
    for _ in range(200):
        if not any(thread.name == "ahead" for thread in threading.enumerate()):
            break
        time.sleep(0.01)
    assert not any(thread.name == "ahead" for thread in threading.enumerate())
    assert len(made) <= 2 * DEPTH + 5
