"""A generated guest as a trace: it can be replayed as if it had been recorded, and written to a file.

Whatever its length, it is made window by window. The same spelling, size and seed give the same events, bit for bit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from replay.chance import NS_PER_S, Array, Guest
from replay.errors import UsageError
from replay.reshaping import speed
from replay.synthesis import config_file, spelling
from replay.synthesis.parts import PAGE_BYTES, Part, Recorded
from replay.trace.ahead import ahead
from replay.trace.arrays import page_runs, zero_bitmap
from replay.trace.events import EVENT_BYTES, Events, origin_source, seal
from replay.trace.reader import RowGroup, Trace, memory_bytes
from replay.trace.schema import PageRun, TraceMetadata, whole_memory
from replay.units import format_bytes
from replay.version import __version__

WINDOW_EVENTS = 1 << 19
MAX_KEPT_EVENTS = 1 << 26
"""Guests with more events than these, 1 GiB of them, are made anew for each replay, in windows."""
AHEAD_EVENTS = 1 << 16
DEFAULT_MEMORY, DEFAULT_VCPUS, DEFAULT_DURATION_NS = 1 << 30, 4, 10 * NS_PER_S


class Synthetic:
    """A trace that is generated when it is needed; what replays use of `Trace`, this offers too."""

    from_file = False

    def __init__(self, parts: tuple[Part, ...], guest: Guest, duration_ns: int, seed: int) -> None:
        self.parts, self.guest, self.duration_ns, self.seed = parts, guest, duration_ns, seed
        self._lock = threading.Lock()
        self._made: Trace | None = None
        for part in parts:
            part.place.on(guest)
            first, end = part.place.pages(guest)
            if isinstance(part, Recorded) and part.trace.metadata.n_pages > end - first:
                raise UsageError(
                    f"{part.name} has {format_bytes(part.trace.metadata.memory_bytes)}, more than the "
                    f"{format_bytes((end - first) * PAGE_BYTES)} it is given here"
                )

    def __repr__(self) -> str:
        return f"<Synthetic {self.label}, {self.guest.n_pages} pages>"

    @property
    def label(self) -> str:
        """The spelling of its parts, in canonical form."""
        return "+".join(part.label for part in self.parts)

    @property
    def path(self) -> Path:
        """Its label: there is no file."""
        return Path(self.label.replace("/", "-"))

    @property
    def rate(self) -> Fraction:
        """Events a second: each workload at its busiest, recorded traces on average."""
        return sum((part.rate for part in self.parts), Fraction(0))

    def sized(self, memory: int | None, seed: int) -> Synthetic:
        """The same parts in another memory (bytes; None: as it is), from another seed."""
        pages = self.guest.n_pages if memory is None else spelling.memory_bytes(memory) // PAGE_BYTES
        if (pages, seed) == (self.guest.n_pages, self.seed):
            return self
        return Synthetic(self.parts, self.guest._replace(n_pages=pages), self.duration_ns, seed)

    def faster(self, factor: Fraction) -> Synthetic:
        """Every part at `factor` times its rate."""
        return Synthetic(tuple(part.faster(factor) for part in self.parts), self.guest, self.duration_ns, self.seed)

    @cached_property
    def metadata(self) -> TraceMetadata:
        """What the trace says of itself."""
        memory = self.guest.n_pages * PAGE_BYTES
        return TraceMetadata(
            title=f"generated: {self.label}",
            guest=f"none: generated, {format_bytes(memory)}, {self.guest.n_vcpus} vCPUs",
            workload=self.label,
            memory_bytes=memory,
            ram_blocks=whole_memory(memory),
            n_vcpus=self.guest.n_vcpus,
            duration_ns=self.duration_ns,
            clock="virtual: nanoseconds since the start",
            capture="none: generated, every write is an event",
            limits="; ".join(
                ["generated writes: none, complete by definition"]
                + [f"{part.name}: {part.trace.metadata.limits}" for part in self._recorded]
            ),
            throttled=any(part.trace.metadata.throttled for part in self._recorded),
            page_classes=self._page_classes(),
            provenance={
                "made_by": "replay generate",
                "made_from": self.label,
                "seed": self.seed,
                "generator": __version__,
                "parts": {part.label: part.origin for part in self.parts},
            },
            licence="CC0-1.0" if not self._recorded else self._recorded[0].trace.metadata.licence,
        )

    @property
    def _recorded(self) -> list[Recorded]:
        return [part for part in self.parts if isinstance(part, Recorded)]

    def _page_classes(self) -> tuple[PageRun, ...]:
        """Data, except where a recorded part knows its pages to be zero."""
        if not self._recorded:
            return (PageRun(0, self.guest.n_pages, "data"),)
        zero = np.zeros(self.guest.n_pages, dtype=bool)
        for part in self._recorded:
            first, n_pages = part.place.pages(self.guest)[0], part.trace.metadata.n_pages
            bits = np.unpackbits(part.trace.zero_pages().view(np.uint8), bitorder="little")[:n_pages]
            zero[first : first + n_pages] = bits
        return page_runs(zero)

    def windows(self, max_events: int = WINDOW_EVENTS, start_ns: int = 0) -> Iterator[Events]:
        """Events from start_ns on in windows of about max_events, merged over the parts in (time, part) order."""
        span = max(1, int(max_events * NS_PER_S / self.rate))
        for begin in range(start_ns, self.duration_ns, span):
            spans = [
                part.events(self.guest, self.seed + (index << 64), begin, min(begin + span, self.duration_ns))
                for index, part in enumerate(self.parts)
            ]
            t_ns, page, origin = (np.concatenate(columns) for columns in zip(*spans, strict=True))
            if len(spans) > 1:
                order = np.argsort(t_ns, kind="stable")
                t_ns, page, origin = t_ns[order], page[order], origin[order]
            yield Events(seal(t_ns), seal(page), seal(origin))

    @property
    def has_sources(self) -> bool:
        """Whether something else than vCPUs may write."""
        if any(part.place.source != "vcpu" for part in self.parts):
            return True
        return any(bool(origin_source(part.trace.decode().origin).any()) for part in self._recorded)

    def trace(self) -> Trace:
        """All events in memory: generated once, by one thread. Raises UsageError when there are none or too many."""
        with self._lock:
            if self._made is None:
                if 2 * self._expected * EVENT_BYTES > memory_bytes():
                    raise UsageError(
                        f"{self.label}: about {self._expected:.3g} events do not fit into this machine's memory; "
                        "choose a lower rate or a shorter duration"
                    )
                columns = [np.concatenate(part) for part in zip(*self.windows(), strict=True)]
                if not columns[0].size:
                    raise self.empty()
                self._made = Trace(self.path, self.metadata, None, Events(*map(seal, columns)))
            return self._made

    @property
    def _expected(self) -> float:
        """Events in all, about."""
        return float(self.rate) * self.duration_ns / NS_PER_S

    def for_replay(self, start_ns: int) -> Iterator[Events]:
        """All events from start_ns on, for one replay: shared arrays, or windows that a thread makes ahead of it."""
        if self._expected > MAX_KEPT_EVENTS:
            return ahead(self.windows(AHEAD_EVENTS, start_ns), lambda: self.digest)
        return self.trace().for_replay(start_ns)

    def empty(self) -> UsageError:
        """The error of a guest that writes nothing."""
        return UsageError(f"{self.label}: no event in {self.duration_ns / 1e9:g} s; choose a longer duration")

    def decode(self) -> Events:
        """All events as shared read-only arrays."""
        return self.trace().decode()

    def zero_pages(self) -> Array:
        """Bitmap of the pages that start as zero."""
        return seal(zero_bitmap(self.metadata.page_classes or (), self.metadata.n_pages))

    def row_groups(self) -> list[RowGroup]:
        """One, as for any trace in memory."""
        return self.trace().row_groups()

    @property
    def n_events(self) -> int:
        """Events in the whole recording."""
        return self.trace().n_events

    @property
    def digest(self) -> str:
        """sha256 (hex) of metadata and events; of metadata alone, from which the events follow, where they are many."""
        if self._expected > MAX_KEPT_EVENTS:
            return hashlib.sha256(self.metadata.to_json().encode()).hexdigest()
        return self.trace().digest


def open_workload(
    text: str, *, memory: Any = None, vcpus: Any = None, duration: Any = None, rate: Any = None, seed: int | None = None
) -> Synthetic:
    """The guest that a spelling, or a config file (replay.synthesis.config_file), means.

    What is not given: as spelled, as recorded, or 1 GiB, 4 vCPUs, 10 s.

    rate: events a second of all parts together, which keep their proportions. seed: as the file says, or 1. Raises
    UsageError.
    """
    from replay import units

    if config_file.is_config(text):
        text, own_seed = config_file.read(text)
        seed = own_seed if seed is None else seed
    told = spelling.parse(text)
    recorded = [part.trace.metadata for part in told.parts if isinstance(part, Recorded)]
    size = (
        spelling.memory_bytes(memory)
        if memory is not None
        else told.memory or max([m.memory_bytes for m in recorded], default=DEFAULT_MEMORY)
    )
    n_vcpus = (
        spelling.vcpus(vcpus)
        if vcpus is not None
        else told.vcpus or max([m.n_vcpus for m in recorded], default=DEFAULT_VCPUS)
    )
    length_ns = (
        spelling.duration_ns(duration)
        if duration is not None
        else told.duration_ns or max([m.duration_ns for m in recorded], default=DEFAULT_DURATION_NS)
    )
    made = Synthetic(told.parts, Guest(size // PAGE_BYTES, n_vcpus), length_ns, 1 if seed is None else seed)
    if rate is None:
        return made
    wanted = units.parse_page_rate(rate)
    if wanted < 1:
        raise UsageError(f"a rate of {rate} is less than one page a second")
    return made.faster(wanted / made.rate)


def settled(trace: Trace | Synthetic, memory: int | None, seed: int) -> Trace | Synthetic:
    """A generated guest in the memory that is asked for; a recorded one as it is."""
    return trace.sized(memory, seed) if isinstance(trace, Synthetic) else trace


def faster(trace: Trace | Synthetic, factor: Fraction) -> Trace | Synthetic:
    """The guest at `factor` times its dirty rate: a workload's rates multiplied, a recording's guest time compressed.

    Compressed time keeps what is written in which order; everything that took the guest a second takes it 1 / factor.
    """
    if factor == 1:
        return trace
    if isinstance(trace, Synthetic):
        return trace.faster(factor)
    factor, meta, events = speed.simple(factor), trace.metadata, trace.decode()
    told = f"{float(factor):g}x"
    changed: dict[str, Any] = speed.changes(meta, factor) | {
        "title": f"{meta.title} (guest time {told})",
        "provenance": meta.provenance | {"speed": told, "source_digest": f"sha256 {trace.digest}"},
    }
    path = trace.path.with_name(f"{trace.path.name}@{told}")
    times = Events(seal(speed.slowed(events.t_ns, factor)), events.page, events.origin)
    return Trace(path, dataclasses.replace(meta, **changed), None, times)
