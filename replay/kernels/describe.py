"""What a stream of writes looks like: pages of a window, extents, runs, reuse times and reuse distances.

*Windows.* A bitmap holds the pages of the window under way; its set bits are the working set, its stretches of set bits
the extents. O(1) an event and O(pages / 64) a window, eight clean words at a time. *Runs.* For each vCPU the page it
wrote last and the length of the run it is in. O(1) an event. *Reuse.* The distance of a rewrite is the number of other
pages written since the page's last write (its LRU stack distance). Every page ever written owns one position on a line,
that of its last write: the distance is the number of owned positions behind it. They are bits, counted by POPCNT within
blocks of 512 and by a Fenwick tree (Fenwick 1994) over the blocks, which a block enters when the line has passed it:
O(log(positions / 512)) an event in a few KiB of cache, against O(log positions) in megabytes for a tree over positions
(Bennett and Kruskal 1975; Olken 1981). A full line is compacted: O(pages). Bad when memory is vast and hardly written:
compaction looks at every page up to the highest.

Histograms of times and distances have four buckets an octave: bucket 4 * (e - 1) + q holds x with highest bit e and the
next two bits q (x below 4: bucket x).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from replay.jit import U0, U1, U6, U63, U64, kernel, touched8
from replay.kernels.bits import highest_plus_one, lowest, popcount

BLOCK_BITS = 512
BUCKETS = 252
NEXT, LIVE, IN_BLOCK, FIRST_WRITES = range(4)
_U2, _U3, _U8, _U9 = U64(2), U64(3), U64(8), U64(9)
_ALL, _LOW, ONE_WRITE = U64(0xFFFF_FFFF_FFFF_FFFF), U64(0xFFFF_FFFF), U64(1 << 32)


class Line(NamedTuple):
    """The positions of last writes. `state`: next position, owned ones, owned ones in the last block, first writes."""

    bits: np.ndarray  # uint64 (capacity / 64,)  bit n: position n is some page's last write
    tree: np.ndarray  # uint64 (capacity / 512 + 1,)  Fenwick sums of owned positions of passed blocks, from index 1
    state: np.ndarray  # uint64 (4,)


@kernel
def bucket(x: Any) -> Any:
    """The histogram bucket of a uint64."""
    top = highest_plus_one(x)
    if top <= _U2:
        return x
    return ((top - _U2) << _U2) + ((x >> (top - _U3)) & _U3)


@kernel
def mark_pages(page: np.ndarray, first: int, last: int, words: np.ndarray) -> Any:
    """Set the bits of page[first:last] (uint32). Returns how many were clear before."""
    new = U0
    for row in range(first, last):
        number = U64(page[row])
        index, bit = number >> U6, U1 << (number & U63)
        old = words[index]
        new += U64((old & bit) == U0)
        words[index] = old | bit
    return new


@kernel
def take_extents(words: np.ndarray, counts: np.ndarray) -> Any:
    """Count the stretches of set bits by length into counts (the last one: that long or longer), and clear all words.

    words: uint64, a multiple of 8 of them. Returns how many stretches there were.
    """
    found, length, most = U0, U0, U64(counts.size - 1)
    n_words, index = U64(words.size), U0
    while index < n_words:
        if length == U0 and (index & (_U8 - U1)) == U0 and touched8(words, index) == U0:
            index += _U8
            continue
        bits, left = words[index], U64(64)
        words[index] = U0
        while left > U0:
            if bits == _ALL and left == U64(64):
                length, left = length + left, U0
            elif bits & U1:
                ones = min(lowest(~bits), left)
                length, left, bits = length + ones, left - ones, bits >> ones
            else:
                if length > U0:
                    counts[min(length, most)] += U1
                    found, length = found + U1, U0
                zeros = left if bits == U0 else lowest(bits)
                left, bits = left - zeros, bits >> zeros if zeros < U64(64) else U0
        index += U1
    if length > U0:
        counts[min(length, most)] += U1
        found += U1
    return found


@kernel
def count_runs(page: np.ndarray, vcpu: np.ndarray, last: np.ndarray, length: np.ndarray, counts: np.ndarray) -> Any:
    """Go through writes and count finished runs by length into counts (the last one: that long or longer).

    A run is a vCPU's writes to pages each one above the one before; writing the same page again does not end it.
    last (int64, -1: none yet) and length (uint64) hold each vCPU's page and run under way. Returns finished runs.
    """
    finished, most = U0, U64(counts.size - 1)
    for row in range(page.size):
        who, number = vcpu[row], np.int64(page[row])
        before = last[who]
        if number == before:
            continue
        if number == before + 1 and before >= 0:
            length[who] += U1
        else:
            if before >= 0:
                counts[min(length[who], most)] += U1
                finished += U1
            length[who] = U1
        last[who] = number
    return finished


@kernel
def _owned_up_to(bits: np.ndarray, tree: np.ndarray, place: Any) -> Any:
    """Owned positions at or before `place`; the tree must hold all blocks before its own."""
    block, word = place >> _U9, place >> U6
    total, index = U0, block
    while index > U0:
        total += tree[index]
        index &= index - U1
    for other in range(block << _U3, word):
        total += popcount(bits[other])
    return total + popcount(bits[word] & (_ALL >> (U63 - (place & U63))))


@kernel
def _add(tree: np.ndarray, block: Any, amount: Any) -> None:
    """Add to a block's sum, modulo 2^64."""
    index, size = block + U1, U64(tree.size)
    while index < size:
        tree[index] += amount
        index += index & (~index + U1)


