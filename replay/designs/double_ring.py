"""Two rings swapped at every sync, with a bitmap fallback for a round: the posted patch, as intended.

What: whoever marks a page dirty also puts it into the *enqueue* ring, once for each bit that it newly sets. A sync
swaps the rings: what was enqueued becomes the list of this round's pages, so neither the sync nor the sender has to
look at clean memory. A ring that overflowed cannot be trusted; its round is served by the bitmaps, which are kept up to
date all along, and at the next sync the choice is made anew.

How, at a sync: pages left over from the round are queued again (from the ring, or by a scan of L3 when the round was a
fallback and they fit); the log is harvested; the rings swap; the entries, or all of L2 in fallback, become L3. The
first pass over memory is always a scan, because everything is pending. Stale entries (already sent by the scan, or
queued twice) are recognised by their clear L3 bit.

Cost: a ring round is O(dirty) for sync and sender, plus O(pages / 64) to clear L1 under a KVM ring; a fallback round
costs what the bitmaps cost, and leaving it one more scan. Bad when a round dirties more than the ring holds: then it is
the bitmap design with extra work. `host-page-refind` is off because the posted send path stops after one page.

Each deviation of the posted code is a switch, all of them `as-posted=on`. Deterministic: `dedupe=off` (marks in L2
queue a page every time), `exact-full=on` (a ring with exactly all entries used counts as overflowed), `boot-filled=on`
(adding RAMBlocks filled the ring, so the first sync falls back), `block-rescans=on` (each RAMBlock goes over the whole
ring), `multifd-flush=off` (no flush of the channels after a ring round; harmless with one channel). Races, between
producers that do not hold the big lock (devices, stores under TCG) and a sync or one another; a replay has no
instructions to interleave, so the worst moment is taken: `locked=off` overwrites one in `race-every` of their pushes;
`late-inserts=on` lets the newest one before each swap arrive after the entries were copied; `atomic-clear=off` lets it
arrive during the copy, and loses its L2 bit to a neighbour's clear. These lose pages; `replay check` shows the
interleavings.

Models: cover letter and thread of "[PATCH 0/2] Implement dirty ring for pre-copy migration" (S. Imamura, 2024-06-20),
the algorithm as described, and the posted code by its observed behaviour.
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
    mark_each,
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
    FAN_OUT,
    L1_ZEROED,
    REFILL_WORDS,
    REFIND_CALLS,
    RING_COMPARES,
    RING_DUPLICATES,
    RING_MERGED,
    RING_MISSED,
    RING_POPS,
    RING_PUSHES,
    RING_REJECTED,
    RING_REQUEUED,
    RING_SWAPS,
    ROUND_FLUSHES,
    STALE_POPS,
)

OVERFLOWED, ENQUEUE, FIRST_PASS, USED_MAX, SIZE = 0, 2, 3, 4, 5  # OVERFLOWED: one flag for each of the two rings
DEDUPE, EXACT, LOCKED, LATE, ATOMIC, FLUSHES, RESCANS, RACE_EVERY, N_RACING, NEWEST, RACING, AT_SYNC = range(6, 18)


@dataclass(frozen=True, kw_only=True)
class Config:
    entries: int = param(1024, "entries of each ring", unit="entries", low=1, high=4294967296, power_of_two=True)
    host_page_refind: bool = param(False, "search again, bounded to the host page, after each page sent")
    dedupe: bool = param(True, "a page already marked in L2 is not queued again")
    exact_full: bool = param(False, "a ring with exactly all entries used counts as overflowed")
    locked: bool = param(True, "pushes without the big lock are serialised with the others")
    late_inserts: bool = param(False, "a push that raced with the swap arrives after the copy")
    atomic_clear: bool = param(True, "L2 bits are cleared atomically at a sync")
    multifd_flush: bool = param(True, "multifd channels are flushed after a ring round too")
    block_rescans: bool = param(False, "each RAMBlock goes over the whole ring at a sync")
    boot_filled: bool = param(False, "the ring has overflowed before the migration begins")
    as_posted: bool = param(False, "all deviations of the posted code at once")
    race_every: int = param(1000, "one in so many pushes without the lock is lost (locked=off)", unit="pushes", low=1)


def unsafe(config: Config) -> str | None:
    """Why a configuration can lose pages."""
    if not config.locked or config.as_posted:
        return "producers without the big lock overwrite one another's entries"
    if config.late_inserts:
        return "an entry that arrives after the swap is never copied"
    if not config.atomic_clear:
        return "clearing an L2 bit can clear a neighbour that is being set"
    if not config.multifd_flush:
        return "with several channels, two versions of a page can overtake one another"
    return None


class State(NamedTuple):
    """The bitmaps of today beside two rings."""

    l2: np.ndarray  # uint64 (n_words,)  ram_list.dirty_memory[MIGRATION]
    l3: np.ndarray  # uint64 (n_words,)  RAMBlock.bmap: pages waiting to be sent
    at: np.ndarray  # uint64 (4,)  the walk over L3, see kernels/layers.py
    slots: np.ndarray  # uint64 (2 * entries,)  page numbers in the rings, see kernels/ring.py
    ends: np.ndarray  # uint64 (4,)  head and tail of either ring
    flags: np.ndarray  # uint64 (18,)  OVERFLOWED x 2, ENQUEUE which ring is filled, FIRST_PASS, USED_MAX, SIZE entries;
    #                    switches; RESCANS RAMBlocks or 0; N_RACING pushes; NEWEST, RACING pages or NONE; AT_SYNC


def build(config: Config, shape: GuestShape) -> State:
    """Every page pending, both rings empty."""
    posted = config.as_posted
    switches = [
        config.dedupe and not posted,
        config.exact_full or posted,
        config.locked and not posted,
        config.late_inserts or posted,
        config.atomic_clear and not posted,
        config.multifd_flush and not posted,
        shape.n_blocks if config.block_rescans or posted else 0,
    ]
    overflowed = config.boot_filled or posted
    flags = [overflowed, 0, 0, 1, 0, config.entries, *switches, config.race_every, 0, int(NONE), int(NONE), 0]
    return State(
        l2=memory.words(shape.n_words),
        l3=memory.ones_up_to(shape.n_pages, shape.n_words),
        at=walk(shape.n_pages, config.host_page_refind),
        slots=memory.pages(2 * config.entries),
        ends=memory.words(4),
        flags=np.array(flags, dtype=np.uint64),
    )


@kernel
def _enqueue(design: State, page: Any, work: np.ndarray) -> bool:
    """Put `page` into the ring being filled; a refused entry makes that ring's coming round a fallback round."""
    flags = design.flags
    filling = flags[ENQUEUE]
    flags[NEWEST] = NONE
    if ring.push(design.slots, design.ends, filling, flags[SIZE], page):
        work[RING_PUSHES] += U1
        used = ring.used(design.ends, filling)
        flags[USED_MAX] = max(flags[USED_MAX], used)
        if flags[EXACT] != U0 and used == flags[SIZE]:
            flags[U64(OVERFLOWED) + filling] = U1
        return True
    work[RING_REJECTED] += U1
    flags[U64(OVERFLOWED) + filling] = U1
    return False


