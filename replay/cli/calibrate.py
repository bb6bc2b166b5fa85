"""`replay calibrate`: this machine's costs, or a host's from its migrations, as a cost table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from replay.cli import show
from replay.cli.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay calibrate`."""
    parser.add_argument(
        "--from-case", metavar="CASE_DIR", nargs="+", help="fit a host's figures from its recorded migrations"
    )
    parser.add_argument(
        "--base", metavar="TABLE", help="table for what is not fitted or measured (default: tcg-2core, or generic-x86)"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write the cost table (.toml), for --costs FILE")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Fit or measure, show, write."""
    from replay.migration import costs
    from replay.validation import calibration, machine_costs, table_file

    base = costs.load(args.base or ("tcg-2core" if args.from_case else costs.DEFAULT))
    if args.from_case:
        fitted = calibration.fit([Path(folder) for folder in args.from_case], base)
        rows, table, sources = fitted.rows(), fitted.table, fitted.sources()
        heads: tuple[str, ...] = ("figure", "fitted_us", "quartiles_us", "cases", "worst_us", "worst_case")
    else:
        show.note_compiling()
        measured = machine_costs.measure(base)
        rows, table, sources = measured.rows(), measured.table, measured.sources()
        heads = ("figure", "median_ns", "quartiles_ns", "table_ns")
    if args.output:
        table_file.write(table, sources, Path(args.output))
    if args.json:
        show.print_json({"figures": rows, "table": table.name})
        return 0
    out = show.console()
    out.print(_shown(rows, heads))
    out.print(
        f"everything else as in {base.name}" + (f"; written to {args.output}" if args.output else ""), markup=False
    )
    return 0


def _shown(rows: list[dict[str, Any]], heads: tuple[str, ...]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, head in enumerate(heads):
        table.add_column(head.replace("_", " "), justify="left" if index == 0 or head == "worst_case" else "right")
    for row in rows:
        table.add_row(*(_cell(row[head]) for head in heads))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(f"{item:,}" for item in value)
    return f"{value:,}" if isinstance(value, int | float) else str(value)
