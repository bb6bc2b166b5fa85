"""What QEMU measures on the way: the bandwidth of 100 ms windows, and the dirty rate of periods over a second.

A window is closed at the first look at the clock 100 ms or more after it was opened; its bytes over its milliseconds
are the bandwidth, and that times the downtime limit is the threshold until the next one closes. A period is closed by
the first sync more than a second after the last one that closed one; it holds all pages that syncs found in between.
Source: QEMU 10.0 migration/migration.c and ram.c by their described behaviour.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from replay.migration.link import FLUSHED, WINDOW_MS, WINDOW_START

PERIOD_MS = 1000


@dataclass
class Window:
    """The window that is open. Times in ms, `threshold` in bytes."""

    ms: int = 0
    bytes: int = 0
    pages: int = 0
    threshold: int = 0
    mbps: float = 0.0
    pages_per_second: float = 0.0

    def close(self, stream: np.ndarray, now_ms: int, pages: int, downtime_limit_ms: int) -> None:
        """Close it if it is over, and open the next one. `pages`: sent so far."""
        spent_ms = now_ms - self.ms
        if spent_ms < WINDOW_MS:
            return
        flushed = int(stream[FLUSHED])
        self.threshold = int((flushed - self.bytes) / spent_ms * downtime_limit_ms)
        self.mbps = (flushed - self.bytes) * 8 / (spent_ms / 1000) / 1e6
        self.pages_per_second = (pages - self.pages) / (spent_ms / 1000)
        self.ms, self.bytes, self.pages = now_ms, flushed, pages
        stream[WINDOW_START] = flushed


@dataclass
class Period:
    """The period that is open: `pages` new in its syncs, `bytes` flushed before it; and the last one's rate."""

    ms: int = 0
    pages: int = 0
    bytes: int = 0
    dirty_pages_rate: int = 0

    def is_over(self, now_ms: int) -> bool:
        """Whether a sync that ends now closes it."""
        return now_ms > self.ms + PERIOD_MS

    def close(self, now_ms: int, flushed: int) -> None:
        """Take its rate and open the next one."""
        self.dirty_pages_rate = self.pages * 1000 // (now_ms - self.ms)
        self.ms, self.pages, self.bytes = now_ms, 0, flushed
