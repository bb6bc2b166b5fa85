"""Plug-ins: what files there are, what their parameters are, and how "kvm-ring:4096,pml=off" becomes a configuration.

A plug-in is one Python file in its kind's folder; its name is the file's name with hyphens. `describe` reads the
source without importing it, so that `list` and `--help` stay fast; `parse` and `configured` import it. A path to a
user's own file works wherever a name does. A plug-in file defines `Config` (a frozen keyword-only dataclass whose
fields are made by `param`), `State` (a NamedTuple of arrays) and `build(config, shape) -> State`; instead of both a
workload has `events`, a policy `build(config)`, an importer `read`, a capture `describe` and `capture`. It may define
`check(config)`, which raises UsageError for parameters that do not go together, `unsafe(config)`, which says why a
configuration can lose pages, and `STALLS_VCPUS = True` when it stops single vCPUs.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from replay import units
from replay.errors import UsageError, unknown_name

FOLDERS = {
    "log": "dirtylogs",
    "design": "designs",
    "policy": "policies",
    "workload": "workloads",
    "importer": "importers",
    "capture": "captures",
}
_DEFINES = {
    "log": ("Config", "State", "build"),
    "design": ("Config", "State", "build"),
    "policy": ("Config", "build"),
    "workload": ("Config", "events"),
    "importer": ("Config", "read"),
    "capture": ("Config", "describe", "capture"),
}
_PACKAGE = Path(__file__).resolve().parent


def param(
    default: Any,
    help: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    power_of_two: bool = False,
    choices: tuple[str, ...] = (),
) -> Any:
    """A parameter of a plug-in: a dataclass field with its meaning, unit and bounds. The first one is positional."""
    return dataclasses.field(
        default=default,
        metadata={
            "help": help,
            "unit": unit,
            "low": low,
            "high": high,
            "power_of_two": power_of_two,
            "choices": choices,
        },
    )


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter as `list` shows it."""

    name: str
    default: Any
    help: str
    unit: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Description:
    """A plug-in as `list` shows it: read from its source, not imported."""

    kind: str
    name: str
    summary: str
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A plug-in with its parameters settled. `label` spells them so that `parse` gives the same plug-in again."""

    kind: str
    name: str
    module: ModuleType
    config: Any

    @property
    def label(self) -> str:
        """NAME:VALUE,key=value with the first parameter if it is a number, and whatever is not at its default."""
        texts = []
        for index, field in enumerate(dataclasses.fields(self.config)):
            value = getattr(self.config, field.name)
            number = isinstance(value, int) and not isinstance(value, bool)
            if index == 0 and (number or value != field.default):
                texts.append(spell(value, field.metadata["unit"]))
            elif value != field.default:
                texts.append(f"{field.name.replace('_', '-')}={spell(value, field.metadata['unit'])}")
        return self.name + (":" + ",".join(texts) if texts else "")

    @property
    def unsafe(self) -> str | None:
        """Why this plug-in, with these parameters, can lose pages; None when it claims to be safe."""
        why = getattr(self.module, "unsafe", None)
        return None if why is None else why(self.config)

    def build(self, shape: Any) -> Any:
        """The plug-in's state for a guest of this shape."""
        return self.module.build(self.config, shape)


def spell(value: Any, unit: str) -> str:
    """A parameter's value as `parse` takes it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value}ns" if unit == "ns" else str(value)


def names(kind: str) -> list[str]:
    """The names of a kind's plug-ins: the files in its folder."""
    folder = _PACKAGE / FOLDERS[kind]
    return sorted(path.stem.replace("_", "-") for path in folder.glob("*.py") if not path.stem.startswith("_"))


def _source(kind: str, name: str) -> Path:
    path = Path(name)
    if path.suffix == ".py":
        if not path.is_file():
            raise UsageError(f"{name}: no such file (a {kind} plug-in of your own is given as its path)")
        return path
    path = _PACKAGE / FOLDERS[kind] / f"{name.replace('-', '_')}.py"
    if name not in names(kind):
        raise unknown_name(kind, name, names(kind))
    return path


def describe(kind: str, name: str) -> Description:
    """What a plug-in is and takes, from its source alone."""
    tree = ast.parse(_source(kind, name).read_text())
    summary = (ast.get_docstring(tree) or "").split("\n", 1)[0].rstrip(".")
    parameters: list[Parameter] = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == "Config":
            parameters = [_parameter(item) for item in node.body if isinstance(item, ast.AnnAssign)]
    return Description(kind=kind, name=name, summary=summary, parameters=tuple(parameters))


def constant(kind: str, name: str, wanted: str) -> str:
    """A text that a plug-in's file gives a name to, from its source alone; "" when there is none."""
    for node in ast.parse(_source(kind, name).read_text()).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [wanted]:
            return str(ast.literal_eval(node.value))
    return ""


