"""What every design with bitmap layers does with them, counted: fold L1 into L2, merge L2 into L3, walk L3.

The walk's state is one uint64 array: CURSOR the next page to look at, PENDING set bits of the map, N_PAGES its size,
REFIND 1 when a second search (bounded to the host page) follows each page sent. A walk goes from the cursor to the end
of memory, wraps once, and gives up when it meets the end again: amortised O(words) a round plus O(1) a page. `pop_*`
takes one page the way QEMU finds it; `peek_*` and `take_word` take up to 64 at once and count the same work.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.jit import NONE, U0, U1, U6, U63, U64, inlined, kernel
from replay.kernels.bitmap import find_next, fold, merge, next_touched, test_and_set
from replay.kernels.bits import highest_plus_one, popcount
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
    SIDE_MARKS,
)

CURSOR, PENDING, N_PAGES, REFIND = 0, 1, 2, 3
_ALL = U64(0xFFFF_FFFF_FFFF_FFFF)


def walk(n_pages: int, refind: bool, *, pending: int | None = None) -> np.ndarray:
    """The walk over a map in which every page is pending, or `pending` of them: uint64 (4,)."""
    return np.array([0, n_pages if pending is None else pending, n_pages, refind], dtype=np.uint64)


@kernel
def fold_layer(l1: np.ndarray, l2: np.ndarray, n_pages: Any, keep: bool, work: np.ndarray) -> None:
    """L1 into L2 over all words; L1 is cleared unless `keep`."""
    n_words = (n_pages + U63) >> U6
    touched, carried = fold(l1, l2, n_words, keep)
    work[L1_WORDS] += n_words
    work[L1_TOUCHED] += touched
    work[L1_PAGES] += carried
    work[FAN_OUT] += touched
    if not keep:
        work[L1_ZEROED] += n_words


@kernel
def merge_layer(l2: np.ndarray, l3: np.ndarray, at: np.ndarray, work: np.ndarray) -> Any:
    """L2 into L3 over all words, L2 cleared; returns the pages that became pending."""
    n_words = (at[N_PAGES] + U63) >> U6
    touched, carried, new = merge(l2, l3, n_words)
    work[L2_WORDS] += n_words
    work[L2_TOUCHED] += touched
    work[L2_PAGES] += carried
    at[PENDING] += new
    return new


@kernel
def _count_search(start: Any, page: Any, size: Any, work: np.ndarray) -> None:
    """One search from `start` that ended at `page`, or found nothing (page == size)."""
    work[FIND_CALLS] += U1
    if start < size:
        work[FIND_WORDS] += (min(page, size - U1) >> U6) - (start >> U6) + U1


@inlined
def pop_ahead(l3: np.ndarray, at: np.ndarray, work: np.ndarray) -> Any:
    """The next set page from the cursor to the end of memory, cleared; NONE, and the cursor at 0, if there is none."""
    size, cursor = at[N_PAGES], at[CURSOR]
    page = find_next(l3, size, cursor)
    _count_search(cursor, page, size, work)
    if page >= size:
        at[CURSOR] = U0
        return NONE
    l3[page >> U6] &= ~(U1 << (page & U63))
    work[REFIND_CALLS] += at[REFIND]
    at[CURSOR] = page + U1
    at[PENDING] -= U1
    return page


@inlined
def pop_around(l3: np.ndarray, at: np.ndarray, work: np.ndarray) -> Any:
    """`pop_ahead`, and once more from the start of memory; NONE when the map is clean."""
    page = NONE
    for wraps in range(2):
        work[ROUND_FLUSHES] += U64(wraps)
        page = pop_ahead(l3, at, work)
        if page != NONE:
            break
    return page


@kernel
def mark_aside(side: np.ndarray, at: np.ndarray, page: Any, work: np.ndarray) -> bool:
    """Note `page` in a side bitmap: for producers that can not wait for room in a queue. Whether it is new there."""
    if test_and_set(side, page):
        return False
    at[PENDING] += U1
    work[SIDE_MARKS] += U1
    return True


@kernel
def pop_aside(side: np.ndarray, at: np.ndarray, work: np.ndarray) -> Any:
    """The next page of a side bitmap; NONE, without a look at the map, when it is known to be clean."""
    if at[PENDING] == U0:
        return NONE
    return pop_around(side, at, work)


@kernel
def peek_ahead(l3: np.ndarray, at: np.ndarray, work: np.ndarray) -> Any:
    """(word, bits) of the next set pages from the cursor to the end; bits 0, and the cursor at 0, if there are none."""
    size, cursor = at[N_PAGES], at[CURSOR]
    if cursor < size:
        stop = (size + U63) >> U6
        word = cursor >> U6
        bits = l3[word] & (_ALL << (cursor & U63))
        if bits != U0:
            return word, bits
        word = next_touched(l3, word + U1, stop)
        if word < stop:
            return word, l3[word]
    _count_search(cursor, size, size, work)
    at[CURSOR] = U0
    return U0, U0


@kernel
def peek_around(l3: np.ndarray, at: np.ndarray, work: np.ndarray) -> Any:
    """`peek_ahead`, and once more from the start of memory; bits 0 when the map is clean."""
    word, bits = peek_ahead(l3, at, work)
    if bits == U0:
        work[ROUND_FLUSHES] += U1
        word, bits = peek_ahead(l3, at, work)
    return word, bits


@kernel
def take_word(l3: np.ndarray, at: np.ndarray, word: Any, bits: Any, work: np.ndarray) -> None:
    """Clear `bits` of `word`, as popping them one by one would have."""
    count = popcount(bits)
    l3[word] &= ~bits
    work[FIND_CALLS] += count
    work[FIND_WORDS] += word - (at[CURSOR] >> U6) + count
    work[REFIND_CALLS] += count * at[REFIND]
    at[CURSOR] = (word << U6) + highest_plus_one(bits)
    at[PENDING] -= count
