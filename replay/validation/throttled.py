"""A recording made under a throttle, lined up with the throttle of its replay.

Such a recording has bursts: its guest ran for 10 ms between two sleeps. A replay that sets the same throttle a little
earlier or later would have its ticks between these bursts; its syncs would wait for a guest that is not asleep in the
trace, or find nothing written. Where a sleep is long (a period of 200 ms and more) and the recording has such sleeps
ahead, too, its last burst before the first of them is put where the replayed guest runs before its own; what was
recorded in between is left out.
"""

from __future__ import annotations

import numpy as np

from replay.migration.feed import Feed
from replay.migration.guest import NEXT_PS, TICK_PS
from replay.migration.policy import Policy, SyncRecord
from replay.migration.throttle import LONG_PERIOD_MS, RUN_MS
from replay.units import NS_PER_MS, PS_PER_MS

_AHEAD_MS = 5_000
_WRAP = 1 << 64


def _last_before_sleep(t_ns: np.ndarray, period_ms: int) -> int | None:
    """The first event of the burst before the first sleep of that throttle; a few stray writes do not end a sleep."""
    counts = np.bincount((t_ns - t_ns[0]) // (RUN_MS // 2 * NS_PER_MS))
    busy = np.flatnonzero(counts > counts.max() // 5)
    asleep = np.flatnonzero(np.diff(busy) * (RUN_MS // 2) >= period_ms * 6 // 10)
    if not asleep.size:
        return None
    last = int(asleep[0])
    while last > 0 and busy[last] - busy[last - 1] == 1:
        last -= 1
    return int(np.searchsorted(t_ns, t_ns[0] + int(busy[last]) * (RUN_MS // 2) * NS_PER_MS))


class LinedUp:
    """A policy whose long throttles line up the recorded bursts with its ticks."""

    def __init__(self, policy: Policy, feed: Feed):
        self.policy, self.feed = policy, feed
        self.background_sync = policy.background_sync
        self._last = 0

    def at_sync(self, record: SyncRecord) -> int | None:
        """What the policy says; a new long period moves the guest's events."""
        pct = self.policy.at_sync(record)
        if pct is not None and pct != self._last:
            self._last = pct
            period_ms = RUN_MS * 100 // (100 - pct)
            if period_ms >= LONG_PERIOD_MS and record.throttle_pct:
                self._line_up(period_ms)
        return pct

    def _line_up(self, period_ms: int) -> None:
        guest = self.feed.guest
        head, stop = int(guest.head[0]), int(guest.stop[0])
        if head >= stop:
            return
        last = head + int(np.searchsorted(guest.t_ns[head:stop], guest.t_ns[head] + np.uint64(_AHEAD_MS * NS_PER_MS)))
        first = _last_before_sleep(guest.t_ns[head:last].astype(np.int64), period_ms)
        if first is None:
            return
        first += head
        runs_ps = int(guest.state[TICK_PS]) - RUN_MS * PS_PER_MS
        guest.head[0] = first
        guest.offset_ps[:] = (runs_ps - int(guest.t_ns[first]) * 1000) % _WRAP
        guest.state[NEXT_PS] = 0
