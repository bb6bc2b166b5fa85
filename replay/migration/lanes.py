"""The guest's lanes: events applied to the dirty log in host-time order, dilated by stalls.

A *lane* is a sequence of events that is delayed as one: a vCPU where stalls stop single vCPUs, else the whole guest.
Host time of an event = guest time + the lane's offset; a stall adds to the offset. Events of all lanes are applied in
host-time order, ties in lane order, so the result does not depend on how the trace is cut into windows: a lane that has
run out of its window counts as having an event at the window's end, and the kernel asks for more when that is next.

A lane whose vCPU a live design keeps waiting is *held*: its next event is an attempt to go on, one picosecond after the
moment up to which the guest was last run, because only what the sender does at such a moment can make room.

Where more than a few events are due they are applied in blocks (blocks.py), else, and always with a live design, which
may send or re-arm a page at any event, one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.jit import NONE, U0, U1, U6, U64, inlined, kernel
from replay.kernels.prefetch import prefetch
from replay.migration.blocks import many_due, run_block
from replay.migration.guest import (
    BUSY_UNTIL_PS,
    CHECK,
    CLOSED_LOOP,
    DILATION_PS,
    NAP_END_PS,
    NAP_PS,
    NAPPED_PS,
    NEED_LANE,
    NEXT_PS,
    PS_PER_NS,
    SLEEP,
    SYNC,
    TICK_EVERY_PS,
    TICK_PS,
    Guest,
    apply_event,
    lane_time,
    make_stale,
    send_page,
)
from replay.migration.link import FREE_PS
from replay.verbs import (
    HELD,
    REFUSED,
    Meter,
    expect_write,
    limit_sleep_ps,
    live,
    next_wake,
    rearm_page,
    spent_sending_ps,
    unblock,
    urgent,
    wake,
)
from replay.work import GUEST_WRITES, PRODUCER_SENDS, VCPU_HOLDS

DONE, NEED_EVENTS = 0, 1
_AHEAD = U64(12)  # events


@inlined
def _next_of(guest: Guest, lane: Any) -> Any:
    """Host time at which the lane has something to do: its next event, or its next attempt to go on."""
    if guest.held_ps[lane] != NONE:
        return guest.retry_ps[lane]
    return lane_time(guest.t_ns, guest.head[lane], guest.stop[lane], guest.offset_ps[lane], guest.state)


@inlined
def advance(log: Any, design: Any, guest: Guest, stream: np.ndarray, meter: Meter, until: Any) -> Any:
    """Apply every event, every throttle tick and every run of the log's own thread, with host time <= `until`.

    DONE, or NEED_EVENTS when lane NEED_LANE has used up its window. Events at the time of a tick or a wake come before
    it, a tick before a wake.
    """
    state = guest.state
    while True:
        best, lane = _next_of(guest, U0), U0
        for index in range(1, guest.head.size):
            time = _next_of(guest, U64(index))
            if time < best:
                best, lane = time, U64(index)
        wake_at = next_wake(log)
        if wake_at != NONE:
            wake_at = max(wake_at, state[BUSY_UNTIL_PS])
        tick_at = state[TICK_PS]
        other_at = min(wake_at, tick_at)
        state[NEXT_PS] = min(best, other_at)
        if state[NEXT_PS] > until:
            return DONE
        if other_at < best:
            if tick_at <= wake_at:
                _nap(guest.offset_ps, state)
            else:
                wake(log, design, wake_at, meter)
                _send_urgent(log, design, guest, stream, meter, wake_at)
        elif guest.held_ps[lane] != NONE:
            _let_go(log, design, guest, stream, meter, lane, best, until)
        elif guest.head[lane] >= guest.stop[lane]:
            state[NEED_LANE] = lane
            return NEED_EVENTS
        else:
            last = min(until, other_at)
            stall = U0
            if not live(design) and many_due(guest, lane, last):
                stall, lane = run_block(log, design, guest, meter, last)
            else:
                stall = _run_one(log, design, guest, stream, meter, lane)
            if stall != U0:
                _wait(log, design, guest, stream, meter, lane, stall, until)


@kernel
def _nap(offset_ps: np.ndarray, state: np.ndarray) -> None:
    """A throttle tick: every lane sleeps, and falls behind by what it cannot make up for; the next tick is set."""
    state[NAP_END_PS] = state[TICK_PS] + state[NAP_PS]
    state[TICK_PS] += state[TICK_EVERY_PS]
    state[NAPPED_PS] += state[DILATION_PS]
    for lane in range(offset_ps.size):
        offset_ps[lane] += state[DILATION_PS]


@inlined
def _expect(log: Any, guest: Guest, index: Any) -> None:
    """Have ready what an event to come will look at: maps of 96G do not fit the inner caches, and the first look
    decides a branch."""
    page = U64(guest.page[index])
    expect_write(log, page)
    prefetch(guest.stale, page >> U6)
    prefetch(guest.empty, page >> U6)


@inlined
def _run_one(log: Any, design: Any, guest: Guest, stream: np.ndarray, meter: Meter, lane: Any) -> Any:
    """Apply the lane's next event; returns how long its vCPU waits for it, REFUSED or HELD."""
    index = guest.head[lane]
    _expect(log, guest, min(index + _AHEAD, U64(guest.page.size) - U1))
    stall = apply_event(log, design, guest, index, meter)
    if stall == REFUSED:
        return stall
    if guest.state[CHECK] != U0:
        make_stale(guest, meter.price, lane, index, index + U1)
    guest.head[lane] = index + U1
    meter.work[GUEST_WRITES] += U1
    sending = _send_urgent(log, design, guest, stream, meter, guest.t_ns[index] * PS_PER_NS + guest.offset_ps[lane])
    return stall if stall == HELD else stall + sending


