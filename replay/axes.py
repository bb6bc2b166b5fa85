"""The axes of a grid of replays: any option of a run, any parameter of its plug-ins or costs, and two that are neither.

`dirty-rate` speeds the guest up ("4x") or says its pages a second; `ring-size` sets the first parameter of a design
where that counts entries. A parameter is named as in a spelling (reaper-period), with its owner in front where the
name alone could mean two things (log.entries, design.entries, policy.initial, costs.refind_calls). A design without it
is the same all along the axis.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from replay import plugins, units
from replay.config import RunConfig
from replay.errors import UsageError, unknown_name

GIB = 1 << 30
DIRTY_RATE, RING_SIZE = "dirty-rate", "ring-size"
SHOWN_VALUES = {
    DIRTY_RATE: ("0.25x", "1x", "4x"),
    RING_SIZE: ("1024", "65536"),
    "max-bandwidth": ("1Gbit/s", "10Gbit/s", "25Gbit/s"),
    "downtime-limit": ("30ms", "300ms", "3s"),
    "link": ("1Gbit/s", "10Gbit/s", "25Gbit/s"),
    "zero-share": ("0%", "50%", "90%"),
}
"""Values of an axis that is given without any; `memory` and what has choices have theirs below."""
_OPTIONS = {field.name: field for field in dataclasses.fields(RunConfig)}
NOT_AXES = ("design", "check", "formulation")
Owned = dict[str, list[str]]
"""Spellings of the plug-ins whose parameters can be axes, by kind: "log", "design", "policy", "costs"."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What one replay of a grid is made of; `factor` multiplies the guest's dirty rate."""

    log: str
    design: str
    options: dict[str, Any]
    factor: Fraction = Fraction(1)

    def config(self) -> RunConfig:
        """The run's configuration; raises UsageError for anything senseless in it."""
        config = RunConfig(log=self.log, design=self.design, **self.options)
        _check_plugin("log", config.log)
        _check_plugin("design", config.design)
        if config.policy:
            _check_plugin("policy", config.policy)
        return config


@dataclass(frozen=True, kw_only=True)
class Axis:
    """An axis: values as people write them, and their places on it (None: they have no order)."""

    name: str
    values: tuple[str, ...]
    places: tuple[float, ...] | None
    owner: str | None  # whose parameter it is: the "log"'s, "design"'s, "policy"'s, "costs"'s, or the run's own
    parameter: str
    base_rate: Fraction  # events a second of the guest as it is

    def spell(self, place: float) -> str:
        """A place on the axis for people."""
        if self.name == DIRTY_RATE:
            return f"{place:,.0f} pages/s ({place / float(self.base_rate):.3g}x)"
        if self.name in ("memory", "max-bandwidth", "link"):
            return units.format_bytes(place) + ("" if self.name == "memory" else "/s")
        return f"{place:,.4g}" + (" ms" if self.name == "downtime-limit" else "")

    def apply(self, setting: Setting, value: str) -> Setting:
        """The setting with this axis at `value`."""
        if self.name == DIRTY_RATE:
            return dataclasses.replace(setting, factor=_factor(value, self.base_rate))
        if self.owner == "log":
            return dataclasses.replace(setting, log=_with("log", setting.log, self.parameter, value))
        if self.owner == "design":
            parameter = _entries_of(setting.design) if self.name == RING_SIZE else self.parameter
            return dataclasses.replace(setting, design=_with("design", setting.design, parameter, value))
        if self.name == "log":
            return dataclasses.replace(setting, log=value)
        if self.name == "design":
            return dataclasses.replace(setting, design=value)
        if self.owner is not None:
            spelled = str(setting.options.get(self.owner, _OPTIONS[self.owner].default))
            changed = _with(self.owner, spelled, self.parameter, value)
            return dataclasses.replace(setting, options=setting.options | {self.owner: changed})
        return dataclasses.replace(setting, options=setting.options | {self.parameter: _typed(self.parameter, value)})


