"""Auto-converge: vCPUs that sleep a share of the time."""

from __future__ import annotations

from tests.reference.case import MS


class Throttle:
    """`settings`: initial, increment, maximum, tailslow, trigger. Times in ps; the next nap begins at `tick`."""

    def __init__(self, settings):
        self.settings = settings
        self.pct, self.strikes = 0, 0
        self.tick, self.every, self.nap, self.nap_end = None, 0, 0, 0
        self.steps: list[tuple[int, int]] = []  # (ms, percent)

    def take_nap(self):
        self.nap_end = self.tick + self.nap
        self.tick += self.every

    def decide(self, now, dirty, sent):
        """The period over `now` (ps) had so many bytes dirtied and sent."""
        initial, increment, maximum, tailslow, trigger = self.settings
        allowed = sent * trigger // 100
        if dirty <= allowed:
            return
        self.strikes += 1
        if self.strikes % 2:
            return
        step = increment
        if self.pct and tailslow:
            runs = 100 - self.pct
            step = min(runs - runs * allowed // dirty, increment)
        pct = min(self.pct + step if self.pct else initial, maximum, 99)
        self.every, self.nap = 10 * MS * 100 // (100 - pct), 10 * MS * pct // (100 - pct)
        if self.pct == 0:
            self.tick = now
        self.pct = pct
        self.steps.append((now // MS, pct))

    def crowds(self, now):
        """Whether all vCPUs are awake at once after a long nap."""
        return self.pct > 0 and self.every >= 200 * MS and self.nap_end <= now < self.tick
