"""The guest as a migration sees it: one window of its events, its memory, and how it writes.

Writes reach the log or the design by the path they have in QEMU: a vCPU's through the log, the hypervisor's own on a
vCPU's thread too (but without a test for tracking), DMA into the RAMList bitmap, vhost's and VFIO's into logs of their
own that are read at a sync.

Two bitmaps say what is in memory: pages whose copy at the target is *stale* (written since their last read, or never
read; kept only when somebody asks), and pages that are still *empty*, all zero. A written page is taken to hold data
from then on. The sender sees classes as of the beginning of the current iterate call (`zeros`), in both formulations
of the engine. When events are applied is decided in lanes.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from replay.jit import NONE, U0, U1, U6, U63, U64, U64_BITS, call_apart, inlined, kernel
from replay.kernels import memory
from replay.kernels.bitmap import next_touched, test_and_set
from replay.kernels.bits import lowest, popcount
from replay.migration.link import put_page
from replay.migration.plan import N_PLANNED, Plan, comes_late, concerns, unchain
from replay.migration.xbzrle import Cache, put_compared, turn_to
from replay.verbs import (
    REFUSED,
    Meter,
    mark_ram,
    write,
    write_host,
)
from replay.work import (
    DEVICE_WORDS,
    DMA_WRITES,
    FAN_OUT,
    HOST_WRITES,
    NORMAL_PAGES,
    OUTSIDE_WRITES,
    ZERO_PAGES,
)

NEXT_PS, END_NS, OPEN, CLOSED_LOOP, BUSY_UNTIL_PS, NEED_LANE, FILLS, CHECK, REDUNDANT = 0, 1, 2, 3, 4, 5, 6, 7, 8
TICK_PS, TICK_EVERY_PS, NAP_PS, NAP_END_PS, NAPPED_PS, DILATION_PS, OUTSIDE = 9, 10, 11, 12, 13, 14, 15
N_STATE = 16
FULL, SYNC, SLEEP, FETCH = 0, 1, 2, 3  # why a lane stands still: parts of stall_ps, each of n_lanes
N_CAUSES = 4
VCPU_MASK = U64(0x1FFF)
HOST, VHOST = U64(1), U64(3)  # codes of trace/schema.py; those from vhost on keep a dirty log of their own
SOURCE_SHIFT = U64(13)
PS_PER_NS = U64(1000)
_U12 = U64(12)
BLOCK = U64(512)  # events


class Block(NamedTuple):
    """The next events of each lane, and which of them have to be looked at closely."""

    end: np.ndarray  # uint64 (n_lanes,)  where the lane's events of the block end
    n_listed: np.ndarray  # uint64 (n_lanes,)  how many of them are listed
    turn: np.ndarray  # uint64 (n_lanes,)  how many of the listed ones were applied
    next_ps: np.ndarray  # uint64 (n_lanes,)  host time of the next one; NONE: there is none
    listed: np.ndarray  # uint64 (n_lanes * (BLOCK + 1),)  which they are, counted from the lane's head


def new_block(lanes: int) -> Block:
    """Scratch for so many lanes."""
    end, n_listed, turn, next_ps = (memory.words(lanes) for _ in range(4))
    return Block(end, n_listed, turn, next_ps, listed=memory.words(lanes * (int(BLOCK) + 1)))


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
    state: np.ndarray  # uint64 (16,)  NEXT_PS ... OUTSIDE, see the constants above; CHECK 1: `stale` is kept
    #                    FILLS 1: there were empty pages at the start; OUTSIDE 1: `outside` was written to
    outside: np.ndarray  # uint64 (n_words,)  pages in the dirty logs of vhost and VFIO
    stale: np.ndarray  # uint64 (n_words,)  pages written since their last read, or never read
    empty: np.ndarray  # uint64 (n_words,)  pages that hold only zeros
    zeros: np.ndarray  # uint64 (n_words,)  the same as the sender sees them
    cache: Cache  # of xbzrle, see xbzrle.py
    turned: np.ndarray  # uint64 (n_words / 4096,)  bit set: an empty page of these 64 words was written since the last
    #                     settle
    block: Block  # scratch: what of the lanes' next events is applied at once, see blocks.py
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


@inlined
def make_stale(guest: Guest, price: np.ndarray, lane: Any, begin: Any, stop: Any) -> None:
    """The copies of what the lane's events [begin, stop) write are out of date, unless a planned read follows."""
    if not concerns(guest.plan, guest.page, begin, stop):
        for index in range(begin, stop):
            page = U64(guest.page[index])
            guest.stale[page >> U6] |= U1 << (page & U63)
        return
    for index in range(begin, stop):
        page = U64(guest.page[index])
        word, bit = page >> U6, U1 << (page & U63)
        if guest.plan.latest[word] != U0:
            time = guest.t_ns[index] * PS_PER_NS + guest.offset_ps[lane]
            if comes_late(guest.plan, guest.zeros[word], price, word, bit, time):
                continue
        guest.stale[word] |= bit


@kernel
def read_planned(guest: Guest) -> None:
    """The guest has caught up: make the planned reads."""
    plan = guest.plan
    if guest.state[CHECK] != U0:
        for entry in range(plan.ends[N_PLANNED]):
            read_pages(guest.stale, guest.state, plan.word[entry], plan.bits[entry])
            guest.stale[plan.word[entry]] |= plan.late[entry]
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
def lane_time(t_ns: np.ndarray, head: Any, stop: Any, offset_ps: Any, state: np.ndarray) -> Any:
    """Host time of a lane's next event; of its window's end when it has none left; NONE when it never will."""
    if head < stop:
        return t_ns[head] * PS_PER_NS + offset_ps
    if state[OPEN] != U0:
        return state[END_NS] * PS_PER_NS + offset_ps
    return NONE


@inlined
def apply_event(log: Any, design: Any, guest: Guest, index: Any, meter: Meter) -> Any:
    """Write an event to the log, and data to its page."""
    page, origin = U64(guest.page[index]), U64(guest.origin[index])
    if origin <= VCPU_MASK:
        stall = write(log, design, page, origin, meter)
    else:
        stall = _write_otherwise(log, design, guest.outside, guest.state, page, origin, meter)
    if stall != REFUSED and guest.state[FILLS] != U0:
        _fill(guest.empty, guest.turned, page >> U6, U1 << (page & U63))
    return stall
