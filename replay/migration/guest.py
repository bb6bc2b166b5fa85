"""The running guest: trace events in lanes, dilated by stalls, applied to the dirty log in host-time order.

A *lane* is a sequence of events that is delayed as one: a vCPU where stalls stop single vCPUs, else the whole guest.
Host time of an event = guest time + the lane's offset; a stall adds to the offset. Events of all lanes are applied in
host-time order, ties in lane order, so the result does not depend on how the trace is cut into windows: a lane that has
run out of its window counts as having an event at the window's end, and the kernel asks for more when that is next.

A lane whose vCPU a live design keeps waiting is *held*: its next event is an attempt to go on, one picosecond after the
moment up to which the guest was last run, because only what the sender does at such a moment can make room.

Writes reach the log or the design by the path they have in QEMU: a vCPU's through the log, the hypervisor's own on a
vCPU's thread too (but without a test for tracking), DMA into the RAMList bitmap, vhost's and VFIO's into logs of their
own that are read at a sync.

Two bitmaps say what is in memory: pages whose copy at the target is *stale* (written since their last read, or never
read; kept only when somebody asks), and pages that are still *empty*, all zero. A written page is taken to hold data
from then on.
The sender sees classes as of the beginning of the current iterate call (`zeros`), in both formulations of the engine.

Of a block of events, those that the log would notice, or that write to an empty page, are listed first, without a
branch: one that waits for a word far from the caches is often guessed wrongly. Only these are written to the log; with
a live design, which may send or re-arm a page at any event, a block is one event.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from replay.jit import NONE, U0, U1, U6, U63, U64, U64_BITS, call_apart, inlined, kernel
from replay.kernels.bitmap import next_touched, test_and_set
from replay.kernels.bits import lowest, popcount
from replay.migration.link import FREE_PS, put_page
from replay.migration.plan import N_PLANNED, Plan, concerns, unchain
from replay.migration.xbzrle import Cache, put_compared, turn_to
from replay.verbs import (
    HELD,
    REFUSED,
    Meter,
    heeds,
    heeds_first,
    live,
    mark_ram,
    next_wake,
    rearm_page,
    spent_sending_ps,
    unblock,
    urgent,
    wake,
    write,
    write_host,
)
from replay.work import (
    DEVICE_WORDS,
    DMA_WRITES,
    FAN_OUT,
    GUEST_WRITES,
    HOST_WRITES,
    NORMAL_PAGES,
    OUTSIDE_WRITES,
    PRODUCER_SENDS,
    VCPU_HOLDS,
    ZERO_PAGES,
)

NEXT_PS, END_NS, OPEN, CLOSED_LOOP, BUSY_UNTIL_PS, NEED_LANE, FILLS, CHECK, REDUNDANT = 0, 1, 2, 3, 4, 5, 6, 7, 8
TICK_PS, TICK_EVERY_PS, NAP_PS, NAP_END_PS, NAPPED_PS, DILATION_PS, OUTSIDE = 9, 10, 11, 12, 13, 14, 15
N_STATE = 16
DONE, NEED_EVENTS = 0, 1
VCPU_MASK = U64(0x1FFF)
HOST, VHOST = U64(1), U64(3)  # codes of trace/schema.py; those from vhost on keep a dirty log of their own
SOURCE_SHIFT = U64(13)
_PS_PER_NS = U64(1000)
_U12 = U64(12)
BLOCK = U64(512)  # events


class Guest(NamedTuple):
    """One window of events in lanes, and the guest's memory."""

    t_ns: np.ndarray  # uint64 (n_events,)  read-only; guest time, ascending within a lane
    page: np.ndarray  # uint32 (n_events,)  read-only; dense page index
    origin: np.ndarray  # uint16 (n_events,)  read-only; vCPU | source << 13
    head: np.ndarray  # uint64 (n_lanes,)  next event of the lane
    stop: np.ndarray  # uint64 (n_lanes,)  end of the lane's events in this window
    offset_ps: np.ndarray  # uint64 (n_lanes,)  host time - guest time; wraps below zero
    stall_ps: np.ndarray  # uint64 (n_lanes,)  how long the lane has stood still
    held_ps: np.ndarray  # uint64 (n_lanes,)  host time since when the lane is held; NONE when it is not
    retry_ps: np.ndarray  # uint64 (n_lanes,)  host time at which a held lane tries again
    state: (
        np.ndarray
    )  # uint64 (16,)  NEXT_PS ... OUTSIDE, see the constants above; OUTSIDE 1: `outside` was written to;
    #                    CHECK 1: `stale` is kept; FILLS 1: there were empty pages at the start
    outside: np.ndarray  # uint64 (n_words,)  pages in the dirty logs of vhost and VFIO
    stale: np.ndarray  # uint64 (n_words,)  pages written since their last read, or never read
    empty: np.ndarray  # uint64 (n_words,)  pages that hold only zeros
    zeros: np.ndarray  # uint64 (n_words,)  the same as the sender sees them
    cache: Cache  # of xbzrle, see xbzrle.py
    turned: np.ndarray  # uint64 (n_words / 4096,)  bit set: an empty page of these 64 words was written since the last
    #                     settle
    listed: np.ndarray  # uint64 (513,)  scratch: which events of a block have to be looked at closely
    plan: Plan  # what the sender will read before the guest has caught up with it, see plan.py