# -- waiting ----------------------------------------------------------------------------------------------------------


@kernel
def _wait(
    log: Any, design: Any, guest: Guest, stream: np.ndarray, meter: Meter, lane: Any, stall: Any, until: Any
) -> None:
    """The lane's vCPU waits after its last event (REFUSED: before its next one)."""
    index = guest.head[lane] - U64(stall != REFUSED)
    time = guest.t_ns[index] * PS_PER_NS + guest.offset_ps[lane]
    if stall == REFUSED:
        meter.work[VCPU_HOLDS] += U1
        _hold(guest, lane, time, until)
    elif stall == HELD:
        _hold(guest, lane, time, until)
        _let_go(log, design, guest, stream, meter, lane, time, until)
    else:
        _stall(guest.offset_ps, guest.stall_ps, guest.state, lane, time, stall)


@kernel
def _stall(offset_ps: np.ndarray, stall_ps: np.ndarray, state: np.ndarray, lane: Any, time: Any, stall: Any) -> None:
    """The lane stands still for `stall`, plus what a sync in progress makes it wait."""
    stall_ps[lane] += stall
    if state[BUSY_UNTIL_PS] > time:
        stall_ps[U64(SYNC * offset_ps.size) + lane] += state[BUSY_UNTIL_PS] - time
        stall += state[BUSY_UNTIL_PS] - time
    if state[CLOSED_LOOP] != U0:
        offset_ps[lane] += stall


# -- what live designs do to their producers --------------------------------------------------------------------------


@kernel
def _hold(guest: Guest, lane: Any, time: Any, until: Any) -> None:
    """The lane waits from `time` on, and tries again after what the sender does at `until`."""
    guest.held_ps[lane] = time
    guest.retry_ps[lane] = until + U1


@kernel
def _let_go(
    log: Any, design: Any, guest: Guest, stream: np.ndarray, meter: Meter, lane: Any, time: Any, until: Any
) -> None:
    """A held lane tries to go on at host time `time`."""
    took = unblock(log, design, lane, meter)
    if took == NONE:
        guest.retry_ps[lane] = until + U1
        meter.work[VCPU_HOLDS] += U64(time == guest.held_ps[lane])
        return
    took += _send_urgent(log, design, guest, stream, meter, time)
    since = guest.held_ps[lane]
    guest.held_ps[lane] = NONE
    waited = time - since
    guest.stall_ps[lane] += waited
    if guest.state[CLOSED_LOOP] != U0:
        guest.offset_ps[lane] += waited
    if took != U0:
        _stall(guest.offset_ps, guest.stall_ps, guest.state, lane, time, took)
        slept = limit_sleep_ps(log, lane)
        guest.stall_ps[lane] -= slept
        guest.stall_ps[U64(SLEEP * guest.head.size) + lane] += slept


@inlined
def _send_urgent(log: Any, design: Any, guest: Guest, stream: np.ndarray, meter: Meter, time: Any) -> Any:
    """Send, on the thread that marked them at `time`, the pages that the design has no room for. Returns how long."""
    took = U0
    page = urgent(design)
    while page != NONE:
        took += _send_one(log, guest, stream, meter, page, time + took)
        page = urgent(design)
    return took


@kernel
def _send_one(log: Any, guest: Guest, stream: np.ndarray, meter: Meter, page: Any, time: Any) -> Any:
    """One page by its producer: wait for the channel, re-arm, read, send. Returns how long it took."""
    rearm_page(log, page, meter)
    before = spent_sending_ps(meter)
    send_page(guest, stream, page, meter.work)
    meter.work[PRODUCER_SENDS] += U1
    begin = time
    if guest.state[CLOSED_LOOP] != U0:  # a guest that is never delayed would make the queue for the channel endless
        begin = max(time, stream[FREE_PS])
    done = begin + spent_sending_ps(meter) - before
    stream[FREE_PS] = max(stream[FREE_PS], done)
    return done - time
