"""Text with units to exact integers and back: "96G" is bytes, "1250MiB/s" bytes a second, "300ms" nanoseconds.

Sizes follow QEMU: K, M, G, T alone are powers of 1024. In bandwidths "MB/s" and "Mbit/s" are powers of 1000 and
"MiB/s" powers of 1024, as network equipment and QMP spell them; "Gb/s" and "Gbps" are bits, "GB/s" and "GBps" bytes.
A plain number is bytes, bytes a second, or (durations) refused, because nobody can know what was meant.
"""

from __future__ import annotations

import re
from fractions import Fraction

from replay.errors import UsageError

PS_PER_NS = 1_000
PS_PER_MS = 1_000_000_000
PS_PER_S = 1_000_000_000_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000

FORMS = {
    "sizes": ("96G", "512 MiB", "1.5GiB", "64K", "1000KB", "4096"),
    "bandwidths": ("1250MiB/s", "50MB/s", "1Gbit/s", "10 Gbps", "8Mb/s", "100MBps", "12", "0"),
    "times": ("300ms", "1.5 s", "20us", "2 minutes", "1h"),
    "shares": ("5%", "0.05"),
    "page rates": ("20000", "200MB/s"),
}
"""How each kind of value may be written: examples for `replay help units`, each tested."""

_NUMBER = re.compile(
    r"^\s*([0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?|\.[0-9]+)(?:e([0-9]{1,2}))?\s*([^\d\s]\S*)?\s*$", re.IGNORECASE
)
_BINARY = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_DURATION_NS = {
    "ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "sec": 10**9,
    "m": 60 * 10**9, "min": 60 * 10**9, "h": 3600 * 10**9,
    "nsec": 1, "usec": 10**3, "msec": 10**6, "seconds": 10**9, "second": 10**9, "minutes": 60 * 10**9,
    "minute": 60 * 10**9, "hours": 3600 * 10**9, "hour": 3600 * 10**9, "\N{GREEK SMALL LETTER MU}s": 10**3,
}  # fmt: skip


def _split(text: str | int, what: str, example: str) -> tuple[Fraction, str]:
    match = _NUMBER.match(str(text))
    if match is None:
        raise UsageError(f"{text!r} is not a {what}; write it like {example}")
    number, exponent, suffix = match.groups()
    return Fraction(number.replace("_", "")) * 10 ** int(exponent or 0), suffix or ""


def _whole(value: Fraction, text: str | int, what: str) -> int:
    if value.denominator != 1:
        raise UsageError(f"{text!r} is not a whole number of {what}")
    return int(value)


def parse_bytes(text: str | int) -> int:
    """Bytes from "96G", "1 GiB", "4096". K, M, G, T, with or without iB, are powers of 1024; KB, MB, ... of 1000."""
    number, suffix = _split(text, "size", "96G, 512MiB or 4096")
    low = suffix.lower()
    if low.endswith("ib") and low[:-2] in _BINARY:
        scale = _BINARY[low[:-2]]
    elif low in _BINARY:
        scale = _BINARY[low]
    elif low.endswith("b") and low[:-1] in _DECIMAL:
        scale = _DECIMAL[low[:-1]]
    else:
        raise UsageError(f"{text!r}: unknown unit of size {suffix!r}; use K, M, G, T, KiB ... or KB ...")
    return _whole(number * scale, text, "bytes")


def parse_bandwidth(text: str | int) -> int:
    """Bytes a second from "1250MiB/s", "50MB/s", "10Gbit/s", "25Gbps", "10Gb/s", or a plain number, as in QMP."""
    number, suffix = _split(text, "bandwidth", "1250MiB/s, 50MB/s or 10Gbit/s")
    low = suffix.lower()
    spelled = re.fullmatch(
        r"([KMGTkmgt]?i?)([bB])(/s|ps)", suffix
    )  # here alone case tells bits (Gb/s) from bytes (GB/s)
    if spelled is not None:
        low = spelled[1].lower() + ("bit" if spelled[2] == "b" else "b")
    bits = False
    for ending in ("bit/s", "bits/s", "bps", "bit"):
        if low.endswith(ending):
            low, bits = low[: -len(ending)], True
            break
    else:
        low = low.removesuffix("/s")
    if low in ("", "b"):
        scale = 1
    elif low.endswith("ib") and low[:-2] in _BINARY:
        scale = _BINARY[low[:-2]]
    elif low.removesuffix("b") in _DECIMAL:
        scale = _DECIMAL[low.removesuffix("b")]
    elif bits and low.endswith("i") and low[:-1] in _BINARY:
        scale = _BINARY[low[:-1]]
    else:
        raise UsageError(f"{text!r}: unknown unit of bandwidth {suffix!r}; use MB/s, MiB/s, Gbit/s ...")
    value = number * scale / (8 if bits else 1)
    return int(value)


def parse_page_rate(text: str | int) -> int:
    """Pages (of 4 KiB) a second from "50000", "50k" (thousands) or a bandwidth: "200MB/s"."""
    number, suffix = _split(text, "rate", "50000 (pages a second) or 200MB/s")
    if suffix.lower() in ("k", "m", "g"):
        return _whole(number * _DECIMAL[suffix.lower()], text, "pages a second")
    return _whole(number, text, "pages a second") if not suffix else parse_bandwidth(text) // 4096


def parse_duration_ns(text: str | int) -> int:
    """Nanoseconds from "300ms", "1.5s", "50us", "2min". A plain number is refused."""
    number, suffix = _split(text, "duration", "300ms, 1.5s or 2min")
    if suffix.lower() not in _DURATION_NS:
        raise UsageError(f"{text!r}: a duration needs a unit: ns, us, ms, s, min or h (300ms, 1.5s)")
    return _whole(number * _DURATION_NS[suffix.lower()], text, "nanoseconds")


def parse_share(text: str | float) -> float:
    """A share from 0 to 1, given as 0.25 or 25%."""
    raw = str(text).strip()
    try:
        value = float(raw[:-1]) / 100 if raw.endswith("%") else float(raw)
    except ValueError:
        raise UsageError(f"{text!r} is not a share; write 0.25 or 25%") from None
    if not 0 <= value <= 1:
        raise UsageError(f"{text!r} is not between 0 and 1 (or 0% and 100%)")
    return value


def parse_factor(text: str | float) -> Fraction:
    """A factor above 0, exactly, from "4x", "0.5" or a number."""
    raw = str(text).strip().lower().removesuffix("x")
    match = _NUMBER.match(raw)
    if match is None or match.group(3) or not (value := _split(raw, "factor", "4x or 0.5x")[0]):
        raise UsageError(f"{text!r} is not a factor above 0; write it like 4x or 0.5x")
    return value


def spell_duration(ns: int) -> str:
    """A duration exactly, in the largest unit that it is a whole number of: 1500000000 is "1500ms"."""
    for unit, scale in (("s", NS_PER_S), ("ms", NS_PER_MS), ("us", 1000)):
        if ns % scale == 0:
            return f"{ns // scale}{unit}"
    return f"{ns}ns"


def format_bytes(value: int | float) -> str:
    """Bytes for people: "96 GiB", "1.5 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def format_duration(ns: int | float) -> str:
    """A duration for people: "5.19 s", "300 ms", "12 us"."""
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if abs(ns) >= scale:
            return f"{ns / scale:.3g} {unit}" if abs(ns) < 1000 * scale else f"{ns / scale:.0f} {unit}"
    return f"{ns:.0f} ns"
