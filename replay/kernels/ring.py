"""Bounded queues of page numbers, all of one size in one array.

A queue is two free-running uint64 counters, `head` (next to take) and `tail` (next to put); their difference is the
number of entries, the slot is `counter & (size - 1)`. There is no "is it full or empty" flag to get wrong. O(1) an
entry. Bad when the producer is faster than the consumer for long: something must then wait, be dropped or be remembered
elsewhere, which is what the ring designs differ in. `size` is a power of two; queue q has its slots at q * size, its
head at ends[2 q] and its tail at ends[2 q + 1].
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.jit import U1, U64, kernel

_U2 = U64(2)


@kernel
def used(ends: np.ndarray, queue: Any) -> Any:
    """Entries in `queue`."""
    return ends[_U2 * queue + U1] - ends[_U2 * queue]


@kernel
def push(slots: np.ndarray, ends: np.ndarray, queue: Any, size: Any, page: Any) -> bool:
    """Put `page`; False, and nothing changed, when the queue is full."""
    tail = ends[_U2 * queue + U1]
    if tail - ends[_U2 * queue] >= size:
        return False
    slots[queue * size + (tail & (size - U1))] = page
    ends[_U2 * queue + U1] = tail + U1
    return True


@kernel
def entry(slots: np.ndarray, queue: Any, size: Any, index: Any) -> Any:
    """The entry that the free-running counter `index` points at."""
    return U64(slots[queue * size + (index & (size - U1))])


@kernel
def advance(ends: np.ndarray, queue: Any, count: Any) -> None:
    """Drop the `count` oldest entries."""
    ends[_U2 * queue] += count


@kernel
def empty(ends: np.ndarray, queue: Any) -> None:
    """Drop all entries."""
    ends[_U2 * queue] = ends[_U2 * queue + U1]
