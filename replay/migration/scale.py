"""A recorded guest in a guest of another size: as it is, embedded in a larger one, or tiled side by side.

*embed*: the recording's pages keep their numbers, the rest of the larger guest is never written; its pages are zero or
data as stated. The working set stays what it was. *tile*: as many copies of the recorded guest as fit stand side by
side, each playing the same recording from its own seeded phase; dirty rate and working set grow with memory, vCPUs stay
as many as recorded, so that only one thing changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from replay.errors import UsageError
from replay.kernels import memory
from replay.migration.feed import Source, Window
from replay.migration.link import PAGE_BYTES
from replay.units import format_bytes
from replay.verbs import GuestShape

WINDOW_EVENTS = 1 << 20
_U = np.uint64


class Recording(Protocol):
    """What this module needs of a trace (replay.trace.reader.Trace)."""

    @property
    def metadata(self) -> Any: ...

    @property
    def n_events(self) -> int: ...

    def decode(self) -> Any: ...

    def zero_pages(self) -> np.ndarray: ...


class Plain:
    """The recorded guest, in memory of its own size or embedded in a larger one."""

    def __init__(self, trace: Recording, memory_bytes: int | None, rest: str, zero_share: float | None, seed: int):
        meta = trace.metadata
        self._trace = trace
        self._events = trace.decode()
        n_pages = _pages(memory_bytes, meta.page_size, meta.n_pages)
        if n_pages < meta.n_pages:
            raise UsageError(
                f"memory {format_bytes(n_pages * meta.page_size)} is less than the recorded guest's "
                f"{format_bytes(meta.memory_bytes)}; choose at least that"
            )
        self.shape = GuestShape(n_pages=n_pages, n_vcpus=meta.n_vcpus, n_blocks=len(meta.ram_blocks))
        self.duration_ns = meta.duration_ns
        self._rest, self._zero_share, self._seed = rest, zero_share, seed

    def windows(self, start_ns: int) -> Iterator[Window]:
        """The whole recording from `start_ns` on, as one window."""
        events = self._events
        first = int(np.searchsorted(events.t_ns, _U(start_ns)))
        yield Window(events.t_ns[first:], events.page[first:], events.origin[first:], self.duration_ns)

    def zero_pages(self) -> np.ndarray:
        """Bitmap of zero pages at the start: the recording's, then the rest's; or a seeded share of all."""
        if self._zero_share is not None:
            return _random_bits(self.shape, self._zero_share, self._seed)
        own = self._trace.zero_pages()
        return _with_rest(own, self._trace.metadata.n_pages, self.shape, self._rest == "zero")


class Tiled:
    """Copies of the recorded guest side by side, each from its own phase."""

    def __init__(self, trace: Recording, memory_bytes: int | None, rest: str, zero_share: float | None, seed: int):
        meta = trace.metadata
        n_pages = _pages(memory_bytes, meta.page_size, meta.n_pages)
        self.copies = n_pages // meta.n_pages
        if self.copies == 0:
            raise UsageError(f"memory is less than one copy of the recorded guest ({format_bytes(meta.memory_bytes)})")
        self.shape = GuestShape(n_pages=n_pages, n_vcpus=meta.n_vcpus, n_blocks=len(meta.ram_blocks))
        self.duration_ns = meta.duration_ns
        self._trace, self._events = trace, trace.decode()
        self._rest, self._zero_share, self._seed = rest, zero_share, seed
        phases = np.random.default_rng(seed).integers(0, self.duration_ns, self.copies, dtype=np.uint64)
        phases[0] = 0
        self.phases_ns = phases

    def windows(self, start_ns: int) -> Iterator[Window]:
        """Windows of about a million events, merged over the copies in (time, copy) order."""
        span = max(1, int(self.duration_ns * WINDOW_EVENTS / max(1, self._trace.n_events * self.copies)))
        for begin in range(start_ns, self.duration_ns, span):
            yield self._window(begin, min(begin + span, self.duration_ns))

    def _window(self, begin: int, end: int) -> Window:
        events, pages = self._events, self._trace.metadata.n_pages
        parts: tuple[list[np.ndarray], ...] = ([], [], [])
        for copy, phase in enumerate(self.phases_ns.tolist()):
            for low, high, shift in self._pieces(begin + phase, end + phase):
                first, last = np.searchsorted(events.t_ns, np.array([low, high], dtype=_U))
                parts[0].append(events.t_ns[first:last] + _U((shift - phase) % (1 << 64)))
                parts[1].append(events.page[first:last] + np.uint32(copy * pages))
                parts[2].append(events.origin[first:last])
        t_ns, page, origin = (np.concatenate(part) for part in parts)
        order = np.argsort(t_ns, kind="stable")
        return Window(t_ns[order], page[order], origin[order], end)

    def _pieces(self, low: int, high: int) -> Iterator[tuple[int, int, int]]:
        """[low, high) of the endlessly repeated recording: ranges of the recording, and what to add to their times."""
        while low < high:
            turn, at = divmod(low, self.duration_ns)
            length = min(high - low, self.duration_ns - at)
            yield at, at + length, turn * self.duration_ns
            low += length

    def zero_pages(self) -> np.ndarray:
        """Bitmap of zero pages: the recording's, repeated; or a seeded share of all."""
        if self._zero_share is not None:
            return _random_bits(self.shape, self._zero_share, self._seed)
        n_pages = self._trace.metadata.n_pages
        own = np.unpackbits(self._trace.zero_pages().view(np.uint8), bitorder="little")[:n_pages]
        bits = np.concatenate([own] * self.copies)
        packed = np.packbits(bits, bitorder="little")
        padded = np.zeros(-(-packed.size // 8) * 8, dtype=np.uint8)
        padded[: packed.size] = packed
        return _with_rest(padded.view(np.uint64), bits.size, self.shape, self._rest == "zero")


FITS: dict[str, Any] = {"embed": Plain, "tile": Tiled}


def scaled(
    trace: Recording, *, memory_bytes: int | None, fit: str, rest: str, zero_share: float | None, seed: int
) -> Source:
    """The source of a recording in `memory_bytes` (None: its own size). Raises UsageError when that cannot be."""
    if trace.metadata.page_size != PAGE_BYTES:
        raise UsageError(
            f"the trace has pages of {trace.metadata.page_size} bytes; migrations of 4096-byte pages are modelled"
        )
    source: Source = FITS[fit](trace, memory_bytes, rest, zero_share, seed)
    return source


def _pages(memory_bytes: int | None, page_size: int, recorded: int) -> int:
    if memory_bytes is None:
        return recorded
    if memory_bytes % page_size or memory_bytes <= 0:
        raise UsageError(f"memory of {memory_bytes} bytes is not a whole number of pages of {page_size} bytes")
    if memory_bytes // page_size > 1 << 32:
        raise UsageError(
            f"memory of {format_bytes(memory_bytes)} has more pages than a uint32 counts (16 TiB at 4 KiB)"
        )
    return memory_bytes // page_size


def _with_rest(own: np.ndarray, n_own: int, shape: GuestShape, rest_is_zero: bool) -> np.ndarray:
    """`own` for the first `n_own` pages, then zero pages (or none) up to the guest's end."""
    bits = memory.ones_up_to(shape.n_pages, shape.n_words) if rest_is_zero else memory.words(shape.n_words)
    full, odd = divmod(n_own, 64)
    bits[:full] = own[:full]
    if odd:
        low = _U((1 << odd) - 1)
        bits[full] = (bits[full] & ~low) | (own[full] & low)
    return bits


def _random_bits(shape: GuestShape, share: float, seed: int) -> np.ndarray:
    """Each page zero with probability `share`, from the seed, in pieces of bounded memory."""
    generator = np.random.default_rng([seed, 0x5EED])
    bits = memory.words(shape.n_words)
    octets = bits.view(np.uint8)
    step = 1 << 20
    for first in range(0, shape.n_pages, step):
        count = min(step, shape.n_pages - first)
        packed = np.packbits(generator.random(count) < share, bitorder="little")
        octets[first // 8 : first // 8 + packed.size] = packed
    return bits
