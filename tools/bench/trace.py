"""Trace files: bytes an event, and reading and applying one against applying events that are in memory already."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from replay.jit import U64
from replay.kernels import memory
from replay.trace.documentation import synthetic_streams
from replay.trace.events import origin_vcpu
from replay.trace.reader import Trace, TraceReader
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
            rows.append(_compare(f"{label}: read, apply", path, trace, quick))
    return rows


def _compare(what: str, path: Path, trace: Trace, quick: bool) -> Row:
    """Ours: from the file, one row group after the other. Theirs: the same kernel on arrays."""
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

    ours = Side(run=from_file, prepare=clear, result=lambda: total[0])
    theirs = Side(run=lambda: add(events.page), prepare=clear, result=lambda: total[0])
    return compare(what, ours, theirs, unit="ns/event", quick=quick, per=trace.n_events, target=TARGET)
