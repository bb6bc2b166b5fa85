"""How a generated guest is spelled: PART+PART+..., a part being WORKLOAD[:PARAMS] or a recorded trace.

Beside the workload's own parameters a part takes keys that say where it runs: `on` (vCPUs: 0, 0-2), `within` (range of
memory: 0-1G, 25%-50%) and `source` (dma, vhost, ...: written by a device). The guest as a whole takes `memory`, `vcpus`
and `duration`, spelled with any part, where no option gives them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replay import plugins, units
from replay.errors import UsageError, unknown_name
from replay.reshaping.ranges import memory_edges
from replay.synthesis.config_file import is_config
from replay.synthesis.parts import Generated, Part, Place, Recorded
from replay.trace import shipped
from replay.trace.metadata_checks import MAX_VCPUS
from replay.trace.reader import open_trace
from replay.trace.schema import SOURCE_NAMES


@dataclass(frozen=True, kw_only=True)
class Spelled:
    """What a spelling says; None where it says nothing."""

    parts: tuple[Part, ...]
    memory: int | None
    vcpus: int | None
    duration_ns: int | None


def is_workload(text: str) -> bool:
    """Whether text names a generated guest, not a trace: a config file; or a workload or mixture, and no such file."""
    head = text.partition(":")[0]
    if is_config(text):
        return True
    if Path(text).exists() or (text.endswith(".parquet") and "+" not in text):
        return False
    return "+" in text or ":" in text or head.endswith(".py") or head in plugins.names("workload")


def parse(text: str) -> Spelled:
    """The parts of a spelling and what it says of the guest. Raises UsageError naming what exists."""
    told: dict[str, tuple[str, Any]] = {}
    parts = tuple(_part(item.strip(), told) for item in text.split("+"))
    return Spelled(
        parts=parts,
        memory=told.get("memory", ("", None))[1],
        vcpus=told.get("vcpus", ("", None))[1],
        duration_ns=told.get("duration", ("", None))[1],
    )


def _part(text: str, told: dict[str, tuple[str, Any]]) -> Part:
    name, _, given = text.partition(":")
    own: list[str] = []
    place: dict[str, Any] = {}
    spelled: list[str] = []
    for item in (piece.strip() for piece in given.split(",") if piece.strip()):
        key, equals, value = item.partition("=")
        if equals and key in GUEST_KEYS:
            if key in told and told[key][0] != value:
                raise UsageError(f"{text!r}: {key} is given twice, as {told[key][0]} and {value}")
            told[key] = (value, GUEST_KEYS[key](value))
        elif equals and key in PLACE_KEYS:
            fields = PLACE_KEYS[key](value)
            if set(fields) & set(place):
                raise UsageError(f"{text!r}: {key} is given twice")
            place |= fields
            spelled.append(f"{key}={value}")
        else:
            own.append(item)
    where = Place(**place, spelled=tuple(spelled))
    if name in plugins.names("workload") or name.endswith(".py"):
        plugin = plugins.parse("workload", name + (":" + ",".join(own) if own else ""))
        if not isinstance(getattr(plugin.config, "rate", None), int):
            raise UsageError(f"{name}: the Config of a workload must have a whole `rate`, its most events a second")
        return Generated(plugin=plugin, place=where)
    return _recorded(text, name, own, where)


def _recorded(text: str, name: str, own: list[str], where: Place) -> Recorded:
    if not Path(name).suffix and not Path(name).is_file() and name not in shipped.names():
        known = [*plugins.names("workload"), *shipped.names()]
        raise unknown_name("workload or recorded trace", name, known)
    if own:
        raise UsageError(f"{text!r}: a recorded trace has no parameter {own[0]!r}; it takes {', '.join(PLACE_KEYS)}")
    return Recorded(trace=open_trace(shipped.find(name)), name=Path(name).name, place=where)


def memory_bytes(text: str | int) -> int:
    """A guest's memory. Raises UsageError unless it is a whole number of pages, at most 16 TiB."""
    size = units.parse_bytes(text)
    if size <= 0 or size % 4096 or size > 1 << 44:
        raise UsageError(f"memory of {text} is not a whole number of pages of 4096 bytes, from 1 page to 16T")
    return size


def vcpus(text: str | int) -> int:
    """A guest's vCPUs. Raises UsageError for none or too many."""
    number = _whole(str(text), "vcpus")
    if not 1 <= number <= MAX_VCPUS:
        raise UsageError(f"vcpus must be from 1 to {MAX_VCPUS}, not {text}")
    return number


def duration_ns(text: str | int) -> int:
    """A recording's length, at most a year. Raises UsageError otherwise."""
    length = units.parse_duration_ns(text)
    if not 0 < length <= 366 * 86_400 * units.NS_PER_S:
        raise UsageError(f"a duration of {text} is not longer than nothing and at most a year")
    return length


def _whole(text: str, what: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise UsageError(f"{what} must be a whole number, not {text!r}")
    return int(text)


def _vcpu_list(text: str) -> dict[str, Any]:
    first, _, last = text.partition("-")
    low = _whole(first, "on (a vCPU: 0, or a range of them: 0-2)")
    high = _whole(last, "on") if last else low
    if not low <= high < MAX_VCPUS:
        raise UsageError(f"on={text} is not a range of vCPUs; write on=0 or on=0-2")
    return {"vcpus": tuple(range(low, high + 1))}


def _range(text: str) -> dict[str, Any]:
    low, high = memory_edges(text)
    return {"low": low, "high": high}


def _source(text: str) -> dict[str, Any]:
    if text not in SOURCE_NAMES:
        raise unknown_name("source", text, SOURCE_NAMES)
    return {"source": text}


GUEST_KEYS: dict[str, Callable[[str], int]] = {"memory": memory_bytes, "vcpus": vcpus, "duration": duration_ns}
PLACE_KEYS: dict[str, Callable[[str], dict[str, Any]]] = {"on": _vcpu_list, "within": _range, "source": _source}
