"""Trace files: bytes an event, and reading and applying one against applying events that are in memory already.

In three ways: decoded by the thread that applies (its CPU time); decoded ahead by another thread (wall time, which
needs two idle cores); and mapped from the decoded copy that `replay trace decode` makes (wall time, from opening on).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from replay.jit import U64, wrapping
from replay.kernels import memory
from replay.trace import side_file
from replay.trace.ahead import ahead
from replay.trace.documentation import synthetic_streams
from replay.trace.events import origin_vcpu
from replay.trace.reader import Trace, TraceReader, open_trace
from replay.trace.writer import write_trace
from tools.bench.apply import apply
from tools.bench.harness import Row, Side, compare, measured

EVENTS, QUICK_EVENTS = 1 << 22, 1 << 17
ARRAY_BYTES = 14.0  # of an event in memory: time, page, origin
TARGET = (5.0, 3.0)
BYTES_TARGETS = {"Poisson": (5.2, 4.9), "harvested": (3.0, 2.5)}


def measure(quick: bool) -> list[Row]:
    """Two rows for each of the streams that traces are written of."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="replay-bench-") as folder:
        path = Path(folder, "stream.parquet")
        for name, trace in synthetic_streams(QUICK_EVENTS if quick else EVENTS).items():
            kind = "harvested" if name.startswith("harvested") else "Poisson"
            label = f"trace {kind}{', hot' if '%' in name else ''}"
            events = trace.decode()
            write_trace(path, trace.metadata, events.t_ns, events.page, origin_vcpu(events.origin))
            size = path.stat().st_size / trace.n_events
            target = BYTES_TARGETS[kind]
            what = f"{label}: an event"
            rows.append(measured(what, [size], [ARRAY_BYTES], unit="B", target=target, of_ratio=False))
            rows += _compare(label, path, trace, quick)
    return rows


@wrapping
def _compare(label: str, path: Path, trace: Trace, quick: bool) -> list[Row]:
    """Ours: from the file, one batch after the other, or mapped. Theirs: the same kernel on arrays."""
    dirty, out = memory.words(-(-trace.metadata.n_pages // 64)), np.zeros(1, dtype=np.uint64)
    events, total = trace.decode(), [0]

    def add(pages: Any) -> None:
        apply(pages, U64(pages.size), dirty, out)
        total[0] += int(out[0])

    def clear() -> None:
        dirty.fill(0)
        total[0] = 0

    def from_file() -> None:
        for batch in TraceReader(path).batches():
            add(batch.page)

    def from_thread() -> None:
        for batch in ahead(TraceReader(path).batches(), lambda: None):
            add(batch.page)

    def from_copy() -> None:
        add(open_trace(path).decode().page)

    def row(what: str, run: Callable[[], None], clock: Callable[[], int]) -> Row:
        ours = Side(run=run, prepare=clear, result=lambda: total[0], clock=clock)
        theirs = Side(run=lambda: add(events.page), prepare=clear, result=lambda: total[0], clock=clock)
        return compare(
            f"{label}: {what}", ours, theirs, unit="ns/event", quick=quick, per=trace.n_events, target=TARGET
        )

    rows = [
        row("read, apply", from_file, time.thread_time_ns),
        row("read ahead on a second core, apply: wall", from_thread, time.perf_counter_ns),
    ]
    side_file.make(TraceReader(path))
    rows.append(row("map the decoded copy, apply: wall", from_copy, time.perf_counter_ns))
    side_file.remove(path)
    return rows
