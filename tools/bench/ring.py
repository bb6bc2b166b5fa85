"""A bounded queue of dirty pages with a bitmap that keeps a page from being queued twice, against the same in C."""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.jit import U0, U1, U6, U63, U64, kernel
from replay.kernels.bitmap import test_and_set
from replay.kernels.ring import advance, entry, push, used
from tools.bench import workloads
from tools.bench.harness import Row, Side, c_call, compare

RINGS = (1024, 65536)
PATTERNS = ("uniform", "sequential", "hot")
EVENTS, QUICK_EVENTS = 4_000_000, 200_000
TARGET = (1.10, 1.00)


@kernel
def ring(
    pages: np.ndarray, count: Any, burst: Any, slots: np.ndarray, ends: np.ndarray, queued: np.ndarray, out: np.ndarray
) -> None:
    """Offer events in bursts, then take everything. out: entries queued, and the sum of entry x place."""
    size = U64(slots.size)
    total, first = U0, U0
    while first < count:
        last = min(first + burst, count)
        for index in range(first, last):
            page = U64(pages[index])
            if not test_and_set(queued, page):
                push(slots, ends, U0, size, page)
        while used(ends, U0) > U0:
            place = ends[0]
            page = entry(slots, U0, size, place)
            advance(ends, U0, U1)
            queued[page >> U6] &= ~(U1 << (page & U63))
            total += page * place
        first = last
    out[0] = ends[1]
    out[1] = total


def measure(quick: bool) -> list[Row]:
    """Rows for every ring size and pattern; a burst is half a ring."""
    rows = []
    ((name, n_pages),) = workloads.sizes(quick, ("96G",)).items()
    count = QUICK_EVENTS if quick else EVENTS
    for pattern in PATTERNS:
        pages = workloads.stream(pattern, n_pages, count)
        for size in RINGS:
            rows.append(_compare(f"ring {size}, {pattern}, {name}", pages, size, n_pages, quick))
    return rows


def _compare(what: str, pages: np.ndarray, size: int, n_pages: int, quick: bool) -> Row:
    queued, out = workloads.bitmap(n_pages, 0.0), np.zeros(2, dtype=np.uint64)
    slots, ends = np.ones(size, dtype=np.uint64), np.zeros(4, dtype=np.uint64)

    def clear() -> None:
        queued.fill(0)
        ends.fill(0)

    def side(run: Any) -> Side | None:
        return Side(run=run, prepare=clear, result=out.tolist) if run else None

    ours = side(lambda: ring(pages, U64(pages.size), U64(size // 2), slots, ends, queued, out))
    theirs = side(c_call("ring", "ring", pages, pages.size, size // 2, slots, size, ends, queued, out))
    return compare(what, ours, theirs, unit="ns/event", quick=quick, per=pages.size, target=TARGET)
