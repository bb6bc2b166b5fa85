"""Throttled vCPUs: all of them sleep at the same time, again and again, and whoever needs them waits.

A timer puts every vCPU to sleep for 10 p / (1 - p) ms every 10 / (1 - p) ms, p being the throttle; so the guest runs
for 10 ms between two sleeps whatever the throttle is. The first tick comes when a throttle is set, and a change of the
throttle takes effect at the next tick. A sync, and the stop of the guest, wait until the sleep in progress is over.

A guest that comes out of a long sleep (of a period of 200 ms and more) makes up for it with all its vCPUs; where it
shares its cores with the migration, pages that are sent meanwhile take longer (`crowded_page` of the cost table).

A guest that uses only a part of its CPU time loses its idle time first: one that is busy for the share u gets 10 ms /
u of its own time done between two sleeps, and falls behind by the rest of the period, if there is any. (A writer that
keeps a pace was slowed at 90 % and not before.) Events are delayed by that much at each tick (in guest.py), unless the
recording was itself made under the throttle: then the sleeps are in it already, and only the waiting is modelled.
Source: QEMU 10.0 system/cpu-throttle.c by its described behaviour; sleep ends were measured to 4 ms.
"""

from __future__ import annotations

from replay.jit import NONE
from replay.migration.guest import CLOSED_LOOP, DILATION_PS, NAP_END_PS, NAP_PS, NEXT_PS, TICK_EVERY_PS, TICK_PS, Guest
from replay.units import PS_PER_MS

RUN_MS = 10
LONG_PERIOD_MS = 200
MAX_PCT = 99


class Throttle:
    """The throttle of one migration; its state is in the guest's."""

    def __init__(self, guest: Guest, recorded: bool, busy_pct: int):
        self.pct = 0
        self.steps: list[tuple[int, int]] = []
        self._dilates = not recorded and bool(guest.state[CLOSED_LOOP])
        self._busy_pct = busy_pct
        guest.state[TICK_PS] = NONE

    def set(self, guest: Guest, pct: int, now_ps: int) -> None:
        """From now on vCPUs sleep `pct` percent of the time; 0 ends it."""
        pct = max(0, min(pct, MAX_PCT))
        self.steps.append((now_ps // PS_PER_MS, pct))
        if pct == 0:
            guest.state[TICK_PS] = NONE
        else:
            every_ps = RUN_MS * PS_PER_MS * 100 // (100 - pct)
            worth_ps = RUN_MS * PS_PER_MS * 100 // self._busy_pct
            guest.state[TICK_EVERY_PS] = every_ps
            guest.state[NAP_PS] = RUN_MS * PS_PER_MS * pct // (100 - pct)
            guest.state[DILATION_PS] = max(0, every_ps - worth_ps) if self._dilates else 0
            if self.pct == 0:
                guest.state[TICK_PS] = now_ps
        self.pct = pct
        guest.state[NEXT_PS] = 0

    def crowds(self, guest: Guest, now_ps: int) -> bool:
        """Whether the guest has just come out of a long sleep, and runs."""
        long = self.pct > 0 and int(guest.state[TICK_EVERY_PS]) >= LONG_PERIOD_MS * PS_PER_MS
        return long and int(guest.state[NAP_END_PS]) <= now_ps < int(guest.state[TICK_PS])

    def wait_ps(self, guest: Guest, now_ps: int) -> int:
        """How long a sync that comes now waits for the vCPUs."""
        return max(0, int(guest.state[NAP_END_PS]) - now_ps)
