"""Dirty-limit: vCPUs that dirty more than a quota sleep whenever their KVM dirty ring is full.

What: strikes are counted as for auto-converge (a period in which more than `trigger` percent of what was sent became
dirty again), and the second one puts all vCPUs under `quota`. How: from then on a thread measures once a period how
much each vCPU has dirtied. One that is more than 25 MiB/s off its quota gets a longer or shorter sleep at each full
ring: by a tenth of the time in which the ring fills at the highest rate seen, or, where it is off by more than half, by
as much as would bring it to the quota at once. Meanwhile the reaper thread is off, and a vCPU whose ring is full reaps
only its own.

Cost: none in the loop; a sync's folding of the slots each period. It slows writers and leaves readers alone, and unlike
auto-converge the vCPUs sleep one by one, so that no sync waits for them. Bad where rings are large or the guest dirties
little: a vCPU that never fills its ring never sleeps, and one within 25 MiB/s of its quota is left as it is.

Needs `--log kvm-ring`. Models: softmmu/dirtylimit.c and mig_throttle_guest_down of QEMU 10.0; rates there are whole
MiB/s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from replay.errors import UsageError
from replay.migration.policy import SyncRecord
from replay.plugins import param
from replay.units import PS_PER_MS


@dataclass(frozen=True, kw_only=True)
class Config:
    quota: int = param(1, "of each vCPU (vcpu-dirty-limit)", unit="MiB/s", low=1, high=1_000_000)
    period: int = param(1000, "between two measurements (x-vcpu-dirty-limit-period)", unit="ms", low=1, high=1000)
    trigger: int = param(
        50, "dirtied in a period, of what was sent (throttle-trigger-threshold)", unit="%", low=1, high=100
    )


class DirtyLimit:
    """The strikes so far, and the log whose vCPUs will be limited."""

    background_sync = False

    def __init__(self, config: Config):
        self.config = config
        self.strikes = 0
        self._limit: Callable[[int, int, int], None] | None = None

    def attach(self, limit: Callable[..., None] | None, log: Any) -> None:
        """Be told the log's `limit_vcpus`. Raises UsageError when it has none."""
        if limit is None:
            raise UsageError("dirty-limit acts when a vCPU's dirty ring is full: take --log kvm-ring")
        self._limit = lambda quota, period_ps, now_ps: limit(log, quota, period_ps, now_ps)

    def at_sync(self, record: SyncRecord) -> int | None:
        """Sets the quotas when this sync brings the second strike; the throttle stays as it is."""
        allowed = record.period_sent_bytes * self.config.trigger // 100
        if record.period_over and record.period_dirty_bytes > allowed:
            self.strikes += 1
            if self.strikes == 2 and self._limit is not None:
                self._limit(self.config.quota, self.config.period * PS_PER_MS, record.now_ms * PS_PER_MS)
        return None


def build(config: Config) -> DirtyLimit:
    """Nothing struck yet."""
    return DirtyLimit(config)
