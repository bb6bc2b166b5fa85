"""One bitmap and one queue: pages come from the queue until it overflows, then from a scan.

What: whoever dirties a page sets its bit in one bitmap and, if the bit was clear, pushes the page. The sender takes
pages from the queue and clears their bits; after an overflow there are bits without an entry, so it scans. How, once
the queue has overflowed (`leave`): `sticky` scans to the end; `scan` goes on scanning until a whole pass leaves no more
than fits, then one more scan, under the lock, refills the queue and it is trusted again; `chunks` keeps a flag for
every `chunk` pages that a refused page lies in and scans only these, the queue is never given up. The first pass over
memory is a scan in any case: all bits are set and none is queued. Entries whose bit is clear already are stale and
dropped.

Cost: O(1) a mark and a pop while the queue holds; O(pages / 64) a pass in fallback; with chunks O(chunk / 64) for each
that overflowed. There are no layers to merge at a sync: a mark reaches the sender at once, and so a page that is
written again after it was sent is sent again within the round. Bad when the first pass alone fills the queue: it is not
served until then.

Models: option 3 of S. Imamura's mail of 2024-06-25 ("Use bitmaps when the ring is full"), with the ways out of the
fallback that the thread discusses; chunk flags are nobody's posted code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from replay.jit import NONE, U0, U1, U6, U63, U64, kernel
from replay.kernels import memory, ring
from replay.kernels.bitmap import find_next, next_touched, test_and_clear, test_and_set
from replay.kernels.bits import lowest
from replay.kernels.layers import CURSOR, N_PAGES, PENDING, REFIND, pop_ahead, walk
from replay.plugins import param
from replay.verbs import (
    GuestShape,
    Meter,
    fold_slots,
    live,
    mark_each,
    mark_ram,
    mark_slot,
    occupancy_max,
    pending,
    pop,
    sync,
)
from replay.work import (
    FALLBACK_ROUNDS,
    FAN_OUT,
    FIND_CALLS,
    FIND_WORDS,
    REFIND_CALLS,
    RING_POPS,
    RING_PUSHES,
    RING_REFILLS,
    RING_REJECTED,
    STALE_POPS,
    SUMMARY_WORDS,
)

SIZE, NEW, USED_MAX, FIRST_PASS, OVERFLOWED, LEAVE, SHIFT, N_FLAGGED, CHUNK_END, FELL = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
STICKY, BY_SCAN, BY_CHUNKS = 0, 1, 2
QUEUE = 0
_WAYS = {"sticky": STICKY, "scan": BY_SCAN, "chunks": BY_CHUNKS}


@dataclass(frozen=True, kw_only=True)
class Config:
    entries: int = param(65536, "entries of the queue", unit="entries", low=1, high=4294967296, power_of_two=True)
    leave: str = param("scan", "how the fallback is left after an overflow", choices=("sticky", "scan", "chunks"))
    chunk: int = param(
        4096, "pages of one overflow flag (chunks)", unit="pages", low=64, high=16777216, power_of_two=True
    )
    host_page_refind: bool = param(False, "search again, bounded to the host page, after each page sent")


class State(NamedTuple):
    """One bitmap, one queue, and how far they agree."""

    bits: np.ndarray  # uint64 (n_words,)  pages waiting to be sent
    at: np.ndarray  # uint64 (4,)  the walk over them, see kernels/layers.py
    slots: np.ndarray  # uint64 (entries,)  page numbers, see kernels/ring.py
    ends: np.ndarray  # uint64 (2,)  head and tail
    flagged: np.ndarray  # uint64 (n_chunk_words,)  chunks in which a page was refused
    numbers: (
        np.ndarray
    )  # uint64 (10,)  SIZE entries; NEW pages; USED_MAX entries; FIRST_PASS, OVERFLOWED 0 or 1; LEAVE;
    #                      SHIFT log2 of a chunk's pages; N_FLAGGED chunks; CHUNK_END page; FELL 0 or 1


def build(config: Config, shape: GuestShape) -> State:
    """Every page pending, none of them queued."""
    shift = config.chunk.bit_length() - 1
    n_chunks = -(-shape.n_pages // config.chunk)
    return State(
        bits=memory.ones_up_to(shape.n_pages, shape.n_words),
        at=walk(shape.n_pages, config.host_page_refind),
        slots=memory.pages(config.entries),
        ends=memory.words(2),
        flagged=memory.words(max(8, -(-n_chunks // 512) * 8)),
        numbers=np.array([config.entries, 0, 0, 1, 0, _WAYS[config.leave], shift, 0, 0, 0], dtype=np.uint64),
    )


@live.implement(State)
def _live(design: State) -> bool:
    return True


@kernel
def _mark(design: State, page: Any, work: np.ndarray) -> bool:
    """Set the bit; if it was clear, queue the page, or note that the queue lacks it. Whether it was clear."""
    numbers = design.numbers
    if test_and_set(design.bits, page):
        return False
    design.at[PENDING] += U1
    numbers[NEW] += U1
    if numbers[OVERFLOWED] != U0:
        work[RING_REJECTED] += U1
    elif ring.push(design.slots, design.ends, QUEUE, numbers[SIZE], page):
        work[RING_PUSHES] += U1
        numbers[USED_MAX] = max(numbers[USED_MAX], ring.used(design.ends, QUEUE))
    else:
        work[RING_REJECTED] += U1
        numbers[FELL] = U1
        if numbers[LEAVE] != U64(BY_CHUNKS):
            numbers[OVERFLOWED] = U1
        elif not test_and_set(design.flagged, page >> numbers[SHIFT]):
            numbers[N_FLAGGED] += U1
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
    """KVM's bitmap, page by page; under KVM's rings L1 is unused."""
    if keep:
        mark_each(design, slots, NONE, meter)


@sync.implement(State)
def _sync(design: State, meter: Meter) -> Any:
    numbers = design.numbers
    new = numbers[NEW]
    meter.work[FALLBACK_ROUNDS] += numbers[FELL]
    numbers[NEW] = U0
    numbers[FELL] = numbers[OVERFLOWED]
    return new


@pending.implement(State)
def _pending(design: State) -> Any:
    return design.at[PENDING]


@kernel
def _refill(design: State, work: np.ndarray) -> None:
    """Leave the fallback: the queue holds exactly the set bits. One scan of the whole map, counted as a search."""
    design.ends[0] = design.ends[1]
    stop = (design.at[N_PAGES] + U63) >> U6
    work[FIND_CALLS] += U1
    work[FIND_WORDS] += stop
    word = next_touched(design.bits, U0, stop)
    while word < stop:
        bits = design.bits[word]
        while bits != U0:
            ring.push(design.slots, design.ends, QUEUE, design.numbers[SIZE], (word << U6) + lowest(bits))
            work[RING_REFILLS] += U1
            bits &= bits - U1
        word = next_touched(design.bits, word + U1, stop)
    design.numbers[OVERFLOWED] = U0


@kernel
def _from_queue(design: State, work: np.ndarray) -> Any:
    while ring.used(design.ends, QUEUE) != U0:
        page = ring.entry(design.slots, QUEUE, design.numbers[SIZE], design.ends[0])
        ring.advance(design.ends, QUEUE, U1)
        work[RING_POPS] += U1
        if test_and_clear(design.bits, page):
            design.at[PENDING] -= U1
            work[REFIND_CALLS] += design.at[REFIND]
            return page
        work[STALE_POPS] += U1
    return NONE


@kernel
def _in_chunk(design: State, work: np.ndarray) -> Any:
    """The next set page of the chunk being scanned; NONE when it has no more."""
    end, cursor = design.numbers[CHUNK_END], design.at[CURSOR]
    if cursor >= end:
        return NONE
    page = find_next(design.bits, end, cursor)
    work[FIND_CALLS] += U1
    work[FIND_WORDS] += (min(page, end - U1) >> U6) - (cursor >> U6) + U1
    design.at[CURSOR] = min(page, end - U1) + U1
    if page >= end:
        return NONE
    design.bits[page >> U6] &= ~(U1 << (page & U63))
    design.at[PENDING] -= U1
    work[REFIND_CALLS] += design.at[REFIND]
    return page


@kernel
def _from_chunks(design: State, work: np.ndarray) -> Any:
    """Finish the chunk being scanned; then the queue; then the next flagged chunk, its flag cleared before the scan."""
    numbers = design.numbers
    while True:
        page = _in_chunk(design, work)
        if page == NONE:
            page = _from_queue(design, work)
        if page != NONE or numbers[N_FLAGGED] == U0:
            return page
        n_chunks = ((design.at[N_PAGES] - U1) >> numbers[SHIFT]) + U1
        chunk = find_next(design.flagged, n_chunks, U0)
        work[SUMMARY_WORDS] += (chunk >> U6) + U1
        test_and_clear(design.flagged, chunk)
        numbers[N_FLAGGED] -= U1
        design.at[CURSOR] = chunk << numbers[SHIFT]
        numbers[CHUNK_END] = min((chunk + U1) << numbers[SHIFT], design.at[N_PAGES])


@pop.implement(State)
def _pop(design: State, meter: Meter) -> Any:
    numbers, work = design.numbers, meter.work
    if numbers[FIRST_PASS] != U0:
        page = pop_ahead(design.bits, design.at, work)
        if page != NONE:
            return page
        numbers[FIRST_PASS] = U0
    if numbers[LEAVE] == U64(BY_CHUNKS):
        return _from_chunks(design, work)
    if numbers[OVERFLOWED] != U0:
        page = pop_ahead(design.bits, design.at, work)
        if page != NONE:
            return page
        if numbers[LEAVE] != U64(BY_SCAN) or design.at[PENDING] > numbers[SIZE]:
            return pop_ahead(design.bits, design.at, work)
        _refill(design, work)
    return _from_queue(design, work)


@occupancy_max.implement(State)
def _occupancy_max(design: State) -> Any:
    most = design.numbers[USED_MAX]
    design.numbers[USED_MAX] = U0
    return most
