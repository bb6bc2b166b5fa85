"""What a generated guest is put together from: workloads and recorded traces, each with its place in the guest.

A part answers one question: which events happen in [begin_ns, end_ns)? Its answer for a span is its answers for any
cut of that span, one after the other.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from replay.chance import NS_PER_S, Array, Guest
from replay.errors import UsageError
from replay.reshaping.sizes import pieces
from replay.reshaping.speed import simple, slowed
from replay.trace.events import origin_source, origin_vcpu, pack_origin
from replay.trace.schema import SOURCE_CODES

if TYPE_CHECKING:
    from replay.plugins import Plugin
    from replay.trace.reader import Trace

PAGE_BYTES = 4096
MAX_RATE = 1_000_000_000
Spans = tuple[Array, Array, Array]  # t_ns uint64, page uint32, origin uint16
_U = np.uint64


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where in the guest a part runs. `spelled` are the keys as they were given."""

    vcpus: tuple[int, ...] | None = None  # None: all
    low: int | float = 0  # bytes, or a share of memory when it is a float
    high: int | float = 1.0
    source: str = "vcpu"
    spelled: tuple[str, ...] = ()

    def pages(self, guest: Guest) -> tuple[int, int]:
        """First page, and the page after the last. Raises UsageError when the range holds none."""
        low, high = (
            round(edge * guest.n_pages) if isinstance(edge, float) else edge // PAGE_BYTES
            for edge in (self.low, self.high)
        )
        if not 0 <= low < high <= guest.n_pages:
            raise UsageError(f"within: pages {low} to {high} are not a range of the guest's {guest.n_pages} pages")
        return low, high

    def on(self, guest: Guest) -> Array:
        """The numbers of its vCPUs. Raises UsageError when the guest has no such vCPU."""
        vcpus = range(guest.n_vcpus) if self.vcpus is None else self.vcpus
        if max(vcpus) >= guest.n_vcpus:
            raise UsageError(f"on: there is no vCPU {max(vcpus)} in a guest with {guest.n_vcpus} (counted from 0)")
        return np.array(vcpus, dtype=np.uint16)

    def put(self, guest: Guest, t_ns: Array, page: Array, vcpu: Array, source: Array | int) -> Spans:
        """Events of a part, whose pages and vCPUs count from 0, as events of the guest."""
        first, end = self.pages(guest)
        if page.size and int(page.max()) >= end - first:
            raise UsageError(f"a part writes page {int(page.max())}, but has only {end - first} pages to itself")
        own = self.on(guest)[vcpu]
        given = source if self.source == "vcpu" else SOURCE_CODES[self.source]
        return t_ns, (page + _U(first)).astype(np.uint32), pack_origin(own, np.asarray(given, np.uint16))


@dataclass(frozen=True, kw_only=True)
class Generated:
    """A workload: a plug-in with its parameters."""

    plugin: Plugin
    place: Place

    @property
    def rate(self) -> Fraction:
        """Events a second, at most."""
        return Fraction(self.plugin.config.rate)

    @property
    def label(self) -> str:
        """What was spelled, in canonical form."""
        keys = ",".join(self.place.spelled)
        return self.plugin.label + ((":" if ":" not in self.plugin.label else ",") + keys if keys else "")

    @property
    def origin(self) -> str:
        """The module it is from; a user's own file has its digest in its module's name."""
        return self.plugin.module.__name__

    def faster(self, factor: Fraction) -> Generated:
        """The same with its rate multiplied, rounded to whole pages a second."""
        rate = round(self.rate * factor)
        if not 1 <= rate <= MAX_RATE:
            raise UsageError(f"{self.label}: {rate} pages a second is not between 1 and {MAX_RATE}")
        plugin = dataclasses.replace(self.plugin, config=dataclasses.replace(self.plugin.config, rate=rate))
        return dataclasses.replace(self, plugin=plugin)

    def events(self, guest: Guest, seed: int, begin_ns: int, end_ns: int) -> Spans:
        """Events of the guest in [begin_ns, end_ns)."""
        first, end = self.place.pages(guest)
        own = Guest(end - first, self.place.on(guest).size)
        t_ns, page, origin = self.plugin.module.events(self.plugin.config, own, seed, begin_ns, end_ns)
        origin = np.asarray(origin, dtype=np.uint16)
        return self.place.put(guest, t_ns, np.asarray(page, _U), origin_vcpu(origin), origin_source(origin))


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A recorded trace, repeated when it ends; `factor` guest seconds of it pass in one."""

    trace: Trace
    name: str
    place: Place
    factor: Fraction = Fraction(1)

    @property
    def rate(self) -> Fraction:
        """Events a second, on average."""
        return Fraction(self.trace.n_events * NS_PER_S, self.trace.metadata.duration_ns) * self.factor

    @property
    def label(self) -> str:
        """What was spelled."""
        speed = (f"speed={float(self.factor):g}x",) if self.factor != 1 else ()
        keys = ",".join((*self.place.spelled, *speed))
        return self.name + (f":{keys}" if keys else "")

    @property
    def origin(self) -> str:
        """The digest of its file."""
        return f"sha256 {self.trace.digest}"

    def faster(self, factor: Fraction) -> Recorded:
        """The same with its guest time compressed further."""
        return dataclasses.replace(self, factor=simple(self.factor * factor))

    def events(self, guest: Guest, seed: int, begin_ns: int, end_ns: int) -> Spans:
        """Events of the guest in [begin_ns, end_ns); vCPUs beyond its place's wrap around."""
        parts: tuple[list[Array], ...] = ([], [], [])
        decoded = self.trace.decode()
        low, high = (-(-edge * self.factor.numerator // self.factor.denominator) for edge in (begin_ns, end_ns))
        for begin, end, shift in pieces(low, high, self.trace.metadata.duration_ns):
            first, last = np.searchsorted(decoded.t_ns, np.array([begin, end], dtype=_U))
            parts[0].append(slowed(decoded.t_ns[first:last] + _U(shift), self.factor))
            parts[1].append(decoded.page[first:last])
            parts[2].append(decoded.origin[first:last])
        t_ns, page, origin = (
            np.concatenate([np.empty(0, kind), *part]) for part, kind in zip(parts, (_U, _U, np.uint16), strict=True)
        )
        vcpu = origin_vcpu(origin) % np.uint16(self.place.on(guest).size)
        return self.place.put(guest, t_ns, page, vcpu, origin_source(origin))


Part = Generated | Recorded
