"""Commands whose flags depend on a kind of plug-in: `replay import KIND`, `replay capture KIND`."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any


def kind_parser(command: str, plugin: str, kind: str) -> argparse.ArgumentParser:
    """A parser that says what a kind is and how to record it; `plugin`: "importer" or "capture"."""
    from replay import plugins

    return argparse.ArgumentParser(
        prog=f"replay {command} {kind}", description=f"{plugins.describe(plugin, kind).summary}.",
        epilog=plugins.constant(plugin, kind, "HOW"), formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip


def add_parameters(parser: argparse.ArgumentParser, plugin: str, kind: str, options: type) -> None:
    """A flag for each parameter of a kind, read from its source, and for each of `options`, which every kind takes."""
    from replay import plugins

    for parameter in plugins.describe(plugin, kind).parameters:
        _add_flag(parser, parameter.name, parameter.default, parameter.unit, parameter.help, parameter.choices)
    common = parser.add_argument_group("of every kind")
    for field in dataclasses.fields(options):
        _add_flag(common, field.name.replace("_", "-"), field.default, field.metadata["unit"], field.metadata["help"])


def _add_flag(parser: Any, name: str, default: Any, unit: str, text: str, choices: tuple[str, ...] = ()) -> None:
    from replay.plugins import spell
    from replay.units import format_bytes, format_duration

    shown = {"ns": format_duration, "bytes": format_bytes}.get(unit, lambda value: spell(value, unit))(default)
    shown = shown.replace(" ", "") if unit in ("ns", "bytes") else shown
    if isinstance(default, bool):
        parser.add_argument(f"--{name}", nargs="?", const="on", metavar="on|off", help=text.replace("%", "%%"))
        return
    metavar = {"ns": "TIME", "bytes": "SIZE", "share": "SHARE"}.get(unit, "")
    metavar = metavar or "|".join(choices) or ("N" if isinstance(default, int) else "TEXT")
    ending = f" (default: {shown})" if shown not in ("", "0", "0ns", "0B") else ""
    parser.add_argument(f"--{name}", metavar=metavar, help=(text + ending).replace("%", "%%"))


def given_parameters(given: argparse.Namespace, *others: str) -> dict[str, Any]:
    """The flags that were given, without those named in `others` and --json."""
    left_out = {*others, "json"}
    return {name: value for name, value in vars(given).items() if name not in left_out and value is not None}
