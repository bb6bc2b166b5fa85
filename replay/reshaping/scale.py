"""Scaling: guest time faster or slower, memory larger or smaller (see speed and sizes for what that means)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from replay.errors import UsageError, unknown_name
from replay.reshaping import sizes, speed
from replay.reshaping.history import reshaped
from replay.reshaping.streams import WINDOW_EVENTS, check_output, joined, write
from replay.trace.arrays import page_runs
from replay.trace.events import Array, Events
from replay.trace.operations import PageSet
from replay.trace.reader import Trace
from replay.trace.schema import PageRun, RamBlock, TraceMetadata
from replay.trace.writer import Progress

MOST_COPIES = 1024
TOTAL_WINDOW_EVENTS = 1 << 20
LEAST_WINDOW_EVENTS = 1 << 12
RESTS = ("zero", "data")


def scale_trace(
    trace: Trace,
    output: str | os.PathLike[str],
    *,
    speed_up: Fraction | None = None,
    memory_bytes: int | None = None,
    fit: str = "embed",
    rest: str = "zero",
    seed: int = 1,
    progress: Progress | None = None,
) -> Trace:
    """Writes `trace` with guest time `speed_up` times as fast, in memory of another size, or both.

    fit: embed, tile or stretch (replay.reshaping.sizes). rest: what added memory holds, zero or data. seed: of the
    copies' phases when tiled. Raises UsageError for a factor or size that makes no sense; TraceError for damaged input.
    """
    check_output(output, [trace])
    if fit not in sizes.FITS:
        raise unknown_name("fit", fit, sizes.FITS)
    if rest not in RESTS:
        raise unknown_name("rest", rest, RESTS)
    if speed_up is None and memory_bytes is None:
        raise UsageError("scale: say what to scale: guest time (--speed) or memory (--memory)")
    factor = speed.simple(speed_up or Fraction(1))
    resized = _resized(trace, memory_bytes, fit, rest == "zero", seed)
    options: dict[str, Any] = {} if speed_up is None else {"speed": f"{float(factor):g}x"}
    if memory_bytes is not None:
        options |= {"memory": f"{resized.n_pages * trace.metadata.page_size}", "fit": fit, "rest": rest}
        options |= {"seed": seed} if fit == "tile" else {}
    changes = speed.changes(trace.metadata, factor) | ({} if memory_bytes is None else resized.changes())
    notes = [f"guest time made {float(factor):g} times as fast"] if speed_up is not None else []
    notes += [resized.limit] if memory_bytes is not None else []
    metadata = reshaped(trace, "scale", options, "; ".join(notes), **changes)
    events = (Events(speed.slowed(e.t_ns, factor), e.page, e.origin) for e in resized.events())
    return write(output, lambda: metadata, events, sources=trace.has_sources, nothing="no events", progress=progress)


class _Embedded:
    """Pages keep their numbers."""

    limit = "memory added above the recorded guest is never written"

    def __init__(self, trace: Trace, n_pages: int, rest_is_zero: bool) -> None:
        self.trace, self.meta, self.n_pages, self.rest_is_zero = trace, trace.metadata, n_pages, rest_is_zero

    def events(self) -> Iterator[Events]:
        return self.trace.windows(WINDOW_EVENTS)

    def changes(self) -> dict[str, Any]:
        return {
            "memory_bytes": self.n_pages * self.meta.page_size,
            "ram_blocks": self.blocks(),
            "page_classes": self._classes(),
        }

    def blocks(self) -> tuple[RamBlock, ...]:
        return with_added(self.meta.ram_blocks, self.meta.n_pages, self.n_pages)

    def zero_bits(self) -> Array:
        return sizes.with_rest(
            self.trace.zero_pages(), self.meta.n_pages, self.n_pages, self.n_words, self.rest_is_zero
        )

    @property
    def n_words(self) -> int:
        return (self.n_pages + 63) // 64

    def _classes(self) -> tuple[PageRun, ...]:
        bits = self.zero_bits()
        return page_runs(np.unpackbits(bits.view(np.uint8), bitorder="little")[: self.n_pages])


class _Tiled(_Embedded):
    """Copies side by side, each from its own phase."""

    limit = "copies of one recording stand side by side: they share what they do, only not when they do it"

    def __init__(self, trace: Trace, n_pages: int, rest_is_zero: bool, seed: int) -> None:
        super().__init__(trace, n_pages, rest_is_zero)
        self.copies = sizes.copies_in(n_pages, self.meta.n_pages, self.meta.page_size)
        if self.copies > MOST_COPIES:
            raise UsageError(f"scale: {self.copies} copies of the recorded guest are more than {MOST_COPIES}")
        self.phases = sizes.phases_ns(seed, self.copies, self.meta.duration_ns).tolist()

    def events(self) -> Iterator[Events]:
        return joined([self._copy(number, phase) for number, phase in enumerate(self.phases)])

    def _copy(self, number: int, phase: int) -> Iterator[Events]:
        """One copy: the recording from its phase on, then what came before."""
        duration = self.meta.duration_ns
        size = max(LEAST_WINDOW_EVENTS, TOTAL_WINDOW_EVENTS // self.copies)
        first = np.uint32(number * self.meta.n_pages)
        for low, high, shift in sizes.pieces(phase, phase + duration, duration):
            for window in self.trace.windows(size, low):
                end = int(np.searchsorted(window.t_ns, np.uint64(high)))
                moved = window.t_ns[:end] + np.uint64((shift - phase) % (1 << 64))
                yield Events(moved, window.page[:end] + first, window.origin[:end])
                if end < window.t_ns.size:
                    break

    def changes(self) -> dict[str, Any]:
        """Each copy re-arms at times of its own, and passes its recording's end somewhere in the middle."""
        return super().changes() | {"rearm_times_ns": None, "migration_start_ns": None}

    def blocks(self) -> tuple[RamBlock, ...]:
        own = self.meta.n_pages
        blocks = [
            RamBlock(f"{number}/{block.name}", number * own + block.first_page, block.n_pages)
            for number in range(self.copies)
            for block in self.meta.ram_blocks
        ]
        return with_added(tuple(blocks), self.copies * own, self.n_pages)

    def zero_bits(self) -> Array:
        own = self.meta.n_pages
        bits = sizes.tiled(self.trace.zero_pages(), own, self.copies)
        return sizes.with_rest(bits, own * self.copies, self.n_pages, self.n_words, self.rest_is_zero)


