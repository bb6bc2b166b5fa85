"""`replay trace list | card`: the shipped traces, and what is known of one."""

from __future__ import annotations

import argparse
from typing import Any

from replay.cli import show
from replay.cli.options import add_json

ALL_COLUMNS = 90


def add_commands(commands: Any) -> None:
    """Adds both subcommands."""
    listing = commands.add_parser("list", help="the shipped traces", description="List the shipped traces.")
    add_json(listing)
    listing.set_defaults(act=_list)
    card = commands.add_parser(
        "card", help="a shipped trace's data card", description="Print a shipped trace's data card (Markdown)."
    )
    card.add_argument("name", metavar="NAME", help="name of a shipped trace (replay trace list)")
    add_json(card)
    card.set_defaults(act=_card)


def _list(args: argparse.Namespace) -> int:
    from replay import api

    entries = api.shipped_traces()
    if args.json:
        show.print_json({"traces": entries})
        return 0
    console = show.console()
    console.print(table(entries, narrow=console.width < ALL_COLUMNS))
    return 0


def table(entries: list[dict[str, Any]], narrow: bool = False) -> Any:
    """The shipped traces, a row each; `narrow`: without what an `info` says better."""
    from rich.table import Table

    from replay.units import format_bytes, format_duration

    out = Table(title="traces", title_justify="left", box=None, pad_edge=False)
    out.add_column("name", style="bold", no_wrap=True)
    for heading in ("length",) if narrow else ("events", "length", "memory"):
        out.add_column(heading, justify="right", no_wrap=True)
    if not narrow:
        out.add_column("seen", no_wrap=True)
    out.add_column("what")
    for entry in entries:
        length = format_duration(entry["duration_ns"])
        if narrow:
            out.add_row(entry["name"], length, entry["title"])
            continue
        gap = "" if entry["gap_ns"] is None else f", {format_duration(entry['gap_ns'])}"
        out.add_row(
            entry["name"], f"{entry['events']:,}", length, format_bytes(entry["memory_bytes"]),
            entry["capture"] + gap, entry["title"],
        )  # fmt: skip
    return out


def _card(args: argparse.Namespace) -> int:
    from replay.trace import shipped

    card = shipped.card(args.name)
    if args.json:
        entry = next(item for item in shipped.index() if item["name"] == args.name)
        show.print_json(entry | {"card": card})
    else:
        print(card, end="")
    return 0