def make(text: str, *, log: str, designs: list[str], memory_bytes: int, base_rate: Fraction) -> Axis:
    """An axis from "NAME" or "NAME=VALUE,VALUE,...". Raises UsageError naming the axes that there are."""
    name, equals, given = text.strip().partition("=")
    name = name.strip()
    values = tuple(item.strip() for item in given.split(",") if item.strip())
    owner, parameter = _owner(name, {"log": [log], "design": designs})
    if not equals:
        values = _shown(name, owner, parameter, memory_bytes, log, designs)
    if not values:
        raise UsageError(f"axis {name}: give its values, {name}=VALUE,VALUE,...")
    if len(set(values)) < len(values):
        raise UsageError(f"axis {text!r}: a value is given twice")
    places = [_place(name, owner, parameter, value, log, designs, base_rate) for value in values]
    numbers = tuple(place for place in places if place is not None)
    ordered = len(numbers) == len(values)
    if ordered and sorted(set(numbers)) != list(numbers):
        raise UsageError(f"axis {text!r}: values must rise from left to right")
    return Axis(
        name=name,
        values=values,
        places=numbers if ordered else None,
        owner=owner,
        parameter=parameter,
        base_rate=base_rate,
    )


def unvalued(name: str, owned: Owned, base_rate: Fraction) -> Axis:
    """The axis of that name, whose values are still to be told (Axis.apply). Raises UsageError naming those there are.

    Here NOT_AXES are axes too, and so are parameters of the policies and cost tables in `owned`.
    """
    owner, parameter = (None, name) if name in NOT_AXES else _owner(name, owned)
    return Axis(name=name, values=(), places=None, owner=owner, parameter=parameter, base_rate=base_rate)


def known(owned: Owned) -> list[str]:
    """Every axis there is for these plug-ins."""
    options = [field.name.replace("_", "-") for field in dataclasses.fields(RunConfig) if field.name not in NOT_AXES]
    of_plugins = {kind: spellings for kind, spellings in owned.items() if kind != "costs"}
    own = {
        f"{kind}.{name}" for kind, spellings in of_plugins.items() for s in spellings for name in _parameters(kind, s)
    }
    more = ["costs.ENTRY", *NOT_AXES] if "costs" in owned else []
    return [DIRTY_RATE, RING_SIZE, *options, *sorted(own), *more]


def _owner(name: str, owned: Owned) -> tuple[str | None, str]:
    """Whose parameter an axis is (a kind of plug-in; None: the run's), and its name as the field of a dataclass."""
    if name == DIRTY_RATE:
        return None, name
    if name == RING_SIZE:
        return "design", name
    field = name.replace("-", "_")
    if field in {option.name for option in dataclasses.fields(RunConfig)} and name not in NOT_AXES:
        return None, field
    prefix, dot, parameter = name.partition(".")
    found = {kind: {key for s in spellings for key in _parameters(kind, s)} for kind, spellings in owned.items()}
    if dot and prefix in found and parameter in found[prefix]:
        return prefix, parameter
    owners = [kind for kind, parameters in found.items() if name in parameters]
    if len(owners) > 1:
        raise UsageError(f"axis {name} could be {' or '.join(f'{kind}.{name}' for kind in owners)}; say which")
    if owners:
        return owners[0], name
    raise unknown_name("axis", name, known(owned))


def rings_of(log: str, design: str, sizes: tuple[int, ...]) -> list[dict[str, str]]:
    """Changes that give the log or the design rings of other sizes: [{"log": spelling}, ..., {"design": spelling}]."""
    changes = []
    for kind, spelled in (("log", log), ("design", design)):
        first = next(iter(_parameters(kind, spelled).values()), None)
        if first is None or first.unit != "entries":
            continue
        held = getattr(plugins.parse(kind, spelled).config, first.name.replace("-", "_"))
        changes += [{kind: _with(kind, spelled, first.name, str(size))} for size in sizes if size != held]
    return changes


@functools.lru_cache(1024)
def _check_plugin(kind: str, spelled: str) -> None:
    """Raises UsageError where the spelling makes no sense."""
    plugins.parse(kind, spelled)


