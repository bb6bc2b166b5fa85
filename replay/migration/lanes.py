"""The guest's lanes: events applied to the dirty log in host-time order, dilated by stalls.

A *lane* is a sequence of events that is delayed as one: a vCPU where stalls stop single vCPUs, else the whole guest.
Host time of an event = guest time + the lane's offset; a stall adds to the offset. Events of all lanes are applied in
host-time order, ties in lane order, so the result does not depend on how the trace is cut into windows: a lane that has
run out of its window counts as having an event at the window's end, and the kernel asks for more when that is next.

A lane whose vCPU a live design keeps waiting is *held*: its next event is an attempt to go on, one picosecond after the
moment up to which the guest was last run, because only what the sender does at such a moment can make room.

How: up to BLOCK events of each lane are taken at once, up to the moment at which something else can happen. Those that
the log would notice, or that write to an empty page, are listed first, without a branch: one that waits for a word far
from the caches is often guessed wrongly. Only the listed ones are written to the log, one by one, in the order of
time; after a stall, the block ends there. Of all others nothing is to be done but that the target's copy is stale.
Where a live design may send or re-arm a page at any event, and where few events are due, they are applied singly.

Cost: O(events), and O(lanes) a block and a listed event. Bad when the lanes are many and their stalls frequent.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.jit import NONE, U0, U1, U6, U63, U64, U64_BITS, inlined, kernel
from replay.migration.guest import (
    BLOCK,
    BUSY_UNTIL_PS,
    CHECK,
    CLOSED_LOOP,
    DILATION_PS,
    END_NS,
    FILLS,
    NAP_END_PS,
    NAP_PS,
    NAPPED_PS,
    NEED_LANE,
    NEXT_PS,
    OPEN,
    PS_PER_NS,
    SLEEP,
    SYNC,
    TICK_EVERY_PS,
    TICK_PS,
    VCPU_MASK,
    Guest,
    fill,
    make_stale,
    send_page,
    write_otherwise,
)
from replay.migration.link import FREE_PS
from replay.verbs import (
    HELD,
    REFUSED,
    Meter,
    heeds,
    heeds_first,
    limit_sleep_ps,
    live,
    next_wake,
    rearm_page,
    spent_sending_ps,
    unblock,
    urgent,
    wake,
    write,
)
from replay.work import GUEST_WRITES, PRODUCER_SENDS, VCPU_HOLDS

DONE, NEED_EVENTS = 0, 1
_FEW = U64(4)  # events: as many as make a block worth its cost


@kernel
def lane_time(t_ns: np.ndarray, head: Any, stop: Any, offset_ps: Any, state: np.ndarray) -> Any:
    """Host time of a lane's next event; of its window's end when it has none left; NONE when it never will."""
    if head < stop:
        return t_ns[head] * PS_PER_NS + offset_ps
    if state[OPEN] != U0:
        return state[END_NS] * PS_PER_NS + offset_ps
    return NONE


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
            if not live(design) and _many(guest, lane, last):
                stall, lane = _run_block(log, design, guest, meter, last)
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


@kernel
def _many(guest: Guest, lane: Any, last: Any) -> bool:
    """Whether more than a few of the lane's events are due."""
    far = guest.head[lane] + _FEW
    return far < guest.stop[lane] and guest.t_ns[far] * PS_PER_NS + guest.offset_ps[lane] <= last


# -- one event --------------------------------------------------------------------------------------------------------


@inlined
def _run_one(log: Any, design: Any, guest: Guest, stream: np.ndarray, meter: Meter, lane: Any) -> Any:
    """Apply the lane's next event; returns how long its vCPU waits for it, REFUSED or HELD."""
    index = guest.head[lane]
    stall = _apply(log, design, guest, index, meter)
    if stall == REFUSED:
        return stall
    if guest.state[CHECK] != U0:
        make_stale(guest, meter.price, lane, index, index + U1)
    guest.head[lane] = index + U1
    meter.work[GUEST_WRITES] += U1
    sending = _send_urgent(log, design, guest, stream, meter, guest.t_ns[index] * PS_PER_NS + guest.offset_ps[lane])
    return stall if stall == HELD else stall + sending


