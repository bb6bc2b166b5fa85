"""`replay pareto`: the settings of a finished sweep that none other beats in every figure."""

from __future__ import annotations

import argparse
from typing import Any

from replay.cli import show
from replay.cli.options import add_json
from replay.cli.outputs import PICTURES, check_outputs, save_figure
from replay.cli.sweep import FIGURES, spell_figure, spell_setting

EXAMPLES = """examples:
  replay pareto results
  replay pareto results --by design,max-bandwidth --figures downtime,bytes --plot fronts.png
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay pareto`."""
    parser.epilog = EXAMPLES + "\n" + (parser.epilog or "")
    parser.add_argument("sweep", metavar="DIR", help="folder of a finished sweep (replay sweep -o DIR)")
    parser.add_argument("--by", metavar="AXIS,...", help="what a setting is (default: every axis but seed and start)")
    parser.add_argument(
        "--figures", metavar="FIGURE,...", default="downtime,total-time,bytes,stall",
        help=f"two or more of {FIGURES} (default: downtime,total-time,bytes,stall)",
    )  # fmt: skip
    parser.add_argument("--plot", metavar="FILE", help="draw them: .png, .svg or .pdf")
    parser.add_argument("--top", type=int, default=30, metavar="N", help="show so many lines (default: 30)")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Find the fronts, show them."""
    from replay import api

    check_outputs((args.plot, PICTURES))
    by = None if args.by is None else _names(args.by)
    found = api.pareto(args.sweep, by, _names(args.figures))
    if args.plot:
        save_figure(found.plot(), args.plot)
    if args.json:
        show.print_json(found.as_dict())
        return 0
    out = show.console()
    rows = found.front.to_dicts()
    out.print(_table(found, rows[: args.top]))
    if len(rows) > args.top:
        out.print(f"... and {len(rows) - args.top} more (--top, --json)", markup=False)
    frame = found.frame
    beaten, none = int((~frame["on_front"]).sum() or 0), frame["on_front"].null_count()
    told = f"{len(rows)} of {len(frame)} settings are on a front"
    out.print(f"{told}; {beaten} are not: another is as good in all figures and better in one", markup=False)
    if none:
        out.print(f"{none} are no candidates: a run of theirs did not complete, failed or is unsafe", markup=False)
    out.print("means over seeds and start offsets; guests are not compared with one another", markup=False)
    return 0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _table(found: Any, rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(title="Pareto fronts: least of each figure", title_justify="left", box=None, pad_edge=False)
    for name in found.by:
        table.add_column(name.replace("_", "-"), overflow="fold")
    for figure in found.figures:
        table.add_column(figure.name, justify="right", no_wrap=True)
    for row in rows:
        cells = [spell_setting(name, row[name]) for name in found.by]
        table.add_row(*cells, *(spell_figure(figure, row[figure.column]) for figure in found.figures))
    return table
