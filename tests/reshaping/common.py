"""Small traces made of lists of events, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from replay.trace.events import origin_source
from replay.trace.reader import Trace, open_trace
from replay.trace.schema import PageRun, RamBlock, TraceMetadata
from replay.trace.writer import write_trace

PAGES, DURATION = 200, 1000
EventList = list[tuple[int, int, int]]

slow_ok = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
lists = st.lists(
    st.tuples(st.integers(0, DURATION), st.integers(0, PAGES - 1), st.integers(0, 2)), min_size=1, max_size=120
).map(sorted)


def metadata(**changes: Any) -> TraceMetadata:
    values: dict[str, Any] = {
        "title": "a test", "guest": "none", "workload": "none", "memory_bytes": PAGES * 4096, "n_vcpus": 3,
        "ram_blocks": (RamBlock("low", 0, 120), RamBlock("high", 120, 80)), "duration_ns": DURATION, "clock": "virtual",
        "capture": "made up", "limits": "none", "licence": "CC0-1.0", "rearm_times_ns": (0, 300, 600),
        "page_classes": (PageRun(0, 50, "data"), PageRun(50, 150, "zero")), "page_classes_at_ns": 0,
        "provenance": {"made_by": "tests", "made_from": "nothing", "made_at": "2026-01-01", "tool": "pytest"},
    }  # fmt: skip
    return TraceMetadata(**(values | changes))


def made(path: Path, events: EventList, **changes: Any) -> Trace:
    t_ns, page, vcpu = ([event[i] for event in events] for i in range(3))
    write_trace(path, metadata(**changes), t_ns, page, vcpu)
    return open_trace(path)


def events_of(trace: Trace) -> EventList:
    t_ns, page, origin = trace.decode()
    assert not origin_source(origin).any()
    return list(zip(t_ns.tolist(), page.tolist(), origin.tolist(), strict=True))


def zero_of(trace: Trace) -> list[bool]:
    bits = np.unpackbits(trace.zero_pages().view(np.uint8), bitorder="little")[: trace.metadata.n_pages]
    return bits.astype(bool).tolist()