@inlined
def _apply(log: Any, design: Any, guest: Guest, index: Any, meter: Meter) -> Any:
    """Write an event to the log, and data to its page."""
    page, origin = U64(guest.page[index]), U64(guest.origin[index])
    if origin <= VCPU_MASK:
        stall = write(log, design, page, origin, meter)
    else:
        stall = write_otherwise(log, design, guest.outside, guest.state, page, origin, meter)
    if stall != REFUSED and guest.state[FILLS] != U0:
        fill(guest.empty, guest.turned, page >> U6, U1 << (page & U63))
    return stall


# -- many events ------------------------------------------------------------------------------------------------------


@inlined
def _run_block(log: Any, design: Any, guest: Guest, meter: Meter, last: Any) -> Any:
    """Apply a block of events of all lanes, at least one, none later than `last`. Ends at a stall: (stall, lane)."""
    _choose_block(
        guest.t_ns,
        guest.head,
        guest.stop,
        guest.offset_ps,
        guest.held_ps,
        guest.retry_ps,
        guest.state,
        guest.block.end,
        last,
    )
    block = guest.block
    for lane in range(guest.head.size):
        block.n_listed[lane] = _list_heeded(log, guest, U64(lane))
        block.turn[lane] = U0
        block.next_ps[lane] = _listed_ps(guest, U64(lane))
    stall, stalled = U0, U0
    while stall == U0:
        soonest, other = NONE, NONE
        for lane in range(guest.head.size):
            time = block.next_ps[lane]
            if time < soonest:
                other, soonest, stalled = soonest, time, U64(lane)
            elif time < other:
                other = time
        if soonest == NONE:
            break
        stall = _apply_listed(log, design, guest, meter, stalled, other)
        if stall != U0:
            index = _listed(guest, stalled)
            time = guest.t_ns[index] * PS_PER_NS + guest.offset_ps[stalled]
            _end_block(guest.t_ns, guest.head, guest.offset_ps, block.end, time, stalled)
            block.end[stalled] = index + U64(stall != REFUSED)
    for lane in range(guest.head.size):
        begin, end = guest.head[lane], block.end[lane]
        if guest.state[CHECK] != U0:
            make_stale(guest, meter.price, U64(lane), begin, end)
        meter.work[GUEST_WRITES] += end - begin
        guest.head[lane] = end
    return stall, stalled


@inlined
def _list_heeded(log: Any, guest: Guest, lane: Any) -> Any:
    """List those events of the lane's block of which more is to be done than that copies are stale; how many."""
    begin, stop, listed = guest.head[lane], guest.block.end[lane], guest.block.listed
    first = lane * (BLOCK + U1)
    count = first
    if heeds_first(log) or guest.state[FILLS] == U0:
        for index in range(begin, stop):
            listed[count] = index - begin
            count += heeds(log, U64(guest.page[index])) | U64(U64(guest.origin[index]) > VCPU_MASK)
    else:
        for index in range(begin, stop):
            page = U64(guest.page[index])
            empty = guest.empty[page >> U6] >> (page & U63) & U1
            listed[count] = index - begin
            count += heeds(log, page) | empty | U64(U64(guest.origin[index]) > VCPU_MASK)
    return count - first


@inlined
def _apply_listed(log: Any, design: Any, guest: Guest, meter: Meter, lane: Any, before: Any) -> Any:
    """Apply the lane's next listed event, and more while they are earlier than `before`. Ends at a stall."""
    listed, head, time = guest.block.listed, guest.head[lane], NONE
    first = lane * (BLOCK + U1)
    turn, stop = first + guest.block.turn[lane], first + guest.block.n_listed[lane]
    while True:
        stall = _apply(log, design, guest, head + listed[turn], meter)
        if stall != U0:
            break
        turn += U1
        if turn == stop:
            time = NONE
            break
        if before != NONE:
            time = guest.t_ns[head + listed[turn]] * PS_PER_NS + guest.offset_ps[lane]
            if time >= before:
                break
    guest.block.turn[lane], guest.block.next_ps[lane] = turn - first, time
    return stall


