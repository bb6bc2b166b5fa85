"""Curves over windows of one length: events, distinct pages, and extents of distinct pages, window by window.

Windows start at t = 0 and cover the duration; the last may be partial, and an event at the very end belongs to it. An
extent is a stretch of neighbouring pages that were all written in the window, in whatever order: what a scan of the
dirty bitmap finds at the end of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from replay.errors import UsageError
from replay.kernels import describe
from replay.trace.events import Array
from replay.units import format_duration

LENGTHS = (1 << 16) + 1  # a histogram of lengths; the last place is for that many pages and more
MOST_WINDOWS = 1 << 20


class Curve(NamedTuple):
    """Figures of every window of one length, all (windows,) int64."""

    window_ns: int
    events: Array
    unique_pages: Array
    extents: Array


class Windows:
    """Fed in time order; `curve` when all was seen."""

    def __init__(self, window_ns: int, duration_ns: int) -> None:
        if window_ns <= 0:
            raise UsageError(f"a window of {window_ns} ns is not longer than nothing")
        self.window_ns = window_ns
        self.n_windows = -(-duration_ns // window_ns)
        if self.n_windows > MOST_WINDOWS:
            raise UsageError(
                f"{self.n_windows} windows of {format_duration(window_ns)} are more than {MOST_WINDOWS}; "
                "choose longer ones"
            )
        self.events, self.unique_pages, self.extents = (np.zeros(self.n_windows, np.int64) for _ in range(3))
        self.extent_lengths = np.zeros(LENGTHS, np.uint64)
        self._words = np.zeros(8, np.uint64)
        self._current = 0
        self._under_way = False

    def add(self, t_ns: Array, page: Array) -> None:
        """Some more events (at least one)."""
        need = (int(page.max()) // 512 + 1) * 8
        if need > self._words.size:
            grown = np.zeros(max(need, self._words.size * 5 // 32 * 8), np.uint64)
            grown[: self._words.size] = self._words
            self._words = grown
        low, high = (min(int(t) // self.window_ns, self.n_windows - 1) for t in (t_ns[0], t_ns[-1]))
        edges = np.arange(low + 1, high + 1, dtype=np.uint64) * np.uint64(self.window_ns)
        starts = [0, *np.searchsorted(t_ns, edges).tolist(), t_ns.size]
        for number, first, last in zip(range(low, high + 1), starts, starts[1:], strict=False):
            if first == last:
                continue
            if number != self._current:
                self.close()
                self._current = number
            self.events[number] += last - first
            self.unique_pages[number] += int(describe.mark_pages(page, first, last, self._words))
            self._under_way = True

    def close(self) -> None:
        """Count the extents of the window under way and begin a new one."""
        if self._under_way:
            self.extents[self._current] = int(describe.take_extents(self._words, self.extent_lengths))
            self._under_way = False

    def curve(self) -> Curve:
        """The figures of all windows, those without events too."""
        self.close()
        return Curve(self.window_ns, self.events, self.unique_pages, self.extents)
