"""A recorded guest in a guest of another size, for one replay: embedded in it, tiled over it, or stretched to it.

What these mean, and how pages and phases are found, is in replay.reshaping.sizes, which `replay trace scale` shares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from replay.errors import UsageError
from replay.kernels import memory
from replay.migration.feed import Source, Window, windows_of
from replay.migration.link import PAGE_BYTES
from replay.reshaping import sizes
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

    def for_replay(self, start_ns: int) -> Iterator[Any]: ...

    def zero_pages(self) -> np.ndarray: ...


class Plain:
    """The recorded guest, in memory of its own size or embedded in a larger one."""

    def __init__(self, trace: Recording, memory_bytes: int | None, rest: str, zero_share: float | None, seed: int):
        meta = trace.metadata
        self._trace = trace
        n_pages = sizes.pages_in(memory_bytes, meta.page_size, meta.n_pages)
        self._check_size(n_pages)
        self.shape = GuestShape(n_pages=n_pages, n_vcpus=meta.n_vcpus, n_blocks=len(meta.ram_blocks))
        self.duration_ns = meta.duration_ns
        self._rest, self._zero_share, self._seed = rest, zero_share, seed

    def _check_size(self, n_pages: int) -> None:
        sizes.check_room(n_pages, self._trace.metadata.n_pages, self._trace.metadata.page_size)

    def windows(self, start_ns: int) -> Iterator[Window]:
        """The whole recording from `start_ns` on: one window of shared arrays, or many of a long trace."""
        return windows_of(self._trace.for_replay(start_ns), self.duration_ns)

    def zero_pages(self) -> np.ndarray:
        """Bitmap of zero pages at the start: the recording's, then the rest's; or a seeded share of all."""
        if self._zero_share is not None:
            return _random_bits(self.shape, self._zero_share, self._seed)
        own = self._trace.zero_pages()
        return _with_rest(own, self._trace.metadata.n_pages, self.shape, self._rest == "zero")


class Stretched(Plain):
    """The recorded guest with its written extents moved apart (or together)."""

    def __init__(self, trace: Recording, memory_bytes: int | None, rest: str, zero_share: float | None, seed: int):
        super().__init__(trace, memory_bytes, rest, zero_share, seed)
        meta = trace.metadata
        events = trace.decode()
        self.stretch = sizes.Stretch(np.unique(events.page), meta.n_pages, self.shape.n_pages, meta.page_size)
        self._events = events._replace(page=self.stretch.place(events.page))

    def _check_size(self, n_pages: int) -> None:
        """Anything that holds what was written; Stretch sees to that."""

    def windows(self, start_ns: int) -> Iterator[Window]:
        """The whole recording from `start_ns` on, as one window."""
        events = self._events
        first = int(np.searchsorted(events.t_ns, _U(start_ns)))
        yield Window(events.t_ns[first:], events.page[first:], events.origin[first:], self.duration_ns)

    def zero_pages(self) -> np.ndarray:
        """Bitmap of zero pages at the start: the recording's, moved, and the added pages; or a seeded share of all."""
        if self._zero_share is not None:
            return _random_bits(self.shape, self._zero_share, self._seed)
        bits = self.stretch.zero_bits(self._trace.zero_pages(), self._rest == "zero")
        return _with_rest(bits, self.shape.n_pages, self.shape, False)


class Tiled:
    """Copies of the recorded guest side by side, each from its own phase."""

    def __init__(self, trace: Recording, memory_bytes: int | None, rest: str, zero_share: float | None, seed: int):
        meta = trace.metadata
        n_pages = sizes.pages_in(memory_bytes, meta.page_size, meta.n_pages)
        self.copies = sizes.copies_in(n_pages, meta.n_pages, meta.page_size)
        self.shape = GuestShape(n_pages=n_pages, n_vcpus=meta.n_vcpus, n_blocks=len(meta.ram_blocks))
        self.duration_ns = meta.duration_ns
        self._trace, self._events = trace, trace.decode()
        self._rest, self._zero_share, self._seed = rest, zero_share, seed
        self.phases_ns = sizes.phases_ns(seed, self.copies, self.duration_ns)

    def windows(self, start_ns: int) -> Iterator[Window]:
        """Windows of about a million events, merged over the copies in (time, copy) order."""
        span = max(1, int(self.duration_ns * WINDOW_EVENTS / max(1, self._trace.n_events * self.copies)))
        for begin in range(start_ns, self.duration_ns, span):
            yield self._window(begin, min(begin + span, self.duration_ns))

    def _window(self, begin: int, end: int) -> Window:
        events, pages = self._events, self._trace.metadata.n_pages
        parts: tuple[list[np.ndarray], ...] = ([], [], [])
        for copy, phase in enumerate(self.phases_ns.tolist()):
            for low, high, shift in sizes.pieces(begin + phase, end + phase, self.duration_ns):
                first, last = np.searchsorted(events.t_ns, np.array([low, high], dtype=_U))
                parts[0].append(events.t_ns[first:last] + _U((shift - phase) % (1 << 64)))
                parts[1].append(events.page[first:last] + np.uint32(copy * pages))
                parts[2].append(events.origin[first:last])
        t_ns, page, origin = (np.concatenate(part) for part in parts)
        order = np.argsort(t_ns, kind="stable")
        return Window(t_ns[order], page[order], origin[order], end)

    def zero_pages(self) -> np.ndarray:
        """Bitmap of zero pages: the recording's, repeated; or a seeded share of all."""
        if self._zero_share is not None:
            return _random_bits(self.shape, self._zero_share, self._seed)
        n_pages = self._trace.metadata.n_pages
        bits = sizes.tiled(self._trace.zero_pages(), n_pages, self.copies)
        return _with_rest(bits, n_pages * self.copies, self.shape, self._rest == "zero")


FITS: dict[str, Any] = {"embed": Plain, "tile": Tiled, "stretch": Stretched}


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


def _with_rest(own: np.ndarray, n_own: int, shape: GuestShape, rest_is_zero: bool) -> np.ndarray:
    return sizes.with_rest(own, n_own, shape.n_pages, shape.n_words, rest_is_zero)


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
