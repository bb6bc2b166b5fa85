"""Bitmaps with a summary: one bit for each group of pages that may hold a dirty one.

What: the three layers of today, each with a second, coarser bitmap above it. A group's bit is set with any page of the
group; syncs and searches look at a group's words only where its bit is set. `group` chooses the grain: 64 pages is a
summary bit for every word, 4096 or more are the per-chunk flags that a ring with fallback would need to know where to
look after it overflowed. How: marking sets two bits instead of one; a sync walks the summaries; the sender clears a
group's bit when it has walked the whole group and found nothing.

Cost: a sync is O(pages / (64 group) + dirty groups x group / 64), a round's searches the same; marking is O(1). Nothing
overflows and no producer waits. Bad when dirty pages are spread thinly over all groups: then it reads what the plain
bitmap reads, and the summaries on top. Under `kvm-bitmap` L1 is the kernel's copy without a summary and is read whole.

Models: no posted code; the competitor that the thread does not mention. Layers as in designs/bitmap.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from replay.jit import NONE, U0, U1, U6, U63, U64, kernel
from replay.kernels import memory
from replay.kernels.bitmap import find_next, next_touched, test_and_set
from replay.kernels.bits import highest_plus_one, lowest, popcount
from replay.kernels.layers import CURSOR, N_PAGES, PENDING, REFIND, walk
from replay.plugins import param
from replay.verbs import GuestShape, Meter, fold_slots, mark_ram, mark_slot, peek, pending, pop, sync, take
from replay.work import (
    FAN_OUT,
    FIND_CALLS,
    FIND_WORDS,
    L1_PAGES,
    L1_TOUCHED,
    L1_WORDS,
    L1_ZEROED,
    L2_PAGES,
    L2_TOUCHED,
    L2_WORDS,
    REFIND_CALLS,
    ROUND_FLUSHES,
    SUMMARY_WORDS,
    SYNC_SUMMARY_WORDS,
)

SHIFT, N_GROUPS, PEEKED = 0, 1, 2
_ALL = U64(0xFFFF_FFFF_FFFF_FFFF)


@dataclass(frozen=True, kw_only=True)
class Config:
    group: int = param(
        64, "pages a bit of the summary stands for", unit="pages", low=64, high=16777216, power_of_two=True
    )
    host_page_refind: bool = param(False, "search again, bounded to the host page, after each page sent")


class State(NamedTuple):
    """Bitmaps and their summaries."""

    s1: np.ndarray  # uint64 (n_group_words,)  groups of the slot bitmap that may hold a set bit
    l2: np.ndarray  # uint64 (n_words,)  ram_list.dirty_memory[MIGRATION]
    s2: np.ndarray  # uint64 (n_group_words,)  its groups
    l3: np.ndarray  # uint64 (n_words,)  RAMBlock.bmap: pages waiting to be sent
    s3: np.ndarray  # uint64 (n_group_words,)  its groups
    at: np.ndarray  # uint64 (4,)  the walk over L3, see kernels/layers.py
    sizes: np.ndarray  # uint64 (3,)  SHIFT log2 of the pages a group, N_GROUPS, PEEKED word found and not taken, plus 1


def build(config: Config, shape: GuestShape) -> State:
    """Every page pending."""
    shift = config.group.bit_length() - 1
    n_groups = -(-shape.n_pages // config.group)
    n_group_words = max(8, -(-n_groups // 512) * 8)
    return State(
        s1=memory.words(n_group_words),
        l2=memory.words(shape.n_words),
        s2=memory.words(n_group_words),
        l3=memory.ones_up_to(shape.n_pages, shape.n_words),
        s3=memory.ones_up_to(n_groups, n_group_words),
        at=walk(shape.n_pages, config.host_page_refind),
        sizes=np.array([shift, n_groups, 0], dtype=np.uint64),
    )


@mark_ram.implement(State)
def _mark_ram(design: State, page: Any, meter: Meter) -> None:
    test_and_set(design.l2, page)
    test_and_set(design.s2, page >> design.sizes[SHIFT])


@mark_slot.implement(State)
def _mark_slot(design: State, slots: np.ndarray, page: Any, meter: Meter) -> bool:
    test_and_set(design.s1, page >> design.sizes[SHIFT])
    return not test_and_set(slots, page)


@kernel
def _group_words(sizes: np.ndarray, n_pages: Any, group: Any) -> Any:
    """[first, stop): the words of a group."""
    per_group = U1 << (sizes[SHIFT] - U6)
    first = group * per_group
    return first, min(first + per_group, (n_pages + U63) >> U6)


@kernel
def _carry(source: np.ndarray, target: np.ndarray, first: Any, stop: Any) -> Any:
    """target |= source, source = 0 over a range of words; (touched words, pages, pages new in target)."""
    touched, carried, new = U0, U0, U0
    for word in range(first, stop):
        bits = source[word]
        if bits != U0:
            touched += U1
            carried += popcount(bits)
            new += popcount(bits & ~target[word])
            target[word] |= bits
            source[word] = U0
    return touched, carried, new


@fold_slots.implement(State)
def _fold_slots(design: State, slots: np.ndarray, keep: bool, meter: Meter) -> None:
    work, sizes, n_pages = meter.work, design.sizes, design.at[N_PAGES]
    if keep:
        n_words = (n_pages + U63) >> U6
        work[L1_WORDS] += n_words
        word = next_touched(slots, U0, n_words)
        while word < n_words:
            work[L1_TOUCHED] += U1
            work[FAN_OUT] += U1
            work[L1_PAGES] += popcount(slots[word])
            design.l2[word] |= slots[word]
            test_and_set(design.s2, (word << U6) >> sizes[SHIFT])
            word = next_touched(slots, word + U1, n_words)
        return
    work[SYNC_SUMMARY_WORDS] += (sizes[N_GROUPS] + U63) >> U6
    group = find_next(design.s1, sizes[N_GROUPS], U0)
    while group < sizes[N_GROUPS]:
        first, stop = _group_words(sizes, n_pages, group)
        touched, carried, _ = _carry(slots, design.l2, first, stop)
        work[L1_WORDS] += stop - first
        work[L1_ZEROED] += stop - first
        work[L1_TOUCHED] += touched
        work[FAN_OUT] += touched
        work[L1_PAGES] += carried
        design.s1[group >> U6] &= ~(U1 << (group & U63))
        test_and_set(design.s2, group)
        group = find_next(design.s1, sizes[N_GROUPS], group + U1)


@sync.implement(State)
def _sync(design: State, meter: Meter) -> Any:
    work, sizes = meter.work, design.sizes
    work[SYNC_SUMMARY_WORDS] += (sizes[N_GROUPS] + U63) >> U6
    new = U0
    group = find_next(design.s2, sizes[N_GROUPS], U0)
    while group < sizes[N_GROUPS]:
        first, stop = _group_words(sizes, design.at[N_PAGES], group)
        design.s2[group >> U6] &= ~(U1 << (group & U63))  # before its words: a mark in between sets it again
        touched, carried, fresh = _carry(design.l2, design.l3, first, stop)
        work[L2_WORDS] += stop - first
        work[L2_TOUCHED] += touched
        work[L2_PAGES] += carried
        new += fresh
        test_and_set(design.s3, group)
        group = find_next(design.s2, sizes[N_GROUPS], group + U1)
    design.at[PENDING] += new
    return new


@pending.implement(State)
def _pending(design: State) -> Any:
    return design.at[PENDING]


@kernel
def _ahead(design: State, work: np.ndarray) -> Any:
    """(word, bits) of the next set pages from the cursor to the end; bits 0, and the cursor at 0, if there are none.

    A group that was walked from its first word and held nothing loses its summary bit.
    """
    at, sizes = design.at, design.sizes
    work[FIND_CALLS] += U1
    cursor, n_groups = at[CURSOR], sizes[N_GROUPS]
    group = cursor >> sizes[SHIFT]
    if cursor < at[N_PAGES]:
        work[SUMMARY_WORDS] += U1
        found = find_next(design.s3, n_groups, group)
        work[SUMMARY_WORDS] += (min(found, n_groups - U1) >> U6) - (group >> U6)
        while found < n_groups:
            first, stop = _group_words(sizes, at[N_PAGES], found)
            start = max(first, cursor >> U6)
            mask = _ALL << (cursor & U63) if start == cursor >> U6 and cursor >> sizes[SHIFT] == found else _ALL
            if design.l3[start] & mask != U0:
                work[FIND_WORDS] += U1
                return start, design.l3[start] & mask
            word = next_touched(design.l3, start + U1, stop)
            work[FIND_WORDS] += min(word, stop - U1) - start + U1
            if word < stop:
                return word, design.l3[word]
            if start == first and mask == _ALL:
                design.s3[found >> U6] &= ~(U1 << (found & U63))
            after = find_next(design.s3, n_groups, found + U1)
            work[SUMMARY_WORDS] += (min(after, n_groups - U1) >> U6) - (found >> U6)
            found = after
    at[CURSOR] = U0
    return U0, U0


@kernel
def _around(design: State, work: np.ndarray) -> Any:
    word, bits = _ahead(design, work)
    if bits == U0:
        work[ROUND_FLUSHES] += U1
        word, bits = _ahead(design, work)
    return word, bits


@pop.implement(State)
def _pop(design: State, meter: Meter) -> Any:
    word, bits = _around(design, meter.work)
    if bits == U0:
        return NONE
    page = (word << U6) + lowest(bits)
    design.l3[word] &= ~(U1 << (page & U63))
    meter.work[REFIND_CALLS] += design.at[REFIND]
    design.at[CURSOR] = page + U1
    design.at[PENDING] -= U1
    return page


@peek.implement(State)
def _peek(design: State, meter: Meter) -> Any:
    sizes = design.sizes
    if sizes[PEEKED] != U0:
        word = sizes[PEEKED] - U1
        from_cursor = design.at[CURSOR] >> U6 == word
        return word, design.l3[word] & (_ALL << (design.at[CURSOR] & U63) if from_cursor else _ALL)
    word, bits = _around(design, meter.work)
    sizes[PEEKED] = word + U1 if bits != U0 else U0
    return word, bits


@take.implement(State)
def _take(design: State, word: Any, bits: Any, meter: Meter) -> None:
    work, at, count = meter.work, design.at, popcount(bits)
    further = count - U1 if design.sizes[PEEKED] != U0 else count  # peek has counted the first one's search
    work[FIND_CALLS] += further
    work[FIND_WORDS] += further
    work[SUMMARY_WORDS] += further
    work[REFIND_CALLS] += count * at[REFIND]
    design.l3[word] &= ~bits
    at[CURSOR] = (word << U6) + highest_plus_one(bits)
    at[PENDING] -= count
    design.sizes[PEEKED] = U0
