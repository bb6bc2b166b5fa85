"""Bitmaps of dirty pages: find, merge, fold.

A bitmap is a uint64 array, bit p % 64 of word p // 64 for page p, padded with zero words to a multiple of 8. Searching
costs one step for eight clean words (QEMU's own search takes four; eight made up for what LLVM loses to gcc here);
merging is O(words) with blocks of clean words skipped after one vectorised look. Bad when nearly everything is clean
and the map is far larger than the cache: see hierarchical designs. Models util/bitops.c and
cpu_physical_memory_sync_dirty_bitmap by their described behaviour.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.jit import U0, U1, U6, U63, U64, kernel, touched8
from replay.kernels.bits import lowest, popcount

_U5, _U8 = U64(5), U64(8)
_BLOCK, _RUN = U64(512), U64(2048)
_ALL = U64(0xFFFF_FFFF_FFFF_FFFF)


@kernel
def next_touched(words: np.ndarray, index: Any, stop: Any) -> Any:
    """The first index in [index, stop) whose word is not zero; `stop` when there is none."""
    while index + _U8 <= stop:
        mask = touched8(words, index)
        if mask != U0:
            return index + lowest(mask)
        index += _U8
    while index < stop:
        if words[index] != U0:
            return index
        index += U1
    return stop


@kernel
def find_next(words: np.ndarray, size: Any, offset: Any) -> Any:
    """The first set bit at or after `offset`; `size` (in bits) when there is none."""
    if offset >= size:
        return size
    index = offset >> U6
    bits = words[index] & (_ALL << (offset & U63))
    if bits == U0:
        stop = (size + U63) >> U6
        index = next_touched(words, index + U1, stop)
        if index >= stop:
            return size
        bits = words[index]
    return (index << U6) + lowest(bits)


@kernel
def test_and_clear(words: np.ndarray, page: Any) -> bool:
    """Clear the bit of `page`; whether it was set."""
    index, bit = page >> U6, U1 << (page & U63)
    was = (words[index] & bit) != U0
    words[index] &= ~bit
    return was


@kernel
def test_and_set(words: np.ndarray, page: Any) -> bool:
    """Set the bit of `page`; whether it was set before."""
    index, bit = page >> U6, U1 << (page & U63)
    was = (words[index] & bit) != U0
    words[index] |= bit
    return was


@kernel
def count_set(words: np.ndarray) -> Any:
    """Number of set bits."""
    total = U0
    for index in range(words.size):
        total += popcount(words[index])
    return total


@kernel
def _merge_run(source: np.ndarray, target: np.ndarray, start: Any, stop: Any) -> Any:
    """Words [start, stop) of a merge without a branch, which LLVM turns into vector code."""
    touched, carried, new = U0, U0, U0
    for index in range(start, stop):
        bits, old = source[index], target[index]
        touched += U64(bits != U0)
        carried += popcount(bits)
        new += popcount(bits & ~old)
        target[index] = old | bits
        source[index] = U0
    return touched, carried, new


@kernel
def merge(source: np.ndarray, target: np.ndarray, n_words: Any) -> Any:
    """target |= source; source = 0. Returns (words touched, pages carried, pages new in target).

    Eight words are looked at with one vector compare and only the touched ones visited. After a
    block with more than 1 word in 32 touched, runs of 2048 words are merged whole, without looking, while that holds.
    Looking always measured 1.4 times C's time on a dense source, never looking 1.5 times C's on an empty one.
    """
    touched, carried, new = U0, U0, U0
    start = U0
    dense = False
    while start < n_words:
        stop = min(start + (_RUN if dense else _BLOCK), n_words)
        if dense:
            words, pages, fresh = _merge_run(source, target, start, stop)
            touched += words
            carried += pages
            new += fresh
            dense = words << _U5 > stop - start
        else:
            words, group = U0, start
            while group < stop:
                mask = touched8(source, group)
                while mask != U0:
                    index = group + lowest(mask)
                    mask &= mask - U1
                    words += U1
                    bits, old = source[index], target[index]
                    carried += popcount(bits)
                    new += popcount(bits & ~old)
                    target[index] = old | bits
                    source[index] = U0
                group += _U8
            touched += words
            dense = words << _U5 > stop - start
        start = stop
    return touched, carried, new


@kernel
def _fold_run(source: np.ndarray, target: np.ndarray, start: Any, stop: Any, kept: Any) -> Any:
    """Words [start, stop) of a fold without a branch; `kept`: all ones to keep the source, zero to clear it."""
    touched, carried = U0, U0
    for index in range(start, stop):
        bits = source[index]
        touched += U64(bits != U0)
        carried += popcount(bits)
        target[index] |= bits
        source[index] = bits & kept
    return touched, carried


@kernel
def fold(source: np.ndarray, target: np.ndarray, n_words: Any, keep: bool) -> Any:
    """target |= source; source = 0 unless `keep`. Returns (words touched, pages carried). Looks as `merge` does."""
    touched, carried = U0, U0
    start = U0
    dense = False
    kept = _ALL if keep else U0
    while start < n_words:
        stop = min(start + (_RUN if dense else _BLOCK), n_words)
        if dense:
            words, pages = _fold_run(source, target, start, stop, kept)
            touched += words
            carried += pages
            dense = words << _U5 > stop - start
        else:
            words, group = U0, start
            while group < stop:
                mask = touched8(source, group)
                while mask != U0:
                    index = group + lowest(mask)
                    mask &= mask - U1
                    words += U1
                    bits = source[index]
                    carried += popcount(bits)
                    target[index] |= bits
                    source[index] = bits & kept
                group += _U8
            touched += words
            dense = words << _U5 > stop - start
        start = stop
    return touched, carried
