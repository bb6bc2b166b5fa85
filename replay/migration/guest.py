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

`content` interleaves, for each word of 64 pages, two words: pages whose copy at the target is *stale* (written since
their last read, or never read), and pages that are still all *zero*. A written page is taken to hold data from then on.
The sender sees classes as of the beginning of the current iterate call (`zeros`), in both formulations of the engine.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from replay.jit import NONE, U0, U1, U6, U63, U64, U64_BITS, call_apart, inlined, kernel
from replay.kernels.bitmap import next_touched, test_and_set
from replay.kernels.bits import lowest, popcount
from replay.kernels.prefetch import prefetch
from replay.migration.link import FREE_PS, put_page
from replay.migration.xbzrle import Cache, put_compared, turn_to
from replay.verbs import (
    HELD,
    REFUSED,
    Meter,
    expect_write,
    limit_sleep_ps,
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

NEXT_PS, END_NS, OPEN, CLOSED_LOOP, BUSY_UNTIL_PS, NEED_LANE, HIT_PS, CHECK, REDUNDANT = 0, 1, 2, 3, 4, 5, 6, 7, 8
TICK_PS, TICK_EVERY_PS, NAP_PS, NAP_END_PS, NAPPED_PS, DILATION_PS, OUTSIDE = 9, 10, 11, 12, 13, 14, 15
N_STATE = 16
FULL, SYNC, SLEEP, FETCH = 0, 1, 2, 3  # why a lane stands still: parts of stall_ps, each of n_lanes
N_CAUSES = 4
DONE, NEED_EVENTS, WATCH_HIT = 0, 1, 2
VCPU_MASK = U64(0x1FFF)
HOST, VHOST = U64(1), U64(3)  # codes of trace/schema.py; those from vhost on keep a dirty log of their own
SOURCE_SHIFT = U64(13)
_PS_PER_NS = U64(1000)
_U2 = U64(2)
_AHEAD = U64(12)  # events: 96G maps do not fit the inner caches, and a store's first look decides a branch


class Guest(NamedTuple):
    """One window of events in lanes, and the guest's memory."""

    t_ns: np.ndarray  # uint64 (n_events,)  read-only; guest time, ascending within a lane
    page: np.ndarray  # uint32 (n_events,)  read-only; dense page index
    origin: np.ndarray  # uint16 (n_events,)  read-only; vCPU | source << 13
    head: np.ndarray  # uint64 (n_lanes,)  next event of the lane
    stop: np.ndarray  # uint64 (n_lanes,)  end of the lane's events in this window
    offset_ps: np.ndarray  # uint64 (n_lanes,)  host time - guest time; wraps below zero
    stall_ps: np.ndarray  # uint64 (4 * n_lanes,)  how long each lane has stood still, for FULL, SYNC, SLEEP and FETCH
    held_ps: np.ndarray  # uint64 (n_lanes,)  host time since when the lane is held; NONE when it is not
    retry_ps: np.ndarray  # uint64 (n_lanes,)  host time at which a held lane tries again
    state: np.ndarray  # uint64 (16,)  NEXT_PS ... OUTSIDE, see the constants above; OUTSIDE 1: `outside` was written to
    outside: np.ndarray  # uint64 (n_words,)  pages in the dirty logs of vhost and VFIO
    content: np.ndarray  # uint64 (2 * n_words,)  stale and zero pages, interleaved
    zeros: np.ndarray  # uint64 (n_words,)  zero pages as the sender sees them
    cache: Cache  # of xbzrle, see xbzrle.py
    turned: np.ndarray  # uint8 (n_words / 64,)  1: a zero page of these 64 words was written since the last settle


@kernel
def settle_classes(content: np.ndarray, zeros: np.ndarray, turned: np.ndarray) -> None:
    """Show the sender which pages hold data by now. O(pages / 4096) plus the blocks that changed."""
    for block in range(turned.size):
        if turned[block] != 0:
            turned[block] = 0
            first = U64(block) << U6
            for word in range(first, min(first + U64_BITS, U64(zeros.size))):
                zeros[word] = content[_U2 * word + U1]


@inlined
def read_pages(content: np.ndarray, state: np.ndarray, word: Any, bits: Any) -> None:
    """The sender reads `bits` of `word`: their copies are fresh; those that were fresh already are redundant sends."""
    if state[CHECK] != U0:
        stale = content[_U2 * word]
        state[REDUNDANT] += popcount(bits & ~stale)
        content[_U2 * word] = stale & ~bits


@kernel
def send_page(guest: Guest, stream: np.ndarray, page: Any, work: np.ndarray) -> bool:
    """Read a page and put it into the stream; whether it counts as one sent."""
    word, bit = page >> U6, U1 << (page & U63)
    zero = guest.zeros[word] & bit != U0
    written = guest.content[_U2 * word] & bit != U0
    read_pages(guest.content, guest.state, word, bit)
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
def count_stale(content: np.ndarray) -> Any:
    """Pages whose last write is later than their last read."""
    total = U0
    for word in range(0, content.size, 2):
        total += popcount(content[word])
    return total


@kernel
def _touch(content: np.ndarray, turned: np.ndarray, word: Any, bit: Any) -> None:
    if content[_U2 * word] & bit == U0:  # storing what is there already measured 4 ns an event
        content[_U2 * word] |= bit
    if content[_U2 * word + U1] & bit != U0:
        content[_U2 * word + U1] &= ~bit
        turned[word >> U6] = 1


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
def advance(log: Any, design: Any, guest: Guest, stream: np.ndarray, meter: Meter, until: Any, watch: Any) -> Any:
    """Apply every event, every throttle tick and every run of the log's own thread, with host time <= `until`.

    Stops with WATCH_HIT before an event on a page of word `watch` (its time in HIT_PS), and with NEED_EVENTS when lane
    NEED_LANE has used up its window. Events at the time of a tick or a wake come before it, a tick before a wake.
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
        elif _run_lane(log, design, guest, stream, meter, lane, until, other_at, second, watch):
            return WATCH_HIT


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
    watch: Any,
) -> bool:
    """Apply the lane's next event, and more while at most `until` and `other_at` and earlier than `before`; stop at a
    stall."""
    index, stop, offset = guest.head[lane], guest.stop[lane], guest.offset_ps[lane]
    time = guest.t_ns[index] * _PS_PER_NS + offset
    first, last = index, min(until, other_at)
    newest = U64(guest.page.size) - U1
    hit = False
    while True:
        soon = U64(guest.page[min(index + _AHEAD, newest)])
        expect_write(log, soon)
        prefetch(guest.content, _U2 * (soon >> U6))
        page = U64(guest.page[index])
        word = page >> U6
        if word == watch:
            guest.state[HIT_PS] = time
            hit = True
            break
        origin = U64(guest.origin[index])
        if origin <= VCPU_MASK:
            stall = write(log, design, page, origin, meter)
        else:
            stall = _write_otherwise(log, design, guest.outside, guest.state, page, origin, meter)
        if stall == REFUSED:
            _hold(guest, lane, time, until)
            meter.work[VCPU_HOLDS] += U1
            break
        _touch(guest.content, guest.turned, word, U1 << (page & U63))
        index += U1
        sending = _send_urgent(log, design, guest, stream, meter, time)
        if stall != U0 or sending != U0:
            guest.head[lane] = index
            if stall == HELD:
                _hold(guest, lane, time, until)
                _let_go(log, design, guest, stream, meter, lane, time, until)
            else:
                _stall(guest.offset_ps, guest.stall_ps, guest.state, lane, time, stall + sending)
            break
        if index >= stop:
            break
        time = guest.t_ns[index] * _PS_PER_NS + offset
        if time > last or time >= before:
            break
    guest.head[lane] = index
    meter.work[GUEST_WRITES] += index - first
    return hit


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