@kernel
def settle_classes(empty: np.ndarray, zeros: np.ndarray, turned: np.ndarray) -> None:
    """Show the sender which pages hold data by now. O(pages / 2^18) plus the blocks that changed."""
    stop = U64(turned.size)
    index = next_touched(turned, U0, stop)
    while index < stop:
        while turned[index] != U0:
            first = ((index << U6) + lowest(turned[index])) << U6
            turned[index] &= turned[index] - U1
            for word in range(first, min(first + U64_BITS, U64(zeros.size))):
                zeros[word] = empty[word]
        index = next_touched(turned, index + U1, stop)


@inlined
def read_pages(stale: np.ndarray, state: np.ndarray, word: Any, bits: Any) -> None:
    """The sender reads `bits` of `word`: their copies are fresh; those that were fresh already are redundant sends."""
    if state[CHECK] != U0:
        state[REDUNDANT] += popcount(bits & ~stale[word])
        stale[word] &= ~bits


@kernel
def send_page(guest: Guest, stream: np.ndarray, page: Any, work: np.ndarray) -> bool:
    """Read a page and put it into the stream; whether it counts as one sent."""
    word, bit = page >> U6, U1 << (page & U63)
    zero = guest.zeros[word] & bit != U0
    written = guest.stale[word] & bit != U0
    read_pages(guest.stale, guest.state, word, bit)
    if turn_to(guest.cache, word):
        return call_apart(put_compared, (guest.cache, stream, page, zero, written, work))
    if zero:
        put_page(stream, True, work)
        work[ZERO_PAGES] += U1
    else:
        put_page(stream, False, work)
        work[NORMAL_PAGES] += U1
    return True


@kernel
def lane_time(t_ns: np.ndarray, head: Any, stop: Any, offset_ps: Any, state: np.ndarray) -> Any:
    """Host time of a lane's next event; of its window's end when it has none left; NONE when it never will."""
    if head < stop:
        return t_ns[head] * _PS_PER_NS + offset_ps
    if state[OPEN] != U0:
        return state[END_NS] * _PS_PER_NS + offset_ps
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
        best, second, lane = _next_of(guest, U0), NONE, U0
        for index in range(1, guest.head.size):
            time = _next_of(guest, U64(index))
            if time < best:
                second, best, lane = best, time, U64(index)
            elif time < second:
                second = time
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
            _run_lane(log, design, guest, stream, meter, lane, until, other_at, second)


@kernel
def _nap(offset_ps: np.ndarray, state: np.ndarray) -> None:
    """A throttle tick: every lane sleeps, and falls behind by what it cannot make up for; the next tick is set."""
    state[NAP_END_PS] = state[TICK_PS] + state[NAP_PS]
    state[TICK_PS] += state[TICK_EVERY_PS]
    state[NAPPED_PS] += state[DILATION_PS]
    for lane in range(offset_ps.size):
        offset_ps[lane] += state[DILATION_PS]


