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
            action: Any = argparse.BooleanOptionalAction if default else "store_true"
            parser.add_argument(flag(field.name), action=action, default=default, help=meta["help"].replace("%", "%%"))
        else:
            parser.add_argument(
                flag(field.name),
                default=default,
                metavar=meta["metavar"] or "|".join(meta["choices"]),
                help=(meta["help"] + shown).replace("%", "%%"),
            )


def add_trace(parser: argparse.ArgumentParser) -> None:
    """TRACE: a file, a shipped trace by name, or a workload."""
    parser.add_argument(
        "trace",
        metavar="TRACE",
        help="a trace file, a shipped trace (replay list traces) or WORKLOAD[:PARAMS] (replay list workloads)",
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


def given_options(args: argparse.Namespace, *, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """The run's options that the flags say and that are not as they come, for a function that takes them by name."""
    return {
        field.name: value
        for field in dataclasses.fields(RunConfig)
        if field.name not in leave_out and (value := getattr(args, field.name, field.default)) != field.default
    }
