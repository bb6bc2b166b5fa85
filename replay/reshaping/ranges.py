"""Ranges of pages side by side: renumbering events, RAM blocks and page classes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from replay import units
from replay.errors import UsageError
from replay.trace.events import Array
from replay.trace.schema import PageRun, RamBlock

Range = tuple[int, int]  # first page, and the page after the last


def checked(ranges: Sequence[Range], n_pages: int) -> tuple[Range, ...]:
    """The ranges in ascending order. Raises UsageError for an empty one, one beyond memory, or two that overlap."""
    ordered = sorted(ranges)
    for first, end in ordered:
        if not 0 <= first < end <= n_pages:
            raise UsageError(
                f"pages {first}-{end} are not a range of the trace's {n_pages} pages (the end is exclusive)"
            )
    for (first, end), (after, last) in itertools.pairwise(ordered):
        if after < end:
            raise UsageError(f"the ranges {first}-{end} and {after}-{last} overlap")
    return tuple(ordered)


def memory_edges(text: str) -> tuple[int | float, int | float]:
    """Both edges of a range of memory, bytes (int) or a share (float): "0-1G", "25%-50%". Raises UsageError."""
    low, dash, high = text.partition("-")
    if not dash:
        raise UsageError(f"within={text} is not a range of memory; write within=0-1G or within=25%-50%")
    a, b = (units.parse_share(edge) if edge.endswith("%") else units.parse_bytes(edge) for edge in (low, high))
    return a, b


def within(text: str, n_pages: int, page_size: int) -> Range:
    """The pages of a range of memory. Raises UsageError when it is none."""
    low, high = (round(edge * n_pages) if isinstance(edge, float) else edge // page_size for edge in memory_edges(text))
    return checked([(low, high)], n_pages)[0]


def numbered(text: str) -> Range:
    """A range of pages by number, the end exclusive: "0-65536". Raises UsageError."""
    low, dash, high = text.partition("-")
    if not dash or not all(edge.isascii() and edge.isdecimal() for edge in (low, high)):
        raise UsageError(f"{text!r} is not a range of pages; write it like 0-65536 (the end is exclusive)")
    return int(low), int(high)


class Cut:
    """Pages of some ranges, numbered anew from 0, in order."""

    def __init__(self, ranges: tuple[Range, ...]) -> None:
        self.ranges = ranges
        self.n_pages = sum(end - first for first, end in ranges)
        self._first = np.array([first for first, _ in ranges], np.int64)
        self._end = np.array([end for _, end in ranges], np.int64)
        sizes = self._end - self._first
        self._shift = np.concatenate([[0], np.cumsum(sizes)[:-1]]) - self._first

    def inside(self, page: Array) -> Array:
        """Which of the pages lie in a range."""
        where = np.searchsorted(self._first, page, side="right") - 1
        return (where >= 0) & (page < self._end[where])

    def renumbered(self, page: Array) -> Array:
        """The new numbers (uint32) of pages that lie in a range."""
        where = np.searchsorted(self._first, page, side="right") - 1
        return (page.astype(np.int64) + self._shift[where]).astype(np.uint32)

    def blocks(self, blocks: Iterable[RamBlock]) -> tuple[RamBlock, ...]:
        """What is left of RAM blocks; one that is cut into several pieces has them numbered."""
        pieces: dict[str, list[tuple[int, int]]] = {}
        for name, first, n_pages in blocks:
            for piece in self._pieces(first, first + n_pages):
                pieces.setdefault(name, []).append(piece)
        found = [
            RamBlock(name if len(parts) == 1 else f"{name}#{number}", first, n_pages)
            for name, parts in pieces.items()
            for number, (first, n_pages) in enumerate(parts)
        ]
        return tuple(sorted(found, key=lambda block: block.first_page))

    def classes(self, runs: Iterable[PageRun]) -> tuple[PageRun, ...]:
        """What is left of page classes."""
        found = [
            PageRun(at, n_pages, run.page_class)
            for run in runs
            for at, n_pages in self._pieces(run.first_page, run.first_page + run.n_pages)
        ]
        return merged_runs(sorted(found))

    def _pieces(self, first: int, end: int) -> list[tuple[int, int]]:
        """The parts of pages [first, end) that lie in ranges: new first page, pages."""
        low = int(np.searchsorted(self._end, first, side="right"))
        high = int(np.searchsorted(self._first, end, side="left"))
        found = []
        for index in range(low, high):
            a, b = max(first, self.ranges[index][0]), min(end, self.ranges[index][1])
            found.append((a + int(self._shift[index]), b - a))
        return found


def merged_runs(runs: Iterable[PageRun]) -> tuple[PageRun, ...]:
    """Neighbouring runs of one class as one."""
    out: list[PageRun] = []
    for run in runs:
        if out and out[-1].page_class == run.page_class:
            out[-1] = PageRun(out[-1].first_page, out[-1].n_pages + run.n_pages, run.page_class)
        else:
            out.append(run)
    return tuple(out)
