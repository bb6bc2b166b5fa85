"""The sender's clock, and how it meets the log: entries that it fetches and pages that it re-arms itself.

The sender's state is one uint64 array: NOW_PS its host time, SPENT_PS what its counted work cost when the clock last
moved, DEADLINE_PS and CALLS of the iterate call in progress, FETCH_PS and LOCK_PS the time it has spent on fetching and
on waiting for others, LATE_PAGE a page that was read and is still to be re-armed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.jit import NONE, U0, U1, U64, inlined, kernel
from replay.verbs import (
    Meter,
    appetite,
    fetch,
    holds,
    live,
    pop,
    rearm_page,
    reset,
    reset_late,
    spent_ps,
    spent_sending_ps,
)

NOW_PS, SPENT_PS, DEADLINE_PS, CALLS, FETCH_PS, LOCK_PS, LATE_PAGE = 0, 1, 2, 3, 4, 5, 6
N_SENDER = 7
CALLS_PER_CHECK = U64(63)  # mask: the clock is looked at after call 0, 64, 128, ...


def new_sender() -> np.ndarray:
    """A sender at time 0: uint64 (7,)."""
    sender = np.zeros(N_SENDER, dtype=np.uint64)
    sender[LATE_PAGE] = NONE
    return sender


@inlined
def step_done(sender: np.ndarray, meter: Meter) -> Any:
    """Advance the clock by the work counted since it last moved; returns by how much."""
    spent = spent_sending_ps(meter)
    step = spent - sender[SPENT_PS]
    sender[NOW_PS] += step
    sender[SPENT_PS] = spent
    return step


@inlined
def wait_until(sender: np.ndarray, until: Any) -> None:
    """The sender waits for others to do their part."""
    sender[LOCK_PS] += until - sender[NOW_PS]
    sender[NOW_PS] = until


@inlined
def check_time(sender: np.ndarray) -> bool:
    """The look at the clock that follows call 0, 64, 128, ... of an iterate."""
    late = (sender[CALLS] & CALLS_PER_CHECK) == U0 and sender[NOW_PS] >= sender[DEADLINE_PS]
    sender[CALLS] += U1
    return late


@kernel
def fetch_more(log: Any, design: Any, sender: np.ndarray, meter: Meter, wanted: Any) -> bool:
    """The sender takes entries out of the log itself; whether there were any. The clock advances by what it costs."""
    before = spent_ps(meter)
    fetched = fetch(log, design, wanted, meter)
    if not reset_late(design):
        reset(log, meter)
    took = spent_ps(meter) - before
    sender[NOW_PS] += took
    sender[FETCH_PS] += took
    return fetched != U0


@kernel
def next_page(log: Any, design: Any, sender: np.ndarray, meter: Meter) -> Any:
    """The next page of a stopped guest, whatever the design; NONE when there is none."""
    while live(design):
        wanted = appetite(design)
        if wanted == U0 or not fetch_more(log, design, sender, meter, wanted):
            break
    return pop(design, meter)


@kernel
def rearm_late(log: Any, design: Any, sender: np.ndarray, meter: Meter) -> None:
    """Re-arm what was read without being re-armed first: the last page, and a batch of fetched ones when it is sent."""
    if sender[LATE_PAGE] != NONE:
        rearm_page(log, sender[LATE_PAGE], meter)
        sender[LATE_PAGE] = NONE
    if not holds(design):
        before = spent_ps(meter)
        reset(log, meter)
        sender[NOW_PS] += spent_ps(meter) - before
        sender[FETCH_PS] += spent_ps(meter) - before
