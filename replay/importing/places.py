"""Where pages lie: from slots, host addresses or ram_addr to the dense page numbers of a trace.

An extent is a run of pages in a space. A space is whatever its numbers count in: host addresses (a slot map as QEMU
prints it), a named RAMBlock (a map that the user gives), ram_addr, or a slot of which nothing else is known. Events
refer to extents; what is known of them may come late in a recording, so pages are numbered at the end: the used parts
of each space, in ascending order, one space after the other.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np

from replay import units
from replay.errors import TraceError, UsageError
from replay.trace.events import Array
from replay.trace.schema import RamBlock

PAGE_BYTES = 4096
MAX_PAGES = 1 << 32
MAX_EXTENTS = 1 << 18
HOST = "host addresses"
_PART = re.compile(r"^([^@=+,]+)@([^@=+,]+)\+([^@=+,]+)$")


@dataclass(frozen=True)
class Extent:
    """`n_pages` pages from `first` on in a space; None: as many as events show. `order` sorts within the guest."""

    space: str
    first: int = 0
    n_pages: int | None = None
    order: int = 0


class Places:
    """The extents of an import, and which one a slot is at the moment."""

    def __init__(self) -> None:
        self.extents: list[Extent] = []
        self.furthest: list[int] = []  # pages that events show, of each extent
        self.logged: set[int] = set()  # extents that a map says were logged
        self._numbers: dict[Extent, int] = {}
        self._slots: dict[int, int] = {}
        self._first_map: dict[int, int] = {}
        self._bare: dict[int, int] = {}  # extent to slot, where the slot had no map yet when it was met

    def number(self, extent: Extent) -> int:
        """The number of an extent, for events to refer to."""
        if extent not in self._numbers:
            if len(self.extents) == MAX_EXTENTS:
                raise TraceError(
                    f"more than {MAX_EXTENTS:,} slots and places of them; this is no recording of one guest"
                )
            self._numbers[extent] = len(self.extents)
            self.extents.append(extent)
            self.furthest.append(0)
        return self._numbers[extent]

    def slot(self, slot: int) -> int:
        """The number of the extent that a slot is now. Slots of the second address space (SMM) begin at 65536."""
        found = self._slots.get(slot)
        if found is None:
            found = self._slots[slot] = self.number(Extent(slot_name(slot), order=slot))
            if slot not in self._first_map:
                self._bare[found] = slot
        return found

    def describe(self, slot: int, extent: Extent, logging: bool = True) -> None:
        """From now on a slot is this extent."""
        number = self._slots[slot] = self.number(extent)
        self._first_map.setdefault(slot, number)
        if logging:
            self.logged.add(number)

    def forget(self, slot: int) -> None:
        """The slot was removed; what was recorded before stays where it was."""
        self._slots.pop(slot, None)

    @property
    def unmapped(self) -> list[int]:
        """Slots with events but without a map."""
        return sorted(
            slot for number, slot in self._bare.items() if slot not in self._first_map and self.furthest[number]
        )

    def layout(self, memory_bytes: int | None) -> Layout:
        """Number the pages. Raises TraceError when there are too many, UsageError for a memory that is too small."""
        extents = [self._settled(number) for number in range(len(self.extents))]
        pieces = _pieces(extents, self.furthest)
        blocks: list[RamBlock] = []
        starts: dict[str, list[tuple[int, int, int]]] = {}  # space to (first page, pages, dense page)
        total = 0
        for space, _, first, n_pages in pieces:
            starts.setdefault(space, []).append((first, n_pages, total))
            if blocks and blocks[-1].name == space:
                blocks[-1] = blocks[-1]._replace(n_pages=blocks[-1].n_pages + n_pages)
            else:
                blocks.append(RamBlock(_block_name(space, first), total, n_pages))
            total += n_pages
        bases, limits = np.zeros(len(extents), np.int64), np.zeros(len(extents), np.int64)
        ordered = {space: sorted(found) for space, found in starts.items()}
        for number, extent in enumerate(extents):
            if found := ordered.get(extent.space):
                first, n_pages, page = found[max(bisect_right(found, (extent.first, MAX_PAGES * 2)) - 1, 0)]
                if first <= extent.first < first + n_pages:
                    bases[number] = page + extent.first - first
                    limits[number] = extent.n_pages if extent.n_pages is not None else first + n_pages - extent.first
        n_pages = total if memory_bytes is None else memory_bytes // PAGE_BYTES
        if len(starts) == 1 and all(extent.n_pages is None for extent in extents) and blocks:
            blocks = [RamBlock(blocks[0].name, 0, n_pages)]
            limits[:] = n_pages
        elif n_pages < total:
            raise UsageError(
                f"--memory: {n_pages:,} pages are fewer than the {total:,} of the slots and blocks in the recording"
            )
        elif n_pages > total:
            blocks.append(RamBlock("not recorded", total, n_pages - total))
        if n_pages > MAX_PAGES:
            raise TraceError(
                f"the recording's slots need {n_pages:,} pages, a trace holds 2**32; give their places (--slots) or "
                "look for a damaged offset"
            )
        return Layout(tuple(blocks), n_pages, bases, limits)

    def _settled(self, number: int) -> Extent:
        """The extent, or, of a slot whose map came later, what that map says."""
        return self.extents[self._first_map.get(self._bare.get(number, -1), number)]


@dataclass(frozen=True)
class Layout:
    """Dense page numbers: `base` of each extent, and how many pages it has."""

    blocks: tuple[RamBlock, ...]
    n_pages: int
    base: Array
    limit: Array

    def pages(self, extent: Array, offset: Array) -> tuple[Array, Array]:
        """(page, inside): page numbers (int64) of uint64 offsets, and which of them lie in their extent."""
        inside = offset < self.limit[extent].astype(np.uint64)
        return self.base[extent] + np.where(inside, offset, 0).astype(np.int64), inside


def _pieces(extents: list[Extent], furthest: list[int]) -> list[tuple[str, int, int, int]]:
    """(space, order, first page, pages) of the used runs, without overlaps, in the order of their page numbers."""
    runs = []
    for extent, used in zip(extents, furthest, strict=True):
        n_pages = used if extent.n_pages is None else extent.n_pages
        if n_pages:
            runs.append((extent.space, extent.first, n_pages, extent.order))
    merged: list[list[Any]] = []
    for space, first, n_pages, order in sorted(runs):
        last = merged[-1] if merged else None
        if last is not None and last[0] == space and first <= last[2] + last[3]:
            last[3] = max(last[3], first + n_pages - last[2])
            last[1] = min(last[1], order)
        else:
            merged.append([space, order, first, n_pages])
    orders: dict[str, int] = {}
    for space, order, _, _ in merged:
        orders[space] = min(order, orders.get(space, order))
    # Host addresses follow the guest's physical ones; within a RAMBlock the offset decides.
    key = lambda piece: (orders[piece[0]], piece[0], piece[1] if piece[0] == HOST else piece[2])  # noqa: E731
    return [tuple(piece) for piece in sorted(merged, key=key)]


def _block_name(space: str, first: int) -> str:
    return f"host {first * PAGE_BYTES:#x}" if space == HOST else space


def slot_name(slot: int) -> str:
    """ "slot 3"; "SMM slot 3" for the second address space."""
    space, number = divmod(slot, 1 << 16)
    return f"slot {number}" if not space else f"SMM slot {number}" if space == 1 else f"slot {number} of space {space}"


def parse_part(text: str, what: str, order: int = 0) -> Extent:
    """An extent from "pc.ram@1M+3071M": RAMBlock, byte offset in it, bytes. Raises UsageError."""
    match = _PART.match(text.strip())
    if match is None:
        raise UsageError(f"{what}: {text!r} is not of the form BLOCK@OFFSET+SIZE, like pc.ram@1M+3071M")
    first, size = (_pages(part, what) for part in match.groups()[1:])
    if not 0 < size <= MAX_PAGES or first > MAX_PAGES:
        raise UsageError(f"{what}: {text!r} is empty or beyond 16 TiB")
    return Extent(match[1].strip(), first, size, order)


def _pages(text: str, what: str) -> int:
    value = int(text, 16) if re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}", text.strip()) else units.parse_bytes(text)
    if value % PAGE_BYTES:
        raise UsageError(f"{what}: {text} is not a multiple of {PAGE_BYTES} bytes")
    return value // PAGE_BYTES


def parse_slots(text: str, what: str = "--slots") -> dict[int, Extent]:
    """Slot to extent, from "0=pc.ram@0+640K,1=pc.ram@1M+3071M"."""
    slots: dict[int, Extent] = {}
    for order, item in enumerate(part for part in text.split(",") if part.strip()):
        slot, equals, part = item.partition("=")
        if not equals or not slot.strip().isdecimal() or len(slot.strip()) > 9:
            raise UsageError(f"{what}: {item!r} is not of the form SLOT=BLOCK@OFFSET+SIZE, like 0=pc.ram@0+2G")
        if int(slot) in slots:
            raise UsageError(f"{what}: slot {int(slot)} is given twice")
        slots[int(slot)] = parse_part(part, what, order)
    return slots


def parse_numbers(text: str, what: str) -> dict[int, int]:
    """A map of numbers, from "0=0,2=1"."""
    found: dict[int, int] = {}
    for item in (part for part in text.split(",") if part.strip()):
        match = re.fullmatch(r"\s*(\d{1,10})\s*=\s*(\d{1,5})\s*", item)
        if match is None or int(match[1]) in found:
            raise UsageError(f"{what}: {item!r} is not of the form NUMBER=VCPU (each number once), like 0=0,2=1")
        found[int(match[1])] = int(match[2])
    return found