@inlined
def _listed(guest: Guest, lane: Any) -> Any:
    """The lane's next listed event."""
    return guest.head[lane] + guest.block.listed[lane * (BLOCK + U1) + guest.block.turn[lane]]


@inlined
def _listed_ps(guest: Guest, lane: Any) -> Any:
    """Its host time; NONE when there is none."""
    if guest.block.turn[lane] == guest.block.n_listed[lane]:
        return NONE
    return guest.t_ns[_listed(guest, lane)] * PS_PER_NS + guest.offset_ps[lane]


@kernel
def _choose_block(
    t_ns: np.ndarray,
    head: np.ndarray,
    stop: np.ndarray,
    offset_ps: np.ndarray,
    held_ps: np.ndarray,
    retry_ps: np.ndarray,
    state: np.ndarray,
    end: np.ndarray,
    last: Any,
) -> None:
    """Set the end of each lane's block: no event after `last`, nor after the first lane's limit in the order of time.

    A lane's limit is the event after its block, the end of its window, or its attempt to go on when it is held.
    """
    limit, limited = NONE, U0
    for lane in range(head.size):
        end[lane] = min(head[lane] + BLOCK, stop[lane])
        if held_ps[lane] != NONE:
            end[lane] = head[lane]
            time = retry_ps[lane]
        else:
            time = lane_time(t_ns, end[lane], stop[lane], offset_ps[lane], state)
        if time < limit:
            limit, limited = time, U64(lane)
    for lane in range(head.size):
        if lane != limited:
            end[lane] = _up_to(t_ns, head[lane], end[lane], offset_ps[lane], limit, U64(lane) < limited)
        end[lane] = _up_to(t_ns, head[lane], end[lane], offset_ps[lane], last, True)


@kernel
def _end_block(
    t_ns: np.ndarray, head: np.ndarray, offset_ps: np.ndarray, end: np.ndarray, time: Any, stalled: Any
) -> None:
    """End the block of every other lane before what follows an event of lane `stalled` at host time `time`."""
    for lane in range(head.size):
        if lane != stalled:
            end[lane] = _up_to(t_ns, head[lane], end[lane], offset_ps[lane], time, U64(lane) < stalled)


@kernel
def _up_to(t_ns: np.ndarray, index: Any, stop: Any, offset_ps: Any, last_ps: Any, at_it: bool) -> Any:
    """The first of the events [index, stop) that is later than `last_ps`, or not earlier if not `at_it`; or `stop`."""
    if not at_it:
        if last_ps == U0:
            return index
        last_ps -= U1
    if index >= stop or t_ns[index] * PS_PER_NS + offset_ps > last_ps:
        return index
    return first_later(t_ns, index, stop, offset_ps, last_ps)


@kernel
def first_later(t_ns: np.ndarray, index: Any, stop: Any, offset_ps: Any, last_ps: Any) -> Any:
    """The first event after `index`, up to `stop`, whose host time is later than `last_ps`. O(events / 64)."""
    begin = t_ns[index]
    begin_ps = begin * PS_PER_NS + offset_ps
    index += U1
    if last_ps < begin_ps:
        return index
    most_ns = (last_ps - begin_ps) // PS_PER_NS
    while index + U64_BITS <= stop and t_ns[index + U63] - begin <= most_ns:
        index += U64_BITS
    count = U0
    for near in range(index, min(index + U64_BITS, stop)):  # no early end: eight are compared at once
        count += U64(t_ns[near] - begin <= most_ns)
    return index + count


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
