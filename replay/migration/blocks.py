"""Many events of all lanes at once.

What: up to BLOCK events of each lane are taken, up to the moment at which something else can happen: the event after a
lane's block, the end of its window, its attempt to go on when it is held. How: those events that the log would notice,
or that write to an empty page, are listed first, without a branch: one that waits for a word far from the caches is
often guessed wrongly. Only the listed ones are written to the log, one by one, in host-time order, ties in lane order;
at a stall the block ends. Of all others nothing is to be done but that the target's copy is stale.

Cost: O(events), and O(lanes) a block and a listed event. Bad when the lanes are many and their stalls frequent, and
where few events are due; a design to which a mark is visible at once can not have it, as its sender may re-arm a page
at any event.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.jit import NONE, U0, U1, U6, U63, U64, U64_BITS, inlined, kernel
from replay.migration.guest import (
    BLOCK,
    CHECK,
    FILLS,
    PS_PER_NS,
    VCPU_MASK,
    Guest,
    apply_event,
    lane_time,
    make_stale,
)
from replay.verbs import REFUSED, Meter, heeds, heeds_first
from replay.work import GUEST_WRITES

_FEW = U64(4)  # events: more are worth a block


@kernel
def many_due(guest: Guest, lane: Any, last: Any) -> bool:
    """Whether more than a few of the lane's events are due."""
    far = guest.head[lane] + _FEW
    return far < guest.stop[lane] and guest.t_ns[far] * PS_PER_NS + guest.offset_ps[lane] <= last


@inlined
def run_block(log: Any, design: Any, guest: Guest, meter: Meter, last: Any) -> Any:
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
        stall = apply_event(log, design, guest, head + listed[turn], meter)
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
