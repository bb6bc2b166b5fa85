"""Loops that `replay calibrate` times: one operation, over and over, on warm state. O(n); they count nothing new."""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.jit import NONE, U0, U1, U64, kernel
from replay.kernels.layers import pop_around
from replay.kernels.ring import advance, entry, push


@kernel
def find_all(l3: np.ndarray, at: np.ndarray, work: np.ndarray) -> Any:
    """Pop until nothing is pending; returns how many pages."""
    count = U0
    while pop_around(l3, at, work) != NONE:
        count += U1
    return count


@kernel
def push_all(slots: np.ndarray, ends: np.ndarray, size: Any) -> Any:
    """Fill queue 0; returns the entries pushed."""
    count = U0
    while push(slots, ends, U0, size, count):
        count += U1
    return count


@kernel
def pop_all(slots: np.ndarray, ends: np.ndarray, size: Any) -> Any:
    """Empty queue 0; returns the sum of its entries."""
    total = U0
    while ends[0] != ends[1]:
        total += entry(slots, U0, size, ends[0])
        advance(ends, U0, U1)
    return total


@kernel
def first_nonzero(words: np.ndarray, page_words: Any) -> Any:
    """The zero check of pages of `page_words` words: pages found to hold data."""
    found = U0
    for first in range(0, words.size, page_words):
        for index in range(first, first + page_words):
            if words[index] != U0:
                found += U1
                break
    return found + U64(0)
