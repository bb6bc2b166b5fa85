"""A recorded guest in memory of another size: embedded in it, tiled over it, or stretched to it.

*embed*: the recording's pages keep their numbers, the rest of the larger guest is never written. Rate, working set,
run lengths and reuse stay; the density falls. *tile*: as many copies of the recorded guest as fit stand side by side,
each playing the same recording from its own seeded phase. Rate and working set grow with memory, vCPUs stay as many as
recorded, so that only one thing changes. *stretch*: the written parts of memory stay whole and move apart (or together:
only this one also makes memory smaller), the unwritten memory between them grows in proportion. Rate, working set, run
lengths and reuse stay; the writes are spread over all of memory as the recorded ones were.

None of them says what the program would have done with more memory: a guest whose data grow with it is not stretched by
this, and only a recording of the other size can tell how far off that is (`replay trace stat SMALL --against LARGE`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from replay.errors import UsageError
from replay.kernels import memory
from replay.trace.events import Array
from replay.trace.metadata_checks import MAX_PAGES
from replay.units import format_bytes

FITS = ("embed", "tile", "stretch")
_U = np.uint64
_PART = 1 << 22


def pages_in(memory_bytes: int | None, page_size: int, recorded: int) -> int:
    """Pages of the resized guest (None: as recorded). Raises UsageError for no whole number of pages, or too many."""
    if memory_bytes is None:
        return recorded
    if memory_bytes % page_size or memory_bytes <= 0:
        raise UsageError(f"memory of {memory_bytes} bytes is not a whole number of pages of {page_size} bytes")
    if memory_bytes // page_size > MAX_PAGES:
        raise UsageError(
            f"memory of {format_bytes(memory_bytes)} has more pages than a uint32 counts (16 TiB at 4 KiB)"
        )
    return memory_bytes // page_size


def check_room(n_pages: int, recorded: int, page_size: int) -> None:
    """Raises UsageError when a recorded guest is to be embedded in a smaller one."""
    if n_pages < recorded:
        raise UsageError(
            f"memory {format_bytes(n_pages * page_size)} is less than the recorded guest's "
            f"{format_bytes(recorded * page_size)}; choose at least that, or stretch it (which also shrinks)"
        )


def copies_in(n_pages: int, recorded: int, page_size: int) -> int:
    """How many recorded guests fit side by side. Raises UsageError for none."""
    if n_pages < recorded:
        raise UsageError(f"memory is less than one copy of the recorded guest ({format_bytes(recorded * page_size)})")
    return n_pages // recorded


def phases_ns(seed: int, copies: int, duration_ns: int) -> Array:
    """(copies,) uint64: where in the recording each copy begins; the first one at its start."""
    phases = np.random.default_rng(seed).integers(0, duration_ns, copies, dtype=np.uint64)
    phases[0] = 0
    return phases


def pieces(low: int, high: int, duration_ns: int) -> Iterator[tuple[int, int, int]]:
    """[low, high) of an endlessly repeated recording: ranges of the recording, and what to add to their times."""
    while low < high:
        turn, at = divmod(low, duration_ns)
        length = min(high - low, duration_ns - at)
        yield at, at + length, turn * duration_ns
        low += length


def with_rest(own: Array, n_own: int, n_pages: int, n_words: int, rest_is_zero: bool) -> Array:
    """`own` for the first `n_own` pages, then zero pages (or none) up to the guest's end: (n_words,) uint64."""
    bits = memory.ones_up_to(n_pages, n_words) if rest_is_zero else memory.words(n_words)
    full, odd = divmod(n_own, 64)
    bits[:full] = own[:full]
    if odd:
        low = _U((1 << odd) - 1)
        bits[full] = (bits[full] & ~low) | (own[full] & low)
    return bits


def tiled(own: Array, n_own: int, copies: int) -> Array:
    """The bitmap `own` of `n_own` pages repeated `copies` times, without a gap, padded to whole words."""
    flags = np.unpackbits(own.view(np.uint8), bitorder="little")[:n_own]
    return packed(np.concatenate([flags] * copies))


