"""Reuse and popularity of pages: how long ago, and how many pages ago, was a page written before; how often is each.

Exact, in one pass: 16 bytes for each page up to the highest one written, and a line of positions (see
replay.kernels.describe) that is compacted when it is full.
"""

from __future__ import annotations

import os

import numpy as np

from replay.errors import UsageError
from replay.kernels import describe
from replay.kernels.describe import BLOCK_BITS, BUCKETS, FIRST_WRITES, LIVE, NEXT, Line
from replay.trace.events import Array
from replay.units import format_bytes

LINE_POSITIONS = 1 << 22
PEAK_BYTES = 25  # a page: its record, its count once more when sorted, and a bit for each window length


class Reuse:
    """Fed in time order; histograms of what it saw."""

    def __init__(self, line_positions: int = LINE_POSITIONS) -> None:
        self.times = np.zeros(BUCKETS, np.uint64)  # ns since the page's last write, of rewrites
        self.distances = np.zeros(BUCKETS, np.uint64)  # other pages written since, of rewrites
        self._pages = np.zeros((0, 2), np.uint64)
        self._line = _line(line_positions, np.zeros(4, np.uint64))

    def add(self, t_ns: Array, page: Array) -> None:
        """Go through some more writes (at least one)."""
        self._make_room(int(page.max()) + 1)
        row = 0
        while row < page.size:
            if int(self._line.state[NEXT]) == self._line.bits.size * 64:
                self._compact()
            row = int(describe.reuse(t_ns, page, row, self._pages, self._line, self.times, self.distances))

    @property
    def first_writes(self) -> int:
        """Distinct pages so far."""
        return int(self._line.state[FIRST_WRITES])

    def popularity(self) -> Array:
        """(distinct pages,) uint32: writes of each page, most first."""
        writes = (self._pages[:, 1] >> np.uint64(32)).astype(np.uint32)
        return np.sort(writes[writes > 0])[::-1]

    def middle_page(self) -> int:
        """The written page that has as many written pages below it as above."""
        written = np.flatnonzero(self._pages[:, 1])
        return int(written[written.size // 2])

    def _make_room(self, n_pages: int) -> None:
        if n_pages > len(self._pages):
            if n_pages * PEAK_BYTES > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
                raise UsageError(
                    f"a page as high as {n_pages - 1} needs {format_bytes(n_pages * PEAK_BYTES)} here, more than this "
                    "machine has; look at a part of memory (replay trace slice --within)"
                )
            larger = np.zeros((max(n_pages, len(self._pages) * 5 // 4), 2), np.uint64)
            larger[: len(self._pages)] = self._pages
            self._pages = larger

    def _compact(self) -> None:
        bits, _, state = self._line
        describe.compact(self._pages, bits, np.empty(bits.size, np.uint64))
        if int(state[LIVE]) > bits.size * 32:
            self._line = _line(bits.size * 128, state)
        describe.rebuild(self._line)


def _line(positions: int, state: Array) -> Line:
    return Line(np.zeros(positions // 64, np.uint64), np.zeros(positions // BLOCK_BITS + 1, np.uint64), state)


def bucket_edges() -> list[tuple[int, int]]:
    """From (inclusive) and to (exclusive) of every histogram bucket."""
    edges = [(x, x + 1) for x in range(4)]
    for top in range(3, 65):
        step = 1 << (top - 3)
        edges += [(step * quarter, step * (quarter + 1)) for quarter in range(4, 8)]
    return edges


def percentile(histogram: Array, share: float) -> float | None:
    """The value (the middle of its bucket) that `share` of the counted values do not exceed; None: none counted."""
    total = int(histogram.sum())
    if not total:
        return None
    at = int(np.searchsorted(np.cumsum(histogram), share * total))
    low, high = bucket_edges()[min(at, BUCKETS - 1)]
    return (low + high - 1) / 2