@inlined
def _run_lane(
    log: Any,
    design: Any,
    guest: Guest,
    stream: np.ndarray,
    meter: Meter,
    lane: Any,
    until: Any,
    other_at: Any,
    before: Any,
) -> None:
    """Apply the lane's next event, and more while at most `until` and `other_at` and earlier than `before`; stop at a
    stall."""
    index, offset = guest.head[lane], guest.offset_ps[lane]
    first, stall, sending = index, U0, U0
    fills, checks = guest.state[FILLS] != U0, guest.state[CHECK] != U0
    end = first_later(guest.t_ns, index, guest.stop[lane], offset, min(min(until, other_at), max(before, U1) - U1))
    while index < end and stall == U0 and sending == U0:
        begin, stop = index, min(index + (U1 if live(design) else BLOCK), end)
        count = _list_heeded(log, guest, begin, stop)
        index = stop
        for entry in range(count):
            at = begin + guest.listed[entry]
            page, origin = U64(guest.page[at]), U64(guest.origin[at])
            if origin <= VCPU_MASK:
                stall = write(log, design, page, origin, meter)
            else:
                stall = _write_otherwise(log, design, guest.outside, guest.state, page, origin, meter)
            if stall == REFUSED:
                index = at
                break
            if fills:
                _fill(guest.empty, guest.turned, page >> U6, U1 << (page & U63))
            if stall != U0:
                index = at + U1
                break
        if checks:
            _make_stale(guest, meter.price, lane, begin, index)
        if live(design):
            sending = _send_urgent(log, design, guest, stream, meter, guest.t_ns[begin] * _PS_PER_NS + offset)
    guest.head[lane] = index
    meter.work[GUEST_WRITES] += index - first
    if stall == REFUSED:
        meter.work[VCPU_HOLDS] += U1
        _hold(guest, lane, guest.t_ns[index] * _PS_PER_NS + offset, until)
    elif stall == HELD:
        time = guest.t_ns[index - U1] * _PS_PER_NS + offset
        _hold(guest, lane, time, until)
        _let_go(log, design, guest, stream, meter, lane, time, until)
    elif stall != U0 or sending != U0:
        time = guest.t_ns[index - U1] * _PS_PER_NS + offset
        _stall(guest.offset_ps, guest.stall_ps, guest.state, lane, time, stall + sending)


@kernel
def first_later(t_ns: np.ndarray, index: Any, stop: Any, offset_ps: Any, last_ps: Any) -> Any:
    """The first event after `index`, up to `stop`, whose host time is later than `last_ps`. O(events / 64)."""
    begin = t_ns[index]
    begin_ps = begin * _PS_PER_NS + offset_ps
    index += U1
    if last_ps < begin_ps:
        return index
    most_ns = (last_ps - begin_ps) // _PS_PER_NS
    while index + U64_BITS <= stop and t_ns[index + U63] - begin <= most_ns:
        index += U64_BITS
    count = U0
    for near in range(index, min(index + U64_BITS, stop)):  # no early end: eight are compared at once
        count += U64(t_ns[near] - begin <= most_ns)
    return index + count


@inlined
def _list_heeded(log: Any, guest: Guest, begin: Any, stop: Any) -> Any:
    """List those events of a block of which more is to be done than that the target's copy is stale; how many."""
    count = U0
    if heeds_first(log) or guest.state[FILLS] == U0:
        for index in range(begin, stop):
            guest.listed[count] = index - begin
            count += heeds(log, U64(guest.page[index])) | U64(U64(guest.origin[index]) > VCPU_MASK)
    else:
        for index in range(begin, stop):
            page = U64(guest.page[index])
            empty = guest.empty[page >> U6] >> (page & U63) & U1
            guest.listed[count] = index - begin
            count += heeds(log, page) | empty | U64(U64(guest.origin[index]) > VCPU_MASK)
    return count