class _Stretched(_Embedded):
    """Written extents moved apart or together. Reads the trace once before, for which pages it writes."""

    limit = "memory stretched: written extents kept whole, the memory between them scaled"

    def __init__(self, trace: Trace, n_pages: int, rest_is_zero: bool) -> None:
        super().__init__(trace, n_pages, rest_is_zero)
        written = PageSet()
        for window in trace.windows(WINDOW_EVENTS):
            written.add(window.page)
        self.stretch = sizes.Stretch(written.pages(), self.meta.n_pages, n_pages, self.meta.page_size)

    def events(self) -> Iterator[Events]:
        for window in self.trace.windows(WINDOW_EVENTS):
            yield Events(window.t_ns, self.stretch.place(window.page), window.origin)

    def blocks(self) -> tuple[RamBlock, ...]:
        starts = np.array([block.first_page for block in self.meta.ram_blocks])
        moved = [*self.stretch.edges(starts).tolist(), self.n_pages]
        return tuple(
            RamBlock(block.name, first, end - first)
            for block, (first, end) in zip(self.meta.ram_blocks, itertools.pairwise(moved), strict=True)
            if end > first
        )

    def zero_bits(self) -> Array:
        return self.stretch.zero_bits(self.trace.zero_pages(), self.rest_is_zero)


def _resized(trace: Trace, memory_bytes: int | None, fit: str, rest_is_zero: bool, seed: int) -> _Embedded:
    meta: TraceMetadata = trace.metadata
    n_pages = sizes.pages_in(memory_bytes, meta.page_size, meta.n_pages)
    if memory_bytes is None:
        return _Embedded(trace, n_pages, rest_is_zero)
    if fit == "stretch":
        return _Stretched(trace, n_pages, rest_is_zero)
    if fit == "tile":
        return _Tiled(trace, n_pages, rest_is_zero, seed)
    sizes.check_room(n_pages, meta.n_pages, meta.page_size)
    return _Embedded(trace, n_pages, rest_is_zero)


def with_added(blocks: tuple[RamBlock, ...], end: int, n_pages: int) -> tuple[RamBlock, ...]:
    """The blocks, and one named "added" for the pages above them."""
    if n_pages == end:
        return blocks
    names = {block.name for block in blocks}
    name = next(f"added{number or ''}" for number in itertools.count() if f"added{number or ''}" not in names)
    return (*blocks, RamBlock(name, end, n_pages - end))