def _parameters(kind: str, spelled: str) -> dict[str, plugins.Parameter]:
    name = spelled.partition(":")[0]
    return _parameters_of(kind, name) if name else {}


@functools.lru_cache(256)
def _parameters_of(kind: str, name: str) -> dict[str, plugins.Parameter]:
    if kind == "costs":
        from replay.migration.costs import entries

        return {key: plugins.Parameter(name=key, default=0, help="", unit=unit) for key, unit in entries().items()}
    return {parameter.name: parameter for parameter in plugins.describe(kind, name).parameters}


def _entries_of(design: str) -> str:
    """A design's first parameter if it counts entries, or a name that no plug-in has."""
    first = next(iter(_parameters("design", design).values()), None)
    return first.name if first is not None and first.unit == "entries" else ""


def _with(kind: str, spelled: str, parameter: str, value: str) -> str:
    """A plug-in's spelling with one parameter changed; the same spelling when it has no such parameter."""
    there = list(_parameters(kind, spelled))
    if parameter not in there:
        return spelled
    name, _, given = spelled.partition(":")
    items = [item.strip() for item in given.split(",") if item.strip()]
    kept = [item for item in items if (item.partition("=")[0] if "=" in item else there[0]) != parameter]
    return f"{name}:{','.join([*kept, f'{parameter}={value}'])}"


def _typed(field: str, value: str) -> Any:
    """An option's value; texts stay texts, which RunConfig reads."""
    option = _OPTIONS[field]
    if value == "none" and option.default in (None, ""):
        return option.default
    if option.type != "bool":
        return value
    if value not in ("on", "off"):
        raise UsageError(f"axis {field.replace('_', '-')} is on or off, not {value!r}")
    return value == "on"


def _factor(value: str, base_rate: Fraction) -> Fraction:
    if not value.endswith("x"):
        return units.parse_page_rate(value) / base_rate
    try:
        factor = Fraction(value[:-1])
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"dirty rate {value!r} is not a multiple; write 0.25x or 4x, or pages a second") from None
    return factor


def _place(
    name: str, owner: str | None, parameter: str, value: str, log: str, designs: list[str], base_rate: Fraction
) -> float | None:
    """Where a value lies on its axis, None when it is no number. Raises UsageError when it makes no sense."""
    if name == DIRTY_RATE:
        if (factor := _factor(value, base_rate)) <= 0:
            raise UsageError(f"a dirty rate of {value} is no rate")
        return float(factor * base_rate)
    if owner is None:
        if name == "log":
            return None
        held = getattr(RunConfig(**{parameter: _typed(parameter, value)}), parameter)
    else:
        held = None
        for spelled in [log] if owner == "log" else designs:
            changed = _entries_of(spelled) if name == RING_SIZE else parameter
            if changed in _parameters(owner, spelled):
                config = plugins.parse(owner, _with(owner, spelled, changed, value)).config
                held = getattr(config, changed.replace("-", "_"))
        if held is None:
            raise UsageError(f"axis {name}: none of the designs has such a parameter; add one that has (--design)")
    return None if isinstance(held, bool | str) or held is None else float(held)


def _shown(
    name: str, owner: str | None, parameter: str, memory_bytes: int, log: str, designs: list[str]
) -> tuple[str, ...]:
    """Values for an axis that was given none."""
    if name in SHOWN_VALUES:
        return SHOWN_VALUES[name]
    if name == "memory":
        least = max(8, -(-memory_bytes // GIB))
        return tuple(f"{least * times}G" for times in (1, 4, 12))
    if name == "log":
        return tuple(plugins.names("log"))
    if owner is None:
        field = {field.name: field for field in dataclasses.fields(RunConfig)}[parameter]
        return ("off", "on") if field.type == "bool" else field.metadata["choices"]
    for spelled in [log] if owner == "log" else designs:
        found = _parameters(owner, spelled).get(parameter)
        if found is not None and isinstance(found.default, bool):
            return ("off", "on")
    return ()
