"""Auto-converge: vCPUs are throttled, step by step, while the guest dirties memory faster than it is sent.

What: a period (the time between two syncs more than a second apart) is a strike when more than `trigger` percent of
what was sent in it became dirty again. How: every second strike throttles, first to `initial`, then by `increment`
more, up to `maximum`; a good period between two strikes forgives nothing. With `tailslow` a step is no larger than
what would bring the dirty rate down to the trigger. A sync is also made every 5 s in rounds longer than that.

Cost: none in the loop; the guest pays. Bad when the guest writes at a limited rate: it writes as much in the 10 ms that
are left to it, until the throttle is almost total. Then each sync waits for vCPUs that sleep for up to a second.

Models: migration_trigger_throttle and mig_throttle_guest_down of QEMU 10.0.
"""

from __future__ import annotations

from dataclasses import dataclass

from replay.migration.policy import SyncRecord
from replay.plugins import param


@dataclass(frozen=True, kw_only=True)
class Config:
    initial: int = param(20, "first throttle (cpu-throttle-initial)", unit="%", low=1, high=99)
    increment: int = param(10, "a later step (cpu-throttle-increment)", unit="%", low=1, high=99)
    maximum: int = param(99, "most (max-cpu-throttle)", unit="%", low=1, high=99)
    tailslow: bool = param(False, "smaller steps near the goal (cpu-throttle-tailslow)")
    trigger: int = param(
        50, "dirtied in a period, of what was sent (throttle-trigger-threshold)", unit="%", low=1, high=100
    )


class AutoConverge:
    """The strikes so far."""

    background_sync = True

    def __init__(self, config: Config):
        self.config = config
        self.strikes = 0

    def at_sync(self, record: SyncRecord) -> int | None:
        """The new throttle when this sync brings the second strike."""
        allowed = record.period_sent_bytes * self.config.trigger // 100
        if not record.period_over or record.period_dirty_bytes <= allowed:
            return None
        self.strikes += 1
        if self.strikes < 2:
            return None
        self.strikes = 0
        return self._next(record.throttle_pct, record.period_dirty_bytes, allowed)

    def _next(self, pct: int, dirty_bytes: int, allowed: int) -> int:
        if pct == 0:
            return min(self.config.initial, self.config.maximum)
        step = self.config.increment
        if self.config.tailslow:
            runs = 100 - pct
            step = min(runs - runs * allowed // dirty_bytes, step)
        return min(pct + step, self.config.maximum)


def build(config: Config) -> AutoConverge:
    """Nothing struck yet."""
    return AutoConverge(config)