@inlined
def _make_stale(guest: Guest, price: np.ndarray, lane: Any, begin: Any, stop: Any) -> None:
    """The copies of what the lane's events have written are out of date. Planned reads that come before are made."""
    if not concerns(guest.plan, guest.page, begin, stop):
        for index in range(begin, stop):
            page = U64(guest.page[index])
            guest.stale[page >> U6] |= U1 << (page & U63)
        return
    for index in range(begin, stop):
        page = U64(guest.page[index])
        word = page >> U6
        if guest.plan.latest[word] != U0:
            _read_before(guest, price, word, guest.t_ns[index] * _PS_PER_NS + guest.offset_ps[lane])
        guest.stale[word] |= U1 << (page & U63)


@kernel
def _read_before(guest: Guest, price: np.ndarray, word: Any, time: Any) -> None:
    """Make the planned reads of `word` that come before host time `time`."""
    plan = guest.plan
    entry = U64(plan.latest[word])
    while entry != U0:
        entry -= U1
        while plan.bits[entry] != U0 and plan.begin_ps[entry] < time:
            bit = plan.bits[entry] & (~plan.bits[entry] + U1)
            read_pages(guest.stale, guest.state, word, bit)
            page_ps = price[ZERO_PAGES] if guest.zeros[word] & bit != U0 else price[NORMAL_PAGES]
            plan.begin_ps[entry] += plan.find_ps[entry] + page_ps
            plan.find_ps[entry] = plan.next_ps[entry]
            plan.bits[entry] ^= bit
        entry = U64(plan.earlier[entry])


@kernel
def read_planned(guest: Guest) -> None:
    """The guest has caught up: make all reads that are left."""
    plan = guest.plan
    if guest.state[CHECK] != U0:
        for entry in range(plan.ends[N_PLANNED]):
            read_pages(guest.stale, guest.state, plan.word[entry], plan.bits[entry])
    unchain(plan)


@kernel
def _fill(empty: np.ndarray, turned: np.ndarray, word: Any, bit: Any) -> None:
    """A page that is written holds data from now on."""
    if empty[word] & bit != U0:
        empty[word] &= ~bit
        turned[word >> _U12] |= U1 << (word >> U6 & U63)


@kernel
def _write_otherwise(
    log: Any, design: Any, outside: np.ndarray, state: np.ndarray, page: Any, origin: Any, meter: Meter
) -> Any:
    """A write that is not a vCPU's store, by the path its source has."""
    source = origin >> SOURCE_SHIFT
    if source == HOST:
        stall = write_host(log, design, page, origin & VCPU_MASK, meter)
        meter.work[HOST_WRITES] += U64(stall != REFUSED)
        return stall
    if source >= VHOST:
        meter.work[OUTSIDE_WRITES] += U1
        test_and_set(outside, page)
        state[OUTSIDE] = U1
    else:
        meter.work[DMA_WRITES] += U1
        mark_ram(design, page, meter)
        meter.work[FAN_OUT] += U1
    return U0


@kernel
def drain_outside(design: Any, outside: np.ndarray, state: np.ndarray, meter: Meter) -> None:
    """Hand what vhost and VFIO logged to the design, at a sync. O(pages / 64) once one of them has logged anything."""
    if state[OUTSIDE] == U0:
        return
    stop = U64(outside.size)
    meter.work[DEVICE_WORDS] += stop
    word = next_touched(outside, U0, stop)
    while word < stop:
        bits = outside[word]
        outside[word] = U0
        while bits != U0:
            mark_ram(design, (word << U6) + lowest(bits), meter)
            meter.work[FAN_OUT] += U1
            bits &= bits - U1
        word = next_touched(outside, word + U1, stop)


@kernel
def _stall(offset_ps: np.ndarray, stall_ps: np.ndarray, state: np.ndarray, lane: Any, time: Any, stall: Any) -> None:
    """The lane stands still for `stall`, plus what a sync in progress makes it wait."""
    if state[BUSY_UNTIL_PS] > time:
        stall += state[BUSY_UNTIL_PS] - time
    stall_ps[lane] += stall
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
