"""Two rings swapped at every sync, with a bitmap fallback for a round: the posted patch, as intended.

What: whoever marks a page dirty also puts it into the *enqueue* ring, once for each bit that it newly sets. A sync
swaps the rings: what was enqueued becomes the list of this round's pages, so neither the sync nor the sender has to
look at clean memory. A ring that overflowed cannot be trusted; its round is served by the bitmaps, which are kept up
to date all along, and at the next sync the choice is made anew.

How, at a sync: pages left over from the round are queued again (from the ring, or by a scan of L3 when the round was a
fallback and they fit); the log is harvested; the rings swap; the entries, or all of L2 in fallback, become L3. The
first pass over memory is always a scan, because everything is pending. Stale entries (already sent by the scan, or
queued twice) are recognised by their clear L3 bit.

Cost: a ring round is O(dirty) for sync and sender, plus O(pages / 64) to clear L1 under a KVM ring; a fallback round
costs what the bitmaps cost, and leaving it one more scan. Bad when a round dirties more than the ring holds: then it is
the bitmap design with extra work. `host-page-refind` is off because the posted send path stops after one page.

Models: cover letter and thread of "[PATCH 0/2] Implement dirty ring for pre-copy migration" (S. Imamura, 2024-06-20),
the algorithm as described; where the posted code deviates is not modelled here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from replay.jit import NONE, U0, U1, U6, U63, U64, kernel
from replay.kernels import memory, ring
from replay.kernels.bitmap import next_touched, test_and_set
from replay.kernels.bits import lowest
from replay.kernels.layers import (
    N_PAGES,
    PENDING,
    REFIND,
    fold_layer,
    merge_layer,
    peek_ahead,
    peek_around,
    pop_ahead,
    pop_around,
    take_word,
    walk,
)
from replay.plugins import param
from replay.verbs import (
    GuestShape,
    Meter,
    before_harvest,
    fold_slots,
    mark_ram,
    mark_slot,
    occupancy_max,
    peek,
    pending,
    pop,
    sync,
    take,
)
from replay.work import (
    FALLBACK_ROUNDS,
    L1_PAGES,
    L1_TOUCHED,
    L1_WORDS,
    L1_ZEROED,
    REFILL_WORDS,
    REFIND_CALLS,
    RING_MERGED,
    RING_POPS,
    RING_PUSHES,
    RING_REJECTED,
    RING_REQUEUED,
    RING_SWAPS,
    STALE_POPS,
)

OVERFLOWED, ENQUEUE, FIRST_PASS, USED_MAX, SIZE = 0, 2, 3, 4, 5  # OVERFLOWED: one flag for each of the two rings


@dataclass(frozen=True, kw_only=True)
class Config:
    entries: int = param(1024, "entries of each ring", unit="entries", low=1, high=4294967296, power_of_two=True)
    host_page_refind: bool = param(False, "search again, bounded to the host page, after each page sent")


class State(NamedTuple):
    """The bitmaps of today beside two rings."""

    l2: np.ndarray  # uint64 (n_words,)  ram_list.dirty_memory[MIGRATION]
    l3: np.ndarray  # uint64 (n_words,)  RAMBlock.bmap: pages waiting to be sent
    at: np.ndarray  # uint64 (4,)  the walk over L3, see kernels/layers.py
    slots: np.ndarray  # uint64 (2 * entries,)  page numbers in the rings, see kernels/ring.py
    ends: np.ndarray  # uint64 (4,)  head and tail of either ring
    flags: np.ndarray  # uint64 (6,)  OVERFLOWED x 2, ENQUEUE which ring is filled, FIRST_PASS, USED_MAX, SIZE entries


def build(config: Config, shape: GuestShape) -> State:
    """Every page pending, both rings empty."""
    return State(
        l2=memory.words(shape.n_words),
        l3=memory.ones_up_to(shape.n_pages, shape.n_words),
        at=walk(shape.n_pages, config.host_page_refind),
        slots=memory.pages(2 * config.entries),
        ends=memory.words(4),
        flags=np.array([0, 0, 0, 1, 0, config.entries], dtype=np.uint64),
    )


@kernel
def _enqueue(design: State, page: Any, work: np.ndarray) -> None:
    """Put `page` into the ring being filled; a refused entry makes that ring's coming round a fallback round."""
    flags = design.flags
    filling = flags[ENQUEUE]
    if ring.push(design.slots, design.ends, filling, flags[SIZE], page):
        work[RING_PUSHES] += U1
        flags[USED_MAX] = max(flags[USED_MAX], ring.used(design.ends, filling))
    else:
        work[RING_REJECTED] += U1
        flags[U64(OVERFLOWED) + filling] = U1


