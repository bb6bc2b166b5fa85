"""Precopy in full passes, as Cloud Hypervisor does it, over the writes of a trace.

The first pass sends all memory, every later one what was written during the one before, as fast as the link takes it.
Before each later pass its time is estimated from its size and the bandwidth; when that is within the downtime limit the
guest is stopped and the rest is sent. There are no windows, no rate limit and no pages left out because they are zero.
The time for fetching the dirty log, some ms a pass, is left out.

Models: do_memory_iterations in Cloud Hypervisor's vmm/src/lib.rs, March 2026 on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from replay.migration.feed import Window
from replay.migration.link import PAGE_BYTES

_NS = 10**9


@dataclass(frozen=True, kw_only=True)
class Passes:
    """A predicted migration. `sizes`: bytes of each pass; `begins_ns`: when it began, from the first one's begin.

    `rest_bytes`: what was left when it stopped, sent while the guest stands still. `converged`: None without a limit.
    """

    sizes: tuple[int, ...]
    begins_ns: tuple[int, ...]
    rest_bytes: int
    end_ns: int
    converged: bool | None


def full_passes(
    windows: Iterable[Window], memory_bytes: int, bandwidth: int, downtime_limit_ns: int | None, most: int
) -> Passes:
    """Passes over a guest whose writes are `windows` (t_ns from 0 on, without an end), at most `most` of them.

    bandwidth: bytes a second. Without a downtime limit there are exactly `most` passes.
    """
    writes = _Writes(windows)
    sizes, begins, now_ns, pending = [memory_bytes], [0], 0, memory_bytes
    while True:
        now_ns += -(-pending * _NS // bandwidth)
        pending = writes.distinct_until(now_ns) * PAGE_BYTES
        short = downtime_limit_ns is not None and pending * _NS <= downtime_limit_ns * bandwidth
        if short or len(sizes) == most:
            converged = None if downtime_limit_ns is None else short
            return Passes(
                sizes=tuple(sizes), begins_ns=tuple(begins), rest_bytes=pending, end_ns=now_ns, converged=converged
            )
        sizes.append(pending)
        begins.append(now_ns)


class _Writes:
    """Goes through windows of events in order."""

    def __init__(self, windows: Iterable[Window]) -> None:
        self._windows = iter(windows)
        self._window = next(self._windows)
        self._at = 0

    def distinct_until(self, end_ns: int) -> int:
        """Pages written since the last call and before `end_ns`."""
        parts = []
        while True:
            to = int(np.searchsorted(self._window.t_ns, np.uint64(end_ns)))
            parts.append(self._window.page[self._at : to])
            self._at = to
            if self._window.end_ns > end_ns:
                return int(np.unique(np.concatenate(parts)).size)
            self._window, self._at = next(self._windows), 0
