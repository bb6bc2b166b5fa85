"""Reuse and popularity of pages: how long ago, and how many pages ago, was a page written before; how often is each.

Exact, in one pass: 16 bytes for each page of the parts of memory that are written, and a line of positions (see
replay.kernels.describe) that is compacted when it is full.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import numpy as np

from replay.errors import UsageError
from replay.kernels import describe
from replay.kernels.describe import BLOCK_BITS, BUCKETS, FIRST_WRITES, LIVE, NEXT, Line
from replay.trace.events import Array
from replay.units import format_bytes

LINE_POSITIONS = 1 << 22
PEAK_BYTES = 25  # a page: its record, its count once more when sorted, and a bit for each window length
PART_PAGES = 1 << 18


class Reuse:
    """Fed in time order; histograms of what it saw. n_pages: pages of the guest."""

    def __init__(self, n_pages: int, line_positions: int = LINE_POSITIONS) -> None:
        self.times = np.zeros(BUCKETS, np.uint64)  # ns since the page's last write, of rewrites
        self.distances = np.zeros(BUCKETS, np.uint64)  # other pages written since, of rewrites
        self._affordable = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // PEAK_BYTES
        self._pages = _untouched(min(n_pages, self._affordable))
        self._line = _line(line_positions, np.zeros(4, np.uint64))

    def add(self, t_ns: Array, page: Array) -> None:
        """Go through some more writes (at least one). Raises UsageError for a page too high for this machine."""
        highest = int(page.max())
        if highest >= self._affordable:
            raise UsageError(
                f"a page as high as {highest} needs {format_bytes(highest * PEAK_BYTES)} here, more than this machine "
                "has; look at a part of memory (replay trace slice --within)"
            )
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
        parts = [(part[part > 0] >> np.uint64(32)).astype(np.uint32) for part in self._parts()]
        return np.sort(np.concatenate(parts))[::-1]

    def middle_page(self) -> int:
        """The written page that has as many written pages below it as above."""
        written = [np.flatnonzero(part) for part in self._parts()]
        left, first = sum(part.size for part in written) // 2, 0
        for part in written:
            if left < part.size:
                return first + int(part[left])
            left, first = left - part.size, first + PART_PAGES
        raise AssertionError("unreachable")

    def _parts(self) -> Iterator[Array]:
        """The counts of all pages, piece by piece: all at once would be as large as half of the records."""
        for first in range(0, len(self._pages), PART_PAGES):
            yield self._pages[first : first + PART_PAGES, 1]

    def _compact(self) -> None:
        bits, _, state = self._line
        describe.compact(self._pages, bits, np.empty(bits.size, np.uint64))
        if int(state[LIVE]) > bits.size * 32:
            self._line = _line(bits.size * 128, state)
        describe.rebuild(self._line)


def _untouched(n_pages: int) -> Array:
    """(n_pages, 2) uint64 zeros that take memory only where they are written.

    numpy's own zeros ask for huge pages, of which a few writes in a large guest would make all resident.
    """
    memory = mmap.mmap(-1, max(1, n_pages) * 16, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, np.uint64).reshape(-1, 2)


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
