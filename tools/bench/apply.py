"""Events applied to a dirty bitmap, the pages that were clean before counted: against C, and what one would write.

Of the peers the CPU time of all threads counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from replay.jit import U0, U64, kernel
from replay.kernels.bitmap import test_and_set
from tools.bench import workloads
from tools.bench.harness import Row, Side, c_call, compare

PATTERNS = ("uniform", "sequential", "hot")
EVENTS, QUICK_EVENTS = 4_000_000, 200_000
TARGET = (1.00, 0.80)


@kernel
def apply(pages: np.ndarray, count: Any, dirty: np.ndarray, out: np.ndarray) -> None:
    """Mark the pages of `count` events; out: how many were clean."""
    new = U0
    for index in range(count):
        new += U64(not test_and_set(dirty, U64(pages[index])))
    out[0] = new


def with_numpy(pages: np.ndarray, n_pages: int) -> int:
    """The same as a NumPy script."""
    dirty = np.zeros(n_pages, dtype=bool)
    dirty[pages] = True
    return int(np.count_nonzero(dirty))


def with_polars(pages: np.ndarray, n_pages: int) -> int:
    """The same as a polars script."""
    return pl.Series(pages).n_unique()


def with_python(pages: np.ndarray, n_pages: int) -> int:
    """The same in plain Python."""
    dirty = set()
    for page in pages.tolist():
        dirty.add(page)
    return len(dirty)


PEERS: dict[str, Callable[[np.ndarray, int], int]] = {
    "NumPy": with_numpy, "polars": with_polars, "Python": with_python,
}  # fmt: skip


def measure(quick: bool) -> list[Row]:
    """Rows for every pattern, and for the peers on hot pages."""
    rows = []
    ((name, n_pages),) = workloads.sizes(quick, ("96G",)).items()
    for pattern in PATTERNS:
        pages = workloads.stream(pattern, n_pages, QUICK_EVENTS if quick else EVENTS)
        rows.append(_compare(f"apply, {pattern}, {name}", pages, n_pages, quick))
    for peer, write in PEERS.items():
        rows.append(_compare(f"apply, {pattern}, {name}, against {peer}", pages, n_pages, quick, write))
    return rows


def _compare(
    what: str, pages: np.ndarray, n_pages: int, quick: bool, peer: Callable[[np.ndarray, int], int] | None = None
) -> Row:
    dirty, out = workloads.bitmap(n_pages, 0.0), np.zeros(1, dtype=np.uint64)

    def run_peer() -> None:
        out[0] = peer(pages, n_pages)  # type: ignore[misc]

    def side(run: Any, clock: Any = time.thread_time_ns) -> Side | None:
        return Side(run=run, prepare=lambda: dirty.fill(0), result=out.tolist, clock=clock) if run else None

    ours, target = side(lambda: apply(pages, U64(pages.size), dirty, out)), None
    if peer:
        theirs = side(run_peer, time.process_time_ns)
    else:
        theirs, target = side(c_call("apply", "apply", pages, pages.size, dirty, out)), TARGET
    return compare(what, ours, theirs, unit="ns/event", quick=quick, per=pages.size, target=target)
