"""From a bitmap to numbers: which words are not zero, and which bits are set.

Two passes over a block of words that stays in the cache. First the indices of the words that are not zero are listed
without a branch for each word: between 1 in 1,000 and 1 in 20 pages dirty, one that asks "is it zero?" is guessed
wrong so often that it takes most of the time. Then the positions of each listed word are written, more of them than
are needed, and the place moves on by how many there are.

Where the processor compresses vectors, both passes handle eight words, or 64 bits, at once. The portable twins give
the same answers on any processor, and in plain Python. O(words + set bits).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.jit import U0, U1, U6, U64, kernel
from replay.kernels.bits import lowest, popcount
from replay.kernels.vector import COMPRESSES, any_of_32, list_bits, list_of_8

BLOCK = 1024
SPARE_WORDS = 8
SPARE_PAGES = 64
_BLOCK, _U2, _U4, _U8, _U16, _U24, _U32 = U64(BLOCK), U64(2), U64(4), U64(8), U64(16), U64(24), U64(32)
_ROOM = U64(SPARE_PAGES)


def new_list() -> np.ndarray:
    """Room for the indices of one block's words: uint32 (BLOCK + SPARE_WORDS,)."""
    return np.zeros(BLOCK + SPARE_WORDS, dtype=np.uint32)


@kernel
def list_portable(words: np.ndarray, first: Any, stop: Any, listed: np.ndarray) -> Any:
    count = U0
    for index in range(first, stop):
        listed[count] = index
        count += U64(words[index] != U0)
    return count


@kernel
def list_by_vector(words: np.ndarray, first: Any, stop: Any, listed: np.ndarray) -> Any:
    count, index = U0, first
    while index + _U32 <= stop:
        if any_of_32(words, index):
            count += list_of_8(words, index, listed, count)
            count += list_of_8(words, index + _U8, listed, count)
            count += list_of_8(words, index + _U16, listed, count)
            count += list_of_8(words, index + _U24, listed, count)
        index += _U32
    while index + _U8 <= stop:
        count += list_of_8(words, index, listed, count)
        index += _U8
    while index < stop:
        listed[count] = index
        count += U64(words[index] != U0)
        index += U1
    return count


list_touched: Any = list_by_vector if COMPRESSES else list_portable
"""list_touched(words, first, stop, listed): put the indices of those of words[first : stop], at most BLOCK, that are
not zero into `listed` (uint32), ascending; how many they are. `listed` has SPARE_WORDS more places than words."""


@kernel
def _put_bits(bits: Any, first: Any, pages: np.ndarray, place: Any) -> Any:
    """`first` plus the position of each set bit to pages[place:], in steps of four; how many."""
    count = popcount(bits)
    end = place + count
    while place < end:
        pages[place] = first + lowest(bits)
        bits &= bits - U1
        pages[place + U1] = first + lowest(bits)
        bits &= bits - U1
        pages[place + _U2] = first + lowest(bits)
        bits &= bits - U1
        pages[place + U64(3)] = first + lowest(bits)
        bits &= bits - U1
        place += _U4
    return count


@kernel
def decode_portable(words: np.ndarray, first: Any, stop: Any, listed: np.ndarray, pages: np.ndarray) -> Any:
    """`decode` on any processor."""
    found, room = U0, U64(pages.size) - _ROOM
    while first < stop:
        end = min(first + _BLOCK, stop)
        for entry in range(list_portable(words, first, end, listed)):
            index = U64(listed[entry])
            if found > room:
                return found, index
            found += _put_bits(words[index], index << U6, pages, found)
        first = end
    return found, stop


@kernel
def decode_by_vector(words: np.ndarray, first: Any, stop: Any, listed: np.ndarray, pages: np.ndarray) -> Any:
    """`decode` where vectors can be compressed."""
    found, room = U0, U64(pages.size) - _ROOM
    while first < stop:
        end = min(first + _BLOCK, stop)
        for entry in range(list_by_vector(words, first, end, listed)):
            index = U64(listed[entry])
            if found > room:
                return found, index
            found += list_bits(words[index], index << U6, pages, found)
        first = end
    return found, stop


decode: Any = decode_by_vector if COMPRESSES else decode_portable
"""decode(words, first, stop, listed, pages): the positions of the set bits of words[first : stop] to `pages` (uint32),
ascending. Returns how many, and the first word that was left: `stop`, unless `pages` had fewer than SPARE_PAGES places
free before it. Places behind those counted may be written to; `listed` comes from `new_list`."""