@kernel
def _from_ring(flags: np.ndarray) -> bool:
    """Whether this round's pages come from the ring: the first pass is over and the ring did not overflow."""
    return flags[FIRST_PASS] == U0 and flags[U64(OVERFLOWED) + U1 - flags[ENQUEUE]] == U0


@mark_ram.implement(State)
def _mark_ram(design: State, page: Any, meter: Meter) -> None:
    if not test_and_set(design.l2, page):
        _enqueue(design, page, meter.work)


@mark_slot.implement(State)
def _mark_slot(design: State, slots: np.ndarray, page: Any, meter: Meter) -> bool:
    known = test_and_set(slots, page)
    if not known:
        _enqueue(design, page, meter.work)
    return not known


@before_harvest.implement(State)
def _before_harvest(design: State, meter: Meter) -> None:
    flags, ends, size = design.flags, design.ends, design.flags[SIZE]
    filling = flags[ENQUEUE]
    draining = U1 - filling
    if flags[U64(OVERFLOWED) + draining] != U0:
        flags[U64(OVERFLOWED) + draining] = U0
        if flags[U64(OVERFLOWED) + filling] != U0 or size - ring.used(ends, filling) < design.at[PENDING]:
            flags[U64(OVERFLOWED) + filling] = U1
        else:
            _refill(design, meter.work)
    else:
        head, tail = ends[U64(2) * draining], ends[U64(2) * draining + U1]
        for index in range(head, tail):
            page = ring.entry(design.slots, draining, size, index)
            if design.l3[page >> U6] & (U1 << (page & U63)) != U0:
                meter.work[RING_REQUEUED] += U1
                _enqueue(design, page, meter.work)
    ring.empty(ends, draining)


@kernel
def _refill(design: State, work: np.ndarray) -> None:
    """Queue every page that is still pending, found by a scan of L3 that stops at the last one."""
    left = design.at[PENDING]
    word, stop = U0, (design.at[N_PAGES] + U63) >> U6
    while left > U0:
        word = next_touched(design.l3, word, stop)
        bits = design.l3[word]
        while bits != U0:
            _enqueue(design, (word << U6) + lowest(bits), work)
            work[RING_REQUEUED] += U1
            bits &= bits - U1
            left -= U1
        word += U1
    work[REFILL_WORDS] += word


@fold_slots.implement(State)
def _fold_slots(design: State, slots: np.ndarray, keep: bool, meter: Meter) -> None:
    if keep:
        _fold_new(design, slots, meter.work)
    elif design.flags[U64(OVERFLOWED) + design.flags[ENQUEUE]] != U0:
        fold_layer(slots, design.l2, design.at[N_PAGES], False, meter.work)
    else:
        filling, work = design.flags[ENQUEUE], meter.work
        for index in range(design.ends[U64(2) * filling], design.ends[U64(2) * filling + U1]):
            test_and_set(design.l2, ring.entry(design.slots, filling, design.flags[SIZE], index))
            work[RING_MERGED] += U1
        for word in range(slots.size):
            slots[word] = U0
        work[L1_ZEROED] += (design.at[N_PAGES] + U63) >> U6


