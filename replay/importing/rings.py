"""What the numbers of a dirty ring tell: whether entries are missing, when pages were re-armed, how long they were not.

A ring's index goes up by one with every entry, so a gap is a count of lost events, whatever the tracer says about it. A
page is armed again when the reset index passes its entry: until then further writes to it go unseen.
"""

from __future__ import annotations

from array import array
from collections import deque

from replay.importing.tally import GAP, Tally

INDEX_RANGE = 1 << 32
MAX_MISSING = 1 << 16  # lost indices remembered, for entries that only come late


class Ring:
    """The indices of one ring: what is missing, and what waits to be reset."""

    def __init__(self) -> None:
        self.last: int | None = None
        self.missing: set[int] = set()
        self.waiting: deque[tuple[int, int]] = deque()  # (index, time) of entries that were not reset yet
        self.pushes = 0

    def follow(self, index: int, tally: Tally) -> bool:
        """Take the next index. False: this entry was there before."""
        if self.last is None:
            self.last = index
            return True
        step = (index - self.last) % INDEX_RANGE
        if step == 1:
            self.last = index
            return True
        if 0 < step < INDEX_RANGE // 2:
            tally.lost[GAP] += step - 1
            self.missing.update((self.last + k) % INDEX_RANGE for k in range(max(1, step - MAX_MISSING), step))
            if len(self.missing) > 2 * MAX_MISSING:
                self.missing = {(self.last + k) % INDEX_RANGE for k in range(max(1, step - MAX_MISSING), step)}
            self.last = index
            return True
        if index in self.missing:
            self.missing.discard(index)
            tally.lost[GAP] -= 1
            return True
        if index == 1 and INDEX_RANGE - step > 1:
            tally.notes["a ring began anew"] += 1
            self.last = index
            self.missing.clear()
            self.waiting.clear()
            return True
        return False


class Rings:
    """All rings of a recording: continuity, full re-arms, and the longest time a page stood unarmed."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self.rings: dict[int, Ring] = {}
        self.rearm_ns = array("q")
        self.partial_resets = 0
        self.longest_ns = 0
        self._group: dict[int, bool] = {}
        self._group_ns = 0

    def push(self, ring: int, index: int, reset: int, t_ns: int) -> bool:
        """An entry. False: it was there before."""
        found = self.rings.get(ring)
        if found is None:
            found = self.rings[ring] = Ring()
        if not found.follow(index, self._tally):
            return False
        found.pushes += 1
        if found.waiting:
            self._passed(found, reset, t_ns)
        found.waiting.append((index, t_ns))
        return True

    def reset(self, ring: int, dirty: int, reset: int, t_ns: int) -> None:
        """A ring was reset up to the index `reset`. The lines of one ioctl, one a ring, are one re-arm."""
        if ring in self._group:
            self._close()
        if not self._group:
            self._group_ns = t_ns
        self._group[ring] = dirty == reset
        if ring in self.rings:
            self._passed(self.rings[ring], reset, t_ns)

    def finish(self, end_ns: int) -> None:
        """The recording ends: pages that were not reset stay unarmed to its end."""
        self._close()
        for ring in self.rings.values():
            if ring.waiting:
                self.longest_ns = max(self.longest_ns, end_ns - ring.waiting[0][1])

    def _passed(self, ring: Ring, reset: int, t_ns: int) -> None:
        waiting = ring.waiting
        while waiting and 0 <= (reset - waiting[0][0]) % INDEX_RANGE < INDEX_RANGE // 2:
            self.longest_ns = max(self.longest_ns, t_ns - waiting.popleft()[1])

    def _close(self) -> None:
        if not self._group:
            return
        if all(self._group.values()) and self.rings.keys() <= self._group.keys():
            self.rearm_ns.append(self._group_ns)
        else:
            self.partial_resets += 1
        self._group.clear()
