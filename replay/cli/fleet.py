"""`replay fleet`: a folder of guests at one bandwidth, those in trouble first."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from replay.cli import show
from replay.cli.options import add_json, add_run_options, given_options
from replay.cli.outputs import PICTURES, check_outputs, save_figure
from replay.errors import TraceError
from replay.units import format_bytes, format_duration

if TYPE_CHECKING:
    from replay.answers.fleet import Fleet

EXAMPLES = """examples:
  replay fleet captures --max-bandwidth 1Gbit/s --link 1Gbit/s
  replay fleet captures --downtime-limit 100ms --policy auto-converge --json

The exit code is 4 when files were skipped because they are no sound traces; they are named.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay fleet`."""
    parser.epilog = EXAMPLES + "\n" + (parser.epilog or "")
    parser.add_argument("folder", metavar="FOLDER", help="traces (*.parquet), in it and in folders in it")
    parser.add_argument("--starts", type=int, default=4, metavar="N", help="moments to begin at (default: 4)")
    parser.add_argument(
        "--give-up", default="60s", metavar="TIME", help="give a migration up after so long (default: 60s)"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw it: .png, .svg or .pdf")
    add_json(parser)
    add_run_options(parser, leave_out=("start", "give_up"))


def main(args: argparse.Namespace) -> int:
    """Replay all, sort them. Returns 4 when files were skipped."""
    from replay import api

    check_outputs((args.plot, PICTURES))
    show.note_compiling()
    with show.task_line("guests") as progress:
        found = api.fleet(
            args.folder, starts=args.starts, progress=progress, **given_options(args, leave_out=("start",))
        )
    for skipped in found.skipped:
        print(f"replay: skipped: {skipped['error']}", file=sys.stderr)
    if args.plot and found.rows:
        save_figure(found.plot(), args.plot)
    if args.json:
        show.print_json(found.as_dict())
    else:
        _show(found)
    return TraceError.exit_code if found.skipped else 0


def _show(found: Fleet) -> None:
    out = show.console()
    out.print(_table(found))
    never = [row for row in found.rows if row["converges"] == "never"]
    hopeless = [row for row in never if row["possible"] is False]
    out.print(
        f"{len(never)} of {len(found.rows)} guests never converge, from any of {found.starts} moments", markup=False
    )
    if hopeless:
        names = ", ".join(row["guest"] for row in hopeless)
        out.print(f"no design helps, even hindsight finds no moment within the downtime limit: {names}", markup=False)
    out.print(
        "from, in brackets: the 95 % interval of Clopper and Pearson; least: downtime with hindsight", markup=False
    )
    if found.skipped:
        out.print(f"{len(found.skipped)} files were skipped", markup=False)


def _table(found: Fleet) -> Any:
    from rich.table import Table

    from replay.analysis.guest_cost import spell_lost

    config = found.config
    limited = f"{format_bytes(config['max-bandwidth'])}/s" if config["max-bandwidth"] else "no limit"
    title = (
        f"{config['design']} on {config['log']}, {limited}, downtime-limit {config['downtime-limit']} ms; worst first"
    )
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("guest", overflow="fold")
    table.add_column("converges", no_wrap=True)
    for head in ("from", "total", "downtime", "least", "guest lost", "writes/s"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in found.rows:
        times = ["-" if row[name] is None else format_duration(row[name])
                 for name in ("total_ns", "downtime_ns", "least_downtime_ns")]  # fmt: skip
        table.add_row(
            row["guest"], row["converges"],
            f"{row['completed']}/{row['starts']} ({row['low']:.2f} to {row['high']:.2f})", *times,
            spell_lost(row, 1), f"{row['writes_per_s']:,.0f}",
        )  # fmt: skip
    return table