@kernel
def _fold_new(design: State, slots: np.ndarray, work: np.ndarray) -> None:
    """L1 into L2 where the log is itself a bitmap: pages that are new in L2 are queued one by one."""
    stop = (design.at[N_PAGES] + U63) >> U6
    work[L1_WORDS] += stop
    word = next_touched(slots, U0, stop)
    while word < stop:
        bits = slots[word]
        work[L1_TOUCHED] += U1
        while bits != U0:
            work[L1_PAGES] += U1
            page = (word << U6) + lowest(bits)
            if not test_and_set(design.l2, page):
                _enqueue(design, page, work)
            bits &= bits - U1
        word = next_touched(slots, word + U1, stop)


@sync.implement(State)
def _sync(design: State, meter: Meter) -> Any:
    flags, work = design.flags, meter.work
    draining = flags[ENQUEUE]
    flags[ENQUEUE] = U1 - draining
    work[RING_SWAPS] += U1
    if flags[U64(OVERFLOWED) + draining] != U0:
        work[FALLBACK_ROUNDS] += U1
        return merge_layer(design.l2, design.l3, design.at, work)
    new = U0
    for index in range(design.ends[U64(2) * draining], design.ends[U64(2) * draining + U1]):
        page = ring.entry(design.slots, draining, flags[SIZE], index)
        design.l2[page >> U6] &= ~(U1 << (page & U63))
        if not test_and_set(design.l3, page):
            new += U1
        work[RING_MERGED] += U1
    design.at[PENDING] += new
    return new


@pending.implement(State)
def _pending(design: State) -> Any:
    return design.at[PENDING]


@pop.implement(State)
def _pop(design: State, meter: Meter) -> Any:
    flags = design.flags
    if flags[FIRST_PASS] != U0:
        page = pop_ahead(design.l3, design.at, meter.work)
        if page != NONE:
            return page
        flags[FIRST_PASS] = U0
    if not _from_ring(flags):
        return pop_around(design.l3, design.at, meter.work)
    draining = U1 - flags[ENQUEUE]
    while ring.used(design.ends, draining) > U0:
        page = ring.entry(design.slots, draining, flags[SIZE], design.ends[U64(2) * draining])
        ring.advance(design.ends, draining, U1)
        meter.work[RING_POPS] += U1
        bit = U1 << (page & U63)
        if design.l3[page >> U6] & bit != U0:
            design.l3[page >> U6] &= ~bit
            design.at[PENDING] -= U1
            meter.work[REFIND_CALLS] += design.at[REFIND]
            return page
        meter.work[STALE_POPS] += U1
    return NONE


@peek.implement(State)
def _peek(design: State, meter: Meter) -> Any:
    flags = design.flags
    if flags[FIRST_PASS] != U0:
        word, bits = peek_ahead(design.l3, design.at, meter.work)
        if bits != U0:
            return word, bits
        flags[FIRST_PASS] = U0
    if not _from_ring(flags):
        return peek_around(design.l3, design.at, meter.work)
    draining = U1 - flags[ENQUEUE]
    while ring.used(design.ends, draining) > U0:
        page = ring.entry(design.slots, draining, flags[SIZE], design.ends[U64(2) * draining])
        bit = U1 << (page & U63)
        if design.l3[page >> U6] & bit != U0:
            return page >> U6, bit
        ring.advance(design.ends, draining, U1)
        meter.work[RING_POPS] += U1
        meter.work[STALE_POPS] += U1
    return U0, U0


@take.implement(State)
def _take(design: State, word: Any, bits: Any, meter: Meter) -> None:
    if not _from_ring(design.flags):
        take_word(design.l3, design.at, word, bits, meter.work)
        return
    ring.advance(design.ends, U1 - design.flags[ENQUEUE], U1)
    meter.work[RING_POPS] += U1
    meter.work[REFIND_CALLS] += design.at[REFIND]
    design.l3[word] &= ~bits
    design.at[PENDING] -= U1


@occupancy_max.implement(State)
def _occupancy_max(design: State) -> Any:
    most = design.flags[USED_MAX]
    design.flags[USED_MAX] = U0
    return most