def packed(flags: Array) -> Array:
    """Flags (uint8 or bool, one a page) as a bitmap of whole uint64 words."""
    octets = np.packbits(flags, bitorder="little")
    padded = np.zeros(-(-octets.size // 8) * 8, dtype=np.uint8)
    padded[: octets.size] = octets
    return padded.view(np.uint64)


class Stretch:
    """Where each page of a recorded guest goes. `written`: (k,) ascending numbers of all pages ever written.

    Memory is cut into written extents and the gaps between them. Gaps grow or shrink in proportion, to one page at
    least while there is room for that (extents then stay apart; without it neighbours may join, and runs grow). A
    shrunken gap keeps its first pages, an added page is as `rest` says. Cost: a binary search among the extents for
    each page.
    """

    def __init__(self, written: Array, recorded: int, n_pages: int, page_size: int) -> None:
        if written.size > n_pages:
            raise UsageError(
                f"memory {format_bytes(n_pages * page_size)} is less than the {format_bytes(written.size * page_size)} "
                "that the recorded guest wrote; choose at least that"
            )
        self.recorded, self.n_pages = recorded, n_pages
        pages = written.astype(np.int64)
        begins = np.flatnonzero(np.diff(pages, prepend=-2) != 1)
        size = np.diff(np.append(begins, pages.size))
        before = pages[begins] - begins  # unwritten pages before each extent
        unwritten, room = recorded - pages.size, n_pages - pages.size
        # Gaps before each extent, and in all; where there is room each keeps a page, so that extents stay apart.
        gaps = np.arange(begins.size) + int(pages[0] > 0)
        all_gaps = begins.size + int(pages[0] > 0) - int(pages[-1] == recorded - 1)
        if room < all_gaps:
            gaps, all_gaps = np.zeros_like(gaps), 0
        shared = unwritten - all_gaps
        target = begins + gaps + ((before - gaps) * (room - all_gaps) // shared if shared else 0)
        # An empty extent at page 0 makes every page lie in an extent or in the gap behind one.
        self.first = np.concatenate([[0], pages[begins]])
        self.size = np.concatenate([[0], size])
        self.target = np.concatenate([[0], target])
        self.gap = np.append(self.first[1:], recorded) - self.first - self.size
        self.room = np.append(self.target[1:], n_pages) - self.target - self.size

    def place(self, page: Array) -> Array:
        """The new numbers (uint32) of pages that are written."""
        extent = np.searchsorted(self.first, page, side="right") - 1
        return (page.astype(np.int64) + (self.target - self.first)[extent]).astype(np.uint32)

    def edges(self, page: Array) -> Array:
        """The new places (int64) of boundaries between pages, such as those of RAM blocks; they never change order."""
        extent = np.searchsorted(self.first, page, side="right") - 1
        past = page - self.first[extent]
        inside = np.minimum(past, self.size[extent])
        in_gap = (past - inside) * self.room[extent] // np.maximum(self.gap[extent], 1)
        moved: Array = self.target[extent] + inside + in_gap
        return moved

    def zero_bits(self, own: Array, rest_is_zero: bool) -> Array:
        """The bitmap `own` of the recorded guest's zero pages as that of the resized guest."""
        flags = np.full(self.n_pages, rest_is_zero, np.uint8)
        kept = self.size + np.minimum(self.gap, self.room)
        for first, count, target in zip(self.first.tolist(), kept.tolist(), self.target.tolist(), strict=True):
            for part in range(0, count, _PART):
                size = min(_PART, count - part)
                flags[target + part : target + part + size] = _flags(own, first + part, size)
        return packed(flags)


def _flags(bits: Array, first: int, count: int) -> Array:
    """Bits first..first+count-1 as flags (uint8)."""
    low = first // 64
    words = bits[low : (first + count + 63) // 64]
    return np.unpackbits(words.view(np.uint8), bitorder="little")[first - low * 64 : first - low * 64 + count]
