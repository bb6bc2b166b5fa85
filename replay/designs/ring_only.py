"""A queue instead of bitmaps: one pass over memory, then only what producers put into a bounded queue.

What: whoever dirties a page pushes its number; the sender copies memory once from first page to last and then lives on
the queue. There is no map to scan and no round. How: a full queue must be dealt with by its producer. `full=wait`: it
waits; under KVM rings the entries simply stay there, so that nobody waits while it holds a lock that the sender needs,
and vCPUs stop when their own rings are full too. `full=send`: the producer sends the page itself, after its store has
retired, on a channel that it shares with the sender. Devices, and a harvest by the sender itself, can do neither: their
pages go to a side bitmap. `dedupe` keeps a page from being queued twice: not at all; by a *queued* bit a page; or by
the number of the *round* (sync) in which it was last queued, 32 bits a page. Bit or stamp is cleared at the pop, before
the page is re-armed and read, so that a later write queues it again.

Cost: O(1) a mark and a pop, nothing is O(pages) but the copy. Bad for a busy guest during the copy: the queue is not
served until then, fills, and stops the guest (wait) or makes it pay for the sends (send). Without dedupe a hot page
takes as many entries as it was re-armed, and is sent as often.

Models: option 2 of S. Imamura's mail of 2024-06-25 ("Use a ring as an alternative to bitmaps"), which left open what a
full queue means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from replay.jit import NONE, U0, U1, U6, U63, U64, kernel
from replay.kernels import memory, ring
from replay.kernels.bitmap import test_and_set
from replay.kernels.layers import PENDING, mark_aside, pop_aside, walk
from replay.plugins import param
from replay.verbs import (
    GuestShape,
    Meter,
    appetite,
    before_harvest,
    fold_slots,
    full,
    live,
    mark_each,
    mark_ram,
    mark_slot,
    occupancy_max,
    pending,
    pop,
    room,
    summon,
    sync,
    urgent,
)
from replay.work import (
    BACKGROUND_POPS,
    FAN_OUT,
    RING_POPS,
    RING_PUSHES,
    RING_REJECTED,
)

STALLS_VCPUS = True  # a full queue makes the vCPU that would push wait
SIZE, CURSOR, N_PAGES, NEW, USED_MAX, DEDUPE, SENDS, ROUND, AT_SYNC, OWN_SIZE, SUMMONED = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
)
QUEUED_BIT, ROUND_STAMP = 1, 2
KRING_ENTRIES_MAX = 65_536  # of one vCPU: the most that one reap can find no room for
QUEUE, OWN = 0, 1


@dataclass(frozen=True, kw_only=True)
class Config:
    entries: int = param(65536, "entries of the queue", unit="entries", low=1, high=4294967296, power_of_two=True)
    full: str = param("wait", "what a producer does when the queue is full", choices=("wait", "send"))
    dedupe: str = param("queued", "how a page is kept from being queued twice", choices=("none", "queued", "round"))


class State(NamedTuple):
    """The queue, what a producer must send itself, the side bitmap, and what knows which pages are queued."""

    slots: np.ndarray  # uint64 (entries,)  page numbers, see kernels/ring.py
    ends: np.ndarray  # uint64 (2,)  head and tail
    own: (
        np.ndarray
    )  # uint64 (n_vcpus * 65536,)  pages that were refused and are to be sent at once; one slot when waiting
    own_ends: np.ndarray  # uint64 (2,)  head and tail
    side: np.ndarray  # uint64 (n_words,)  pages of producers that can neither wait nor send
    at: np.ndarray  # uint64 (4,)  the walk over the side bitmap, see kernels/layers.py
    queued: np.ndarray  # uint64 (n_words,)  with dedupe=queued: bit set while the page is in the queue
    stamps: np.ndarray  # uint32 (n_pages,)  with dedupe=round: the round in which the page was last queued, 0 for none
    numbers: np.ndarray  # uint64 (11,)  SIZE entries; CURSOR page; N_PAGES; NEW pages; USED_MAX entries; DEDUPE;
    #                      SENDS, AT_SYNC, SUMMONED 0 or 1; ROUND; OWN_SIZE entries


def build(config: Config, shape: GuestShape) -> State:
    """All of memory is still to be copied; the queue is empty."""
    dedupe = {"none": 0, "queued": QUEUED_BIT, "round": ROUND_STAMP}[config.dedupe]
    sends = config.full == "send"
    own_size = 1 << (shape.n_vcpus * KRING_ENTRIES_MAX - 1).bit_length() if sends else 1
    stamps = np.empty(shape.n_pages if dedupe == ROUND_STAMP else 1, dtype=np.uint32)
    stamps.fill(0)
    return State(
        slots=memory.pages(config.entries),
        ends=memory.words(2),
        own=memory.pages(own_size),
        own_ends=memory.words(2),
        side=memory.words(shape.n_words),
        at=walk(shape.n_pages, False, pending=0),
        queued=memory.words(shape.n_words if dedupe == QUEUED_BIT else 8),
        stamps=stamps,
        numbers=np.array([config.entries, 0, shape.n_pages, 0, 0, dedupe, sends, 1, 0, own_size, 0], dtype=np.uint64),
    )


@live.implement(State)
def _live(design: State) -> bool:
    return True


@kernel
def _is_queued(design: State, page: Any) -> bool:
    numbers = design.numbers
    if numbers[DEDUPE] == U64(QUEUED_BIT):
        return design.queued[page >> U6] & (U1 << (page & U63)) != U0
    if numbers[DEDUPE] == U64(ROUND_STAMP):
        return U64(design.stamps[page]) == numbers[ROUND]
    return False


@kernel
def _mark(design: State, page: Any, work: np.ndarray) -> bool:
    """Queue `page`, or whatever else becomes of it when the queue is full; whether that is new."""
    if _is_queued(design, page):
        return False
    numbers = design.numbers
    if ring.push(design.slots, design.ends, QUEUE, numbers[SIZE], page):
        work[RING_PUSHES] += U1
        numbers[USED_MAX] = max(numbers[USED_MAX], ring.used(design.ends, QUEUE))
        if numbers[DEDUPE] == U64(QUEUED_BIT):
            test_and_set(design.queued, page)
        elif numbers[DEDUPE] == U64(ROUND_STAMP):
            design.stamps[page] = numbers[ROUND]
    else:
        work[RING_REJECTED] += U1
        if numbers[SENDS] != U0 and numbers[AT_SYNC] == U0:
            ring.push(design.own, design.own_ends, QUEUE, numbers[OWN_SIZE], page)
            return True
        if not mark_aside(design.side, design.at, page, work):
            return False
    numbers[NEW] += U1
    return True


@mark_ram.implement(State)
def _mark_ram(design: State, page: Any, meter: Meter) -> None:
    _mark(design, page, meter.work)


@mark_slot.implement(State)
def _mark_slot(design: State, slots: np.ndarray, page: Any, meter: Meter) -> bool:
    meter.work[FAN_OUT] += U1
    return _mark(design, page, meter.work)


@fold_slots.implement(State)
def _fold_slots(design: State, slots: np.ndarray, keep: bool, meter: Meter) -> None:
    """KVM's bitmap: what the pass has not reached needs no mark. KVM's rings leave L1 unused."""
    if keep:
        mark_each(design, slots, design.numbers[CURSOR], meter)


@room.implement(State)
def _room(design: State) -> Any:
    if design.numbers[SENDS] != U0:
        return NONE
    return design.numbers[SIZE] - ring.used(design.ends, QUEUE)


@summon.implement(State)
def _summon(design: State) -> None:
    design.numbers[SUMMONED] = U1


@appetite.implement(State)
def _appetite(design: State) -> Any:
    """What a full queue left in the log is fetched once the queue is empty; `fetch` summons again if more is left."""
    numbers = design.numbers
    if numbers[SUMMONED] == U0 or numbers[CURSOR] < numbers[N_PAGES] or ring.used(design.ends, QUEUE) != U0:
        return U0
    numbers[SUMMONED] = U0
    return numbers[SIZE]


@full.implement(State)
def _full(design: State, page: Any) -> bool:
    no_room = design.numbers[SENDS] == U0 and ring.used(design.ends, QUEUE) >= design.numbers[SIZE]
    return no_room and not _is_queued(design, page)


@urgent.implement(State)
def _urgent(design: State) -> Any:
    if ring.used(design.own_ends, QUEUE) == U0:
        return NONE
    page = ring.entry(design.own, QUEUE, design.numbers[OWN_SIZE], design.own_ends[0])
    ring.advance(design.own_ends, QUEUE, U1)
    return page


@before_harvest.implement(State)
def _before_harvest(design: State, meter: Meter) -> None:
    design.numbers[AT_SYNC] = U1


@sync.implement(State)
def _sync(design: State, meter: Meter) -> Any:
    numbers = design.numbers
    new = numbers[NEW]
    numbers[NEW] = numbers[AT_SYNC] = U0
    numbers[ROUND] += U1
    return new


@pending.implement(State)
def _pending(design: State) -> Any:
    numbers = design.numbers
    return numbers[N_PAGES] - numbers[CURSOR] + ring.used(design.ends, QUEUE) + design.at[PENDING]


@pop.implement(State)
def _pop(design: State, meter: Meter) -> Any:
    numbers, work = design.numbers, meter.work
    if numbers[CURSOR] < numbers[N_PAGES]:
        numbers[CURSOR] += U1
        work[BACKGROUND_POPS] += U1
        return numbers[CURSOR] - U1
    if ring.used(design.ends, QUEUE) == U0:
        return pop_aside(design.side, design.at, work)
    page = ring.entry(design.slots, QUEUE, numbers[SIZE], design.ends[0])
    ring.advance(design.ends, QUEUE, U1)
    work[RING_POPS] += U1
    if numbers[DEDUPE] == U64(QUEUED_BIT):
        design.queued[page >> U6] &= ~(U1 << (page & U63))
    elif numbers[DEDUPE] == U64(ROUND_STAMP):
        design.stamps[page] = 0
    return page


@occupancy_max.implement(State)
def _occupancy_max(design: State) -> Any:
    most = design.numbers[USED_MAX]
    design.numbers[USED_MAX] = U0
    return most
