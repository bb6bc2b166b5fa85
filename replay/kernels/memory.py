"""Where state comes from: arrays that are written once when they are made.

A page of memory that was never written is a shared zero page: a scan over fresh `np.zeros` measured 100 to 300 times
slower at first touch and then unrealistically fast. Everything here is filled, hence resident, before a kernel sees it,
except for maps that most guests never write to (`unused`): those of a 12 TiB guest are 384 MiB each.

NumPy asks for huge pages where an array has 4 MiB and more. For 8 million random bits of the maps of 1 TiB and 12 TiB
guests that measured 4.4 and 8.0 ns a bit, 5.2 and 9.1 without (NUMPY_MADVISE_HUGEPAGE=0); smaller maps gain nothing.
"""

from __future__ import annotations

import numpy as np


def words(count: int, fill: int = 0) -> np.ndarray:
    """`count` uint64 words, each holding `fill`; every page touched."""
    array = np.empty(count, dtype=np.uint64)
    array.fill(np.uint64(fill))
    return array


def unused(count: int) -> np.ndarray:
    """`count` uint64 words, all zero, that take no memory until they are written to: for what is rarely used at all."""
    return np.zeros(count, dtype=np.uint64)


def ones_up_to(n_bits: int, n_words: int) -> np.ndarray:
    """A bitmap of `n_words` words whose first `n_bits` bits are set, the rest clear."""
    array = words(n_words)
    full, rest = divmod(n_bits, 64)
    array[:full] = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
    if rest:
        array[full] = np.uint64((1 << rest) - 1)
    return array


def pages(count: int) -> np.ndarray:
    """`count` page numbers (uint64 entries of a queue, as in the posted patch: 8 bytes each), all zero."""
    return words(count)
