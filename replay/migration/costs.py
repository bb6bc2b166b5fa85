"""Cost tables: what a unit of each counted work costs, in TOML with a source for every number.

A table names a price for every counter of work.py, some fixed times and some fixed bytes. Prices are given in
nanoseconds with up to three decimals and become whole picoseconds, so that modelled time is exact. A table with
`based_on = "NAME"` states only what differs from the shipped table of that name; so does "NAME:ENTRY=VALUE,..." in its
place, with entries as in the file: "generic-x86:refind_calls=0.1".
"""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from replay.errors import UsageError, unknown_name
from replay.migration.link import NORMAL_BYTES, ZERO_BYTES
from replay.units import PS_PER_S
from replay.work import COUNTERS, INDEX

_FOLDER = Path(__file__).resolve().parent / "cost_tables"
FIXED = (
    "connect", "setup", "setup_page", "first_copy", "logged_page", "crowded_page", "multifd_page", "loop_pass", "sync",
    "oversleep", "vm_stop", "device_state", "postcopy_page", "fault_request", "fault_place", "target_listen",
    "target_run", "discard_run", "write_fault",
)  # fmt: skip
BYTES = ("setup", "device_state")
DEFAULT = "generic-x86"


@dataclass(frozen=True, kw_only=True)
class Costs:
    """A cost table: `prices_ps` by counter name, `fixed_ps` and `fixed_bytes` by name; `text` is the file as read."""

    name: str
    description: str
    prices_ps: dict[str, int]
    fixed_ps: dict[str, int]
    fixed_bytes: dict[str, int]

    def priced(self, **prices_ps: int) -> Costs:
        """The same table with other prices for these counters."""
        return dataclasses.replace(self, prices_ps=self.prices_ps | prices_ps)

    def price_vector(
        self, link_bytes_per_s: int, normal_bytes: int = NORMAL_BYTES, zero_bytes: int = ZERO_BYTES
    ) -> np.ndarray:
        """Prices as the kernels take them: uint64 picoseconds by counter. A page costs at least its time on the wire.

        `link_bytes_per_s` 0: the wire is never the slower part.
        """
        price = np.array([self.prices_ps[counter.name] for counter in COUNTERS], dtype=np.uint64)
        if link_bytes_per_s:
            for name, size in (("normal_pages", normal_bytes), ("zero_pages", zero_bytes)):
                wire_ps = -(-size * PS_PER_S // link_bytes_per_s)
                price[INDEX[name]] = max(int(price[INDEX[name]]), wire_ps)
        return price


def names() -> list[str]:
    """The cost tables that are shipped."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load(name: str) -> Costs:
    """A shipped table by name, or a file by its path ending in .toml. Raises UsageError naming what is wrong.

    Either may be followed by entries that differ, in ns or bytes: "generic-x86:refind_calls=0.1,device_state=1e6".
    """
    name, colon, changes = name.partition(":")
    path, data = _read(name)
    if colon:
        data = _changed(name, data, changes)
    base: dict[str, Any] = {}
    if "based_on" in data:
        base_path, base = _read(str(data["based_on"]))
        if "based_on" in base:
            raise UsageError(f"{path}: based on {base_path.stem}, which is itself based on another table")
    return Costs(
        name=str(data.get("name", path.stem)),
        description=str(data.get("description", "")),
        prices_ps=_section(path, data, base, "prices", tuple(INDEX), "ns", 1000),
        fixed_ps=_section(path, data, base, "fixed", FIXED, "ns", 1000),
        fixed_bytes=_section(path, data, base, "bytes", BYTES, "bytes", 1),
    )


def entries() -> dict[str, str]:
    """Every entry of a table with its unit: "ns", or "bytes" (then its name is bytes-NAME)."""
    return dict.fromkeys((*INDEX, *FIXED), "ns") | {f"bytes-{name}": "bytes" for name in BYTES}


def _changed(name: str, data: dict[str, Any], changes: str) -> dict[str, Any]:
    """A table with some entries as spelled behind its name."""
    changed = data | {section: dict(data.get(section, {})) for section in ("prices", "fixed", "bytes")}
    for item in (part.strip() for part in changes.split(",") if part.strip()):
        key, _, value = (part.strip() for part in item.partition("="))
        if key not in entries():
            raise unknown_name(f"entry of cost table {name}:", key, entries())
        section = "bytes" if key.startswith("bytes-") else "prices" if key in INDEX else "fixed"
        try:
            changed[section][key.removeprefix("bytes-")] = {entries()[key]: Fraction(value), "source": "as spelled"}
        except (ValueError, ZeroDivisionError):
            raise UsageError(f"cost table {name}: {item!r} is not ENTRY=NUMBER, in {entries()[key]}") from None
    return changed | {"name": f"{data.get('name', name)}:{changes}"}


def _read(name: str) -> tuple[Path, dict[str, Any]]:
    path = Path(name) if name.endswith(".toml") else _FOLDER / f"{name}.toml"
    if not path.is_file():
        if name.endswith(".toml"):
            raise UsageError(f"{name}: no such cost table file")
        raise unknown_name("cost table", name, names())
    try:
        return path, tomllib.loads(path.read_text(), parse_float=Fraction)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError) as error:
        raise UsageError(f"{path}: not a cost table: {error}") from error


def _section(
    path: Path,
    data: dict[str, Any],
    base: dict[str, Any],
    section: str,
    wanted: tuple[str, ...],
    unit: str,
    scale: int,
) -> dict[str, int]:
    given = data.get(section, {})
    if not isinstance(given, dict):
        raise UsageError(f"{path}: [{section}] is not a table")
    for name in given:
        if name not in wanted:
            raise unknown_name(f"{path.name}: [{section}] entry", name, wanted)
    values = {}
    for name in wanted:
        entry = given.get(name, base.get(section, {}).get(name))
        if not isinstance(entry, dict) or unit not in entry or not isinstance(entry[unit], (int, Fraction)):
            raise UsageError(f"{path}: [{section}] needs {name} = {{ {unit} = ..., source = ... }}")
        value = entry[unit] * scale
        if value < 0 or value.denominator != 1:
            raise UsageError(
                f"{path}: [{section}] {name}: {float(entry[unit])} {unit} is negative or has more than 3 decimals"
            )
        values[name] = int(value)
    return values