def _parameter(node: ast.AnnAssign) -> Parameter:
    call = node.value
    assert isinstance(call, ast.Call), "a Config field is made by param(default, help, ...)"
    assert isinstance(node.target, ast.Name)
    options = {item.arg: ast.literal_eval(item.value) for item in call.keywords}
    default, text = (ast.literal_eval(item) for item in call.args)
    return Parameter(
        name=node.target.id.replace("_", "-"), default=default, help=text, unit=options.get("unit", ""),
        choices=tuple(options.get("choices", ())),
    )  # fmt: skip


def parse(kind: str, text: str) -> Plugin:
    """A plug-in from "NAME", "NAME:VALUE" or "NAME:VALUE,key=value"; NAME may be a path ending in .py.

    Raises UsageError naming what exists and the nearest spelling when a name or a parameter is unknown.
    """
    name, _, given = text.strip().partition(":")
    module = _load(kind, name, _source(kind, name))
    fields = {field.name: field for field in dataclasses.fields(module.Config)}
    values: dict[str, str] = {}
    for position, item in enumerate(part for part in given.split(",") if part.strip()):
        key, equals, value = item.partition("=")
        if not equals:
            if position or not fields:
                raise UsageError(f"{text!r}: {item!r} is not of the form key=value")
            key, value = next(iter(fields)), item
        key = key.strip().replace("-", "_")
        if key not in fields:
            raise unknown_name(
                f"parameter of {kind} {name}:", key.replace("_", "-"), [n.replace("_", "-") for n in fields]
            )
        if key in values:
            raise UsageError(f"{text!r}: {key.replace('_', '-')} is given twice")
        values[key] = value.strip()
    return _settled(kind, name, module, values)


def configured(kind: str, name: str, values: dict[str, str]) -> Plugin:
    """A plug-in with parameters given one by one, as a command's flags are; raises UsageError as `parse` does."""
    return _settled(kind, name, _load(kind, name, _source(kind, name)), values)


def _settled(kind: str, name: str, module: ModuleType, texts: dict[str, str]) -> Plugin:
    values = converted(module.Config, texts, f"{kind} {name}")
    shown = Path(name).stem if name.endswith(".py") else name
    config = module.Config(**values)
    check = getattr(module, "check", None)
    if check is not None:
        check(config)
    return Plugin(kind=kind, name=shown, module=module, config=config)


def converted(config_class: Any, texts: dict[str, str], owner: str) -> dict[str, Any]:
    """The values of a Config's fields from texts. Raises UsageError for one that is unknown or out of bounds."""
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    for key in texts.keys() - fields.keys():
        known = [name.replace("_", "-") for name in fields]
        raise unknown_name(f"parameter of {owner}:", key.replace("_", "-"), known)
    return {key: _convert(fields[key], text, owner) for key, text in texts.items()}


def _convert(field: Any, text: str, owner: str) -> Any:
    where = f"{owner}: {field.name.replace('_', '-')}"
    meta = field.metadata
    if isinstance(field.default, bool):
        if text.lower() not in ("on", "off", "true", "false", "yes", "no", "1", "0"):
            raise UsageError(f"{where} is on or off, not {text!r}")
        return text.lower() in ("on", "true", "yes", "1")
    if isinstance(field.default, int | float):
        value = _number(field, text, where)
        if meta["low"] is not None and value < meta["low"]:
            raise UsageError(f"{where} must be at least {meta['low']} {meta['unit']}, not {text}")
        if meta["high"] is not None and value > meta["high"]:
            raise UsageError(f"{where} must be at most {meta['high']} {meta['unit']}, not {text}")
        if meta["power_of_two"] and (value <= 0 or int(value) & (int(value) - 1)):
            raise UsageError(f"{where} must be a power of two, not {text}")
        return value
    if meta["choices"] and text not in meta["choices"]:
        raise unknown_name(f"{where}", text, meta["choices"])
    return text


def _number(field: Any, text: str, where: str) -> int | float:
    parsers: dict[str, Any] = {
        "ns": units.parse_duration_ns, "share": units.parse_share, "pages/s": units.parse_page_rate
    }  # fmt: skip
    if isinstance(field.default, int) or field.metadata["unit"] in parsers:
        number: int | float = parsers.get(field.metadata["unit"], units.parse_bytes)(text)
        return number
    with contextlib.suppress(ValueError):
        if math.isfinite(value := float(text)):
            return value
    raise UsageError(f"{where} is a number, not {text!r}")


def _load(kind: str, name: str, path: Path) -> ModuleType:
    if not name.endswith(".py"):
        return importlib.import_module(f"replay.{FOLDERS[kind]}.{path.stem}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    module_name = f"replay_user_{path.stem}_{digest}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    if "State" in _DEFINES[kind]:
        from replay import jit

        jit.add_sources((path,))
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise UsageError(f"{path}: fails to import: {type(error).__name__}: {error}") from error
    for needed in _DEFINES[kind]:
        if not hasattr(module, needed):
            raise UsageError(f"{path}: a {kind} plug-in must define {needed}")
    return module
