"""`replay doctor`: what this installation and this machine can do, and how to get what is missing."""

from __future__ import annotations

import argparse

from replay.cli import show
from replay.cli.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay doctor`."""
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Look, show. Exit code 1 when something is broken; what is only missing is no error."""
    from replay.checkup import BROKEN, MISSING, checkup

    found = checkup()
    if args.json:
        show.print_json({"findings": found})
    else:
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
        for one in found:
            told = one["told"] + (f"\nto get it: {one['advice']}" if one["advice"] else "")
            style = {BROKEN: "bold", MISSING: "dim"}.get(one["status"], "")
            table.add_row(one["part"], one["status"], escape(told), style=style)
        show.console().print(table)
    return int(any(one["status"] == BROKEN for one in found))