@kernel
def reuse(
    t_ns: np.ndarray,
    page: np.ndarray,
    first: int,
    pages: np.ndarray,
    line: Line,
    times: np.ndarray,
    distances: np.ndarray,
) -> Any:
    """Go through the writes from row `first` on until the end or until the line is full; returns the row reached.

    t_ns uint64 (n,), page uint32 (n,). pages: uint64 (pages, 2): time of the last write in ns; place (1 + position, 0:
    never written) in the low 32 bits beside the number of writes in the high ones, so that an event costs one cache
    miss here, not three. times and distances: uint64 (BUCKETS,), counted up for every rewrite.
    """
    bits, tree, state = line.bits, line.tree, line.state
    capacity = U64(bits.size) << U6
    position, live, in_block = state[NEXT], state[LIVE], state[IN_BLOCK]
    row = first
    while row < page.size and position < capacity:
        number = page[row]
        record = pages[number, 1]
        owned = record & _LOW
        if owned > U0:
            own = owned - U1
            times[bucket(t_ns[row] - pages[number, 0])] += U1
            distances[bucket(live - _owned_up_to(bits, tree, own))] += U1
            bits[own >> U6] &= ~(U1 << (own & U63))
            if own >> _U9 == position >> _U9:
                in_block -= U1
            else:
                _add(tree, own >> _U9, _ALL)
        else:
            live += U1
            state[FIRST_WRITES] += U1
        bits[position >> U6] |= U1 << (position & U63)
        in_block += U1
        position += U1
        pages[number, 0] = t_ns[row]
        pages[number, 1] = record - owned + position + ONE_WRITE
        if position & U64(BLOCK_BITS - 1) == U0:
            _add(tree, (position >> _U9) - U1, in_block)
            in_block = U0
        row += 1
    state[NEXT], state[LIVE], state[IN_BLOCK] = position, live, in_block
    return row


@kernel
def compact(pages: np.ndarray, old: np.ndarray, before: np.ndarray) -> None:
    """Renumber the owned positions of bitmap `old` from 0 in their order; before: uint64 (old.size,), overwritten."""
    total = U0
    for word in range(old.size):
        before[word] = total
        total += popcount(old[word])
    for number in range(pages.shape[0]):
        owned = pages[number, 1] & _LOW
        if owned > U0:
            own = owned - U1
            below = popcount(old[own >> U6] & ((U1 << (own & U63)) - U1))
            pages[number, 1] += before[own >> U6] + below + U1 - owned


@kernel
def rebuild(line: Line) -> None:
    """Make the line's first state[LIVE] positions owned and all others free, and the next one the first free."""
    bits, tree, state = line.bits, line.tree, line.state
    live = state[LIVE]
    for word in range(bits.size):
        begin = U64(word) << U6
        if begin + U64(64) <= live:
            bits[word] = _ALL
        elif begin < live:
            bits[word] = (U1 << (live - begin)) - U1
        else:
            bits[word] = U0
    tree[:] = U0
    full = live >> _U9
    for block in range(full):
        _add(tree, U64(block), U64(BLOCK_BITS))
    state[NEXT], state[IN_BLOCK] = live, live - (full << _U9)


@kernel
def count_cells(
    t_ns: np.ndarray, page: np.ndarray, begin_ns: Any, span_ns: Any, low: Any, pages: Any, cells: np.ndarray
) -> Any:
    """Count writes into cells[row, column] (uint64), rows over pages, columns over time; returns how many were inside.

    Time t falls into column (t - begin_ns) * columns // span_ns, page p into row (p - low) * rows // pages.
    """
    n_rows, n_columns = U64(cells.shape[0]), U64(cells.shape[1])
    inside = U0
    for event in range(page.size):
        after, above = t_ns[event] - begin_ns, U64(page[event]) - low  # below zero they wrap to huge numbers
        if after < span_ns and above < pages:
            cells[above * n_rows // pages, after * n_columns // span_ns] += U1
            inside += U1
    return inside
