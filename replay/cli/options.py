"""Command-line flags made from the fields of RunConfig, and back."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from replay.config import RunConfig, flag


def add_run_options(parser: argparse.ArgumentParser, *, leave_out: tuple[str, ...] = ()) -> None:
    """A flag for every field of RunConfig."""
    for field in dataclasses.fields(RunConfig):
        if field.name in leave_out:
            continue
        meta, default = field.metadata, field.default
        shown = "" if default in (None, False) else f" (default: {default})"
        if field.type == "bool":
            name = flag(field.name)
            names = [name] if default is False else [name, "--no-" + name[2:]]
            action: Any = "store_true" if default is False else argparse.BooleanOptionalAction
            parser.add_argument(names[0], action=action, default=default, help=meta["help"].replace("%", "%%"))
        else:
            parser.add_argument(
                flag(field.name),
                default=default,
                metavar=meta["metavar"] or "|".join(meta["choices"]),
                help=(meta["help"] + shown).replace("%", "%%"),
            )


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json: one object on standard output instead of tables."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def run_config(args: argparse.Namespace, **changes: Any) -> RunConfig:
    """The RunConfig that the flags say."""
    given = {
        field.name: getattr(args, field.name) for field in dataclasses.fields(RunConfig) if hasattr(args, field.name)
    }
    return RunConfig(**(given | changes))