@kernel
def _enqueue_unlocked(design: State, page: Any, work: np.ndarray) -> None:
    """The same for a producer that does not hold the big lock; one in RACE_EVERY is overwritten by another's."""
    flags = design.flags
    flags[N_RACING] += U1
    if flags[LOCKED] == U0 and flags[N_RACING] % flags[RACE_EVERY] == U0:
        work[RING_MISSED] += U1
    elif _enqueue(design, page, work):
        flags[NEWEST] = page


@kernel
def _from_ring(flags: np.ndarray) -> bool:
    """Whether this round's pages come from the ring: the first pass is over and the ring did not overflow."""
    return flags[FIRST_PASS] == U0 and flags[U64(OVERFLOWED) + U1 - flags[ENQUEUE]] == U0


@mark_ram.implement(State)
def _mark_ram(design: State, page: Any, meter: Meter) -> None:
    known = test_and_set(design.l2, page)
    if known and design.flags[DEDUPE] != U0:
        return
    meter.work[RING_DUPLICATES] += U64(known)
    if design.flags[AT_SYNC] != U0:
        _enqueue(design, page, meter.work)
    else:
        _enqueue_unlocked(design, page, meter.work)


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
    flags[AT_SYNC] = U1
    if flags[NEWEST] != NONE and (flags[LATE] != U0 or flags[ATOMIC] == U0):
        ends[U64(2) * filling + U1] -= U1  # its producer is caught between its bit and its entry
        flags[RACING] = flags[NEWEST]
    flags[NEWEST] = NONE
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
        mark_each(design, slots, NONE, meter)
    elif design.flags[U64(OVERFLOWED) + design.flags[ENQUEUE]] != U0:
        fold_layer(slots, design.l2, design.at[N_PAGES], False, meter.work)
    else:
        filling, work = design.flags[ENQUEUE], meter.work
        for index in range(design.ends[U64(2) * filling], design.ends[U64(2) * filling + U1]):
            test_and_set(design.l2, ring.entry(design.slots, filling, design.flags[SIZE], index))
            work[RING_MERGED] += U1
            work[FAN_OUT] += U1
        for word in range(slots.size):
            slots[word] = U0
        work[L1_ZEROED] += (design.at[N_PAGES] + U63) >> U6


@sync.implement(State)
def _sync(design: State, meter: Meter) -> Any:
    flags, work = design.flags, meter.work
    draining = flags[ENQUEUE]
    flags[ENQUEUE] = U1 - draining
    flags[AT_SYNC] = U0
    racing, flags[RACING] = flags[RACING], NONE
    work[RING_SWAPS] += U1
    if flags[U64(OVERFLOWED) + draining] != U0:
        work[FALLBACK_ROUNDS] += U1
        return merge_layer(design.l2, design.l3, design.at, work)
    work[ROUND_FLUSHES] += flags[FLUSHES]
    new, neighbour = U0, False
    for index in range(design.ends[U64(2) * draining], design.ends[U64(2) * draining + U1]):
        page = ring.entry(design.slots, draining, flags[SIZE], index)
        design.l2[page >> U6] &= ~(U1 << (page & U63))
        if not test_and_set(design.l3, page):
            new += U1
        neighbour |= page >> U6 == racing >> U6
        work[RING_MERGED] += U1
        work[RING_COMPARES] += flags[RESCANS]
    design.at[PENDING] += new
    if racing != NONE:
        _race(design, draining, racing, neighbour, work)
    return new


@kernel
def _race(design: State, draining: Any, page: Any, neighbour: bool, work: np.ndarray) -> None:
    """The entry of a push that raced with the swap: too late in the ring that was copied, or in the other one."""
    if design.flags[LATE] != U0:
        work[RING_MISSED] += U1
        ring.push(design.slots, design.ends, draining, design.flags[SIZE], page)
        return
    _enqueue(design, page, work)
    if neighbour:
        work[RING_MISSED] += U1
        design.l2[page >> U6] &= ~(U1 << (page & U63))


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
