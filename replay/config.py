"""A run's configuration: one frozen dataclass, validated once. CLI flags, labels and metadata are made from its fields.

Values may be given as people write them ("96G", "1250MiB/s", "300ms") or as plain numbers; the fields hold integers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from replay import units
from replay.errors import UsageError, unknown_name

MAX_DOWNTIME_MS = 2_000_000
MAX_CHANNELS = 255


def option(
    default: Any,
    help: str,
    *,
    parse: Callable[[Any], Any] | None = None,
    metavar: str = "",
    choices: tuple[str, ...] = (),
) -> Any:
    """A field of a run's configuration, with what a command line needs to offer it."""
    meta = {"help": help, "parse": parse, "metavar": metavar, "choices": choices}
    return dataclasses.field(default=default, metadata=meta)


def _optional(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else parse(value)


def _downtime_ms(value: Any) -> int:
    ns = units.parse_duration_ns(value)
    if ns % units.NS_PER_MS or not 0 <= ns <= MAX_DOWNTIME_MS * units.NS_PER_MS:
        raise UsageError(f"downtime limit {value!r} must be whole milliseconds, from 0ms to {MAX_DOWNTIME_MS}ms")
    return ns // units.NS_PER_MS


def _positive_ns(value: Any) -> int:
    ns = units.parse_duration_ns(value)
    if ns <= 0:
        raise UsageError(f"{value!r} must be longer than nothing")
    return ns


def _cache_bytes(value: Any) -> int:
    size = units.parse_bytes(value)
    if size < 4096 or size & (size - 1):
        raise UsageError(f"xbzrle cache of {value!r}: take a power of two of at least 4K, such as 64M")
    return size


def _channels(value: Any) -> int:
    try:
        count = int(str(value))
    except ValueError:
        count = -1
    if not 0 <= count <= MAX_CHANNELS:
        raise UsageError(f"multifd channels {value!r}: take 0 (without multifd) to {MAX_CHANNELS}")
    return count


def _version(text: str) -> str:
    """A modelled version; of a full version number the modelled one that is nearest below."""
    from replay.migration import versions

    return text if text in versions.NAMES else versions.nearest(text)


def _seed(value: Any) -> int:
    try:
        seed = int(str(value))
    except ValueError:
        raise UsageError(f"seed {value!r} is not a whole number") from None
    if not 0 <= seed < 1 << 63:
        raise UsageError(f"seed {value!r} must be from 0 to 2^63 - 1")
    return seed


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What one replay does, apart from the trace. Raises UsageError for a value that makes no sense.

    Durations: `downtime_limit` is kept in ms, `start` and `give_up` in ns. Bandwidths are bytes a second, 0 for none.
    """

    log: str = option("kvm-ring:4096", "how the hypervisor notices a write", metavar="LOG[:PARAMS]")
    design: str = option(
        "bitmap", "how dirty pages are stored and found; a name or path/to/file.py", metavar="DESIGN[:PARAMS]"
    )
    memory: int | None = option(
        None, "memory of the replayed guest (default: as recorded)", parse=_optional(units.parse_bytes), metavar="SIZE"
    )
    fit: str = option(
        "embed",
        "how a recorded guest fills more memory: once, tiled side by side, or stretched",
        choices=("embed", "tile", "stretch"),
    )
    rest: str = option("zero", "what memory beyond the recorded guest holds", choices=("zero", "data"))
    zero_share: float | None = option(
        None,
        "share of all pages that are zero, instead of the recorded ones",
        parse=_optional(units.parse_share),
        metavar="SHARE",
    )
    max_bandwidth: int = option(
        "128MiB/s", "migration parameter max-bandwidth; 0 for no limit", parse=units.parse_bandwidth, metavar="RATE"
    )
    downtime_limit: int = option("300ms", "migration parameter downtime-limit", parse=_downtime_ms, metavar="TIME")
    qemu_version: str = option(
        "10.0", "version of QEMU to behave as; 10.0.2 is 10.0", parse=_version, choices=("7.2", "9.x", "10.0", "10.2")
    )
    multifd_channels: int = option(
        0, "send pages in packets through so many channels; 0: without multifd", parse=_channels, metavar="N"
    )
    zero_page_detection: str = option(
        "multifd",
        "where pages of zeros are found: by the migration thread (legacy), nowhere (none), by multifd's channels",
        choices=("legacy", "none", "multifd"),
    )
    postcopy_after: int | None = option(
        None, "switch to postcopy so long after the start (default: never)", parse=_optional(units.parse_duration_ns),
        metavar="TIME",
    )  # fmt: skip
    postcopy_bandwidth: int = option(
        0, "migration parameter max-postcopy-bandwidth; 0 for no limit", parse=units.parse_bandwidth, metavar="RATE"
    )
    mapped_ram: bool = option(False, "migrate to a file in which each page has its place")
    xbzrle: int | None = option(
        None, "send changes of pages, with a cache of this size (a power of two)", parse=_optional(_cache_bytes),
        metavar="SIZE",
    )  # fmt: skip
    xbzrle_share: float = option(
        1.0, "share of changed pages whose changes fit (1: as measured where 8 bytes of a page changed)",
        parse=units.parse_share, metavar="SHARE",
    )  # fmt: skip
    xbzrle_bytes: int = option(
        14, "mean bytes of a page's changes (14: as measured where 8 bytes of a page changed)",
        parse=units.parse_bytes, metavar="BYTES",
    )  # fmt: skip
    policy: str = option(
        "", "what is decided at a sync: a name or path/to/file.py (default: nothing)", metavar="POLICY[:PARAMS]"
    )
    guest_busy: float = option(
        1.0, "share of its CPU time that the guest uses; throttling takes the rest first", parse=units.parse_share,
        metavar="SHARE",
    )  # fmt: skip
    link: int = option(
        0, "speed of the wire; 0: the wire is never the slower part", parse=units.parse_bandwidth, metavar="RATE"
    )
    at_end: str = option(
        "loop", "when the trace ends before the migration: repeat it, or the guest idles", choices=("loop", "hold")
    )
    open_loop: bool = option(False, "do not delay the guest by its stalls")
    start: int = option("0s", "guest time at which the migration starts", parse=units.parse_duration_ns, metavar="TIME")
    give_up: int = option("600s", "give a migration up after so long", parse=_positive_ns, metavar="TIME")
    seed: int = option(1, "seed of everything random", parse=_seed, metavar="N")
    check: bool = option(True, "keep track of what the target has, to report lost and redundant pages")
    formulation: str = option(
        "auto", "inner loop: the fastest that is exact, or one of the two", choices=("auto", "batched", "stepping")
    )
    costs: str = option("generic-x86", "cost table: a name or a path ending in .toml", metavar="TABLE[:ENTRY=NS,...]")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, meta = getattr(self, field.name), field.metadata
            if meta["choices"] and meta["parse"] is None and value not in meta["choices"]:
                raise unknown_name(f"value for {flag(field.name)}:", str(value), meta["choices"])
            if meta["parse"] is not None and (isinstance(value, str) or not _kept(field, value)):
                object.__setattr__(self, field.name, meta["parse"](value))
            if field.type == "bool" and not isinstance(value, bool):
                raise UsageError(f"{flag(field.name)} is true or false, not {value!r}")
            if field.type == "str" and not isinstance(value, str):
                raise UsageError(f"{flag(field.name)} is text, not {value!r}")

        self._check_together()

    def _check_together(self) -> None:
        """Options that exclude each other."""
        newer = [
            flag(name) for name, given in (
                ("zero_page_detection", self.zero_page_detection == "none"), ("mapped_ram", self.mapped_ram),
            ) if given
        ]  # fmt: skip
        if self.qemu_version == "7.2" and newer:
            raise UsageError(f"{newer[0]} came with QEMU 9.0: leave it out, or take --qemu-version 9.x or later")
        if self.qemu_version == "7.2" and self.multifd_channels:
            raise UsageError("multifd is modelled as QEMU 9.0 and later do it: take --qemu-version 9.x or later")
        if self.multifd_channels and self.mapped_ram:
            raise UsageError("multifd into a mapped file is not modelled: leave out --multifd-channels or --mapped-ram")
        if self.postcopy_after is not None and (self.multifd_channels or self.mapped_ram):
            other = "--mapped-ram" if self.mapped_ram else "--multifd-channels"
            raise UsageError(f"QEMU refuses postcopy together with {other}: leave one of them out")
        if self.xbzrle is not None and (self.mapped_ram or self.multifd_channels):
            other = "--mapped-ram" if self.mapped_ram else "--multifd-channels"
            raise UsageError(f"QEMU refuses --xbzrle together with {other}: leave one of them out")

    def as_dict(self) -> dict[str, Any]:
        """All values by their names with hyphens, as results and labels show them."""
        return {field.name.replace("_", "-"): getattr(self, field.name) for field in dataclasses.fields(self)}


def _kept(field: dataclasses.Field[Any], value: Any) -> bool:
    """Whether a value that is not text is taken as it is: numbers of bytes, ms or ns as the field holds them."""
    if value is None:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise UsageError(f"{flag(field.name)} cannot be {value!r}")
    return field.name in ("downtime_limit", "start", "give_up", "postcopy_after")


def flag(name: str) -> str:
    """The command-line spelling of a field."""
    return "--" + name.replace("_", "-")


def make(options: dict[str, Any]) -> RunConfig:
    """A RunConfig from keyword options; an unknown one names those that exist and the nearest."""
    known = [field.name for field in dataclasses.fields(RunConfig)]
    for name in options:
        if name not in known:
            raise unknown_name("option", name, known)
    return RunConfig(**options)
