"""Generated guests in a file: a TOML table for the guest and one for each part, instead of one long spelling.

    [guest]
    memory = "8G"              # as the options of `replay generate`; each may be left out
    vcpus = 4
    duration = "30s"
    seed = 7

    [[part]]
    workload = "zipf"          # a workload with its parameters, by the names in `replay list workloads`,
    rate = 20000
    skew = 0.9
    within = "0-4G"            # and the keys of a mixture: on, within, source

    [[part]]
    trace = "redis-1g"         # or a recorded trace
    on = "0-1"

A table [fit] is what `replay trace fit` says of its fit; it changes nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from replay import toml_file
from replay.errors import UsageError, unknown_name

SUFFIX = ".toml"
_GUEST = ("memory", "vcpus", "duration", "seed")
_TABLES = ("guest", "part", "fit")


class Config(NamedTuple):
    """What a config file says: the spelling of its parts and guest, and the seed (None: not given)."""

    text: str
    seed: int | None


def is_config(text: str) -> bool:
    """Whether text names a config file."""
    return text.endswith(SUFFIX)


def read(path: str) -> Config:
    """The guest that a config file describes. Raises UsageError naming what is wrong with it, and where."""
    told = toml_file.read(path)
    for name in told:
        if name not in _TABLES:
            raise unknown_name(f"table of {path}:", name, _TABLES)
    guest, parts = told.get("guest", {}), told.get("part")
    if not isinstance(guest, dict):
        raise UsageError(f"{path}: guest must be a table [guest]")
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        raise UsageError(f"{path}: there must be a table [[part]] for each part of the guest")
    for name in guest:
        if name not in _GUEST:
            raise unknown_name(f"key of [guest] in {path}:", name, _GUEST)
    seed = guest.get("seed")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 1 << 63):
        raise UsageError(f"{path}: seed must be a whole number from 0 to 2^63 - 1, not {seed!r}")
    shared = {name: value for name, value in guest.items() if name != "seed"}
    return Config(spelled(shared, parts, path), seed)


def spelled(guest: dict[str, Any], parts: list[dict[str, Any]], path: str) -> str:
    """The one-line spelling of tables as they stand in a config file (path: for errors)."""
    texts = [_spelled(path, number, part) for number, part in enumerate(parts, 1)]
    texts[0] = _with(texts[0], [f"{name}={_value(path, name, value)}" for name, value in guest.items()])
    return "+".join(texts)


def _spelled(path: str, number: int, part: dict[str, Any]) -> str:
    names = [key for key in ("workload", "trace") if key in part]
    if len(names) != 1:
        raise UsageError(f"{path}: part {number} must have either workload = ... or trace = ...")
    where = f"part {number}, {names[0]}"
    name = _value(path, where, part[names[0]])
    if ":" in name:
        raise UsageError(f"{path}: {where}: parameters are keys of their own, not part of the name {name!r}")
    keys = [(key, value) for key, value in part.items() if key not in names]
    return _with(name, [f"{key}={_value(path, f'part {number}, {key}', value)}" for key, value in keys])


def _with(spelled: str, keys: list[str]) -> str:
    return spelled + (":" if ":" not in spelled else ",") + ",".join(keys) if keys else spelled


def _value(path: str, key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if not isinstance(value, str | int | float):
        raise UsageError(f"{path}: {key} must be a text or a number, not {value!r}")
    text = str(value).strip()
    if not text or any(sign in text for sign in "+,\n"):
        raise UsageError(f"{path}: {key}: {value!r} is empty or holds a plus or comma")
    return text


def toml(guest: dict[str, Any], parts: list[dict[str, Any]], fit: dict[str, Any], comment: str) -> str:
    """The text of a config file. Values are texts, numbers and booleans."""
    lines = [f"# {line}" for line in comment.splitlines()]
    for heading, table in (("[guest]", guest), *(("[[part]]", part) for part in parts), ("[fit]", fit)):
        lines += ["", heading, *(f"{key} = {_literal(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    escaped = "".join(
        {"\\": "\\\\", '"': '\\"'}.get(sign, sign if sign.isprintable() else f"\\u{ord(sign):04x}")
        for sign in str(value)
    )
    return f'"{escaped}"'
