"""`replay phase`: which design wins where."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from replay.cli import show
from replay.cli.options import add_json, add_run_options, add_trace, given_options
from replay.cli.outputs import PICTURES, check_outputs, save_figure

if TYPE_CHECKING:
    from replay.analysis.phase_map import Phase

FIGURES = "total-time, downtime, find-cpu, stall, stall-CAUSE, guest-lost, vcpu-lost, bytes or measured-find-cpu"
LISTED = 12
EXAMPLES = """examples:
  replay phase redis-1g --facet ring-size --figure find-cpu
  replay phase uniform --x memory=8G,32G --y dirty-rate=5000,50000 --plot phase.png
  replay phase seq-1g --x log.entries=1024,8192 --y max-bandwidth --design bitmap --design double-ring
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay phase`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES + "\n" + (parser.epilog or "")
    add_trace(parser)
    axis = "AXIS[=VALUE,...]"
    kinds = "dirty-rate (4x, or pages/s), ring-size, an option below, or a parameter of a log or design"
    parser.add_argument("--x", metavar=axis, default="memory", help=f"{kinds} (default: memory)")
    parser.add_argument("--y", metavar=axis, default="dirty-rate", help="the same (default: dirty-rate)")
    parser.add_argument("--facet", metavar=axis, help="the same: one table and one panel a value")
    parser.add_argument(
        "--design", action="append", metavar="DESIGN[:PARAMS]", help="a candidate; twice or more (default: all)"
    )
    parser.add_argument("--figure", default="total-time", metavar="FIGURE", help=f"{FIGURES} (default: total-time)")
    parser.add_argument(
        "--tie", metavar="SHARE", help="a difference up to it is a tie (default: 0.1%%, of a measured figure 5%%)"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write every run of the grid as Parquet")
    parser.add_argument("--plot", metavar="FILE", help="draw it: .png, .svg or .pdf")
    add_json(parser)
    add_run_options(parser, leave_out=("design",))


def main(args: argparse.Namespace) -> int:
    """Run the grid, show it, write it."""
    from replay import api
    from replay.units import parse_share

    check_outputs((args.output, ()), (args.plot, PICTURES))
    options = given_options(args, leave_out=("design",))
    tie = None if args.tie is None else parse_share(args.tie)
    show.note_compiling()
    with show.task_line("replays") as progress:
        phase = api.phase(
            args.trace, x=args.x, y=args.y, facet=args.facet, designs=args.design, figure=args.figure, tie=tie,
            progress=progress, **options,
        )  # fmt: skip
    if args.output:
        phase.save(args.output)
    if args.plot:
        save_figure(phase.plot(), args.plot)
    if args.json:
        show.print_json(phase.as_dict())
        return 0
    out = show.console()
    for index in range(len(phase.axes["facet"].values) if "facet" in phase.axes else 1):
        out.print(_table(phase, index))
        out.print()
    for line in _notes(phase):
        out.print(line, markup=False)
    return 0


def _table(phase: Phase, facet: int) -> Any:
    from rich.table import Table

    x, y = phase.axes["x"], phase.axes["y"]
    title = f"Least {phase.figure.meaning}"
    if "facet" in phase.axes:
        title += f"; {phase.axes['facet'].name} {phase.axes['facet'].values[facet]}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    cells = {(c["y_index"], c["x_index"]): c for c in phase.cells.to_dicts() if c["facet_index"] == facet}
    if len(x.values) > 4:
        for head in (y.name, x.name, "winner", "figure", "ahead of the next by"):
            table.add_column(head, overflow="fold")
        for (row, column), cell in cells.items():
            table.add_row(y.values[row], x.values[column], *_words(phase, cell))
        return table
    table.add_column(f"{y.name} \\ {x.name}", no_wrap=True, style="bold")
    for value in x.values:
        table.add_column(value, overflow="fold")
    for row, value in enumerate(y.values):
        table.add_row(value, *("\n".join(_words(phase, cells[row, column])) for column in range(len(x.values))))
    return table


def _words(phase: Phase, cell: dict[str, Any]) -> tuple[str, str, str]:
    """A cell in words: who, the figure, by how much."""
    from replay.cli.sweep import spell_figure

    if cell["winner"] is None:
        return "none", "-", "-"
    value = spell_figure(phase.figure, cell["value"])
    who = cell["winner"] if len(cell["tied"]) == 1 else "tie: " + ", ".join(cell["tied"])
    if cell["runner_up"] is None:
        return who, value, "no other" if len(cell["tied"]) == 1 else "no difference"
    ahead = "clear" if cell["margin"] is None else f"{100 * cell['margin']:.3g} %"
    return who, value, f"{ahead} ahead of {cell['runner_up']}"


def _notes(phase: Phase) -> list[str]:
    """Crossovers, then what could not win, then what the figures are."""
    lines = []
    found = phase.spelled(phase.crossovers)
    for row in found[:LISTED]:
        axis = phase.axes[row["along"]]
        step = row[f"{row['along']}_index"]
        fixed = [f"{phase.axes[key].name} {row[key]}" for key in phase.axes if key != row["along"]]
        at = "somewhere" if row["place"] is None else f"at {axis.spell(row['place'])}"
        lines.append(
            f"crossover, {', '.join(fixed)}: {row['before']} gives way to {row['after']} {at} between "
            f"{axis.name} {axis.values[step]} and {axis.values[step + 1]}"
        )
    if len(found) > LISTED:
        lines.append(f"... and {len(found) - LISTED} more crossovers (--json has all)")
    out: dict[str, list[str]] = {}
    everybody = phase.provenance["candidates"]
    for row in phase.spelled(phase.cells):
        where = ", ".join(f"{axis.name} {row[key]}" for key, axis in phase.axes.items())
        reasons = {name.rpartition(": ")[2] for name in row["out"]}
        alike = len(reasons) == 1 and len(row["out"]) == len(everybody)
        for name in [f"any design: {reasons.pop()}"] if alike else row["out"]:
            out.setdefault(name, []).append(where)
    for name, cells in sorted(out.items()):
        more = f" and {len(cells) - 3} more cells" if len(cells) > 3 else ""
        lines.append(f"cannot win, {name}: {'; '.join(cells[:3])}{more}")
    lines.append(
        f"{phase.provenance['replays']} replays; differences up to {100 * phase.provenance['tie']:g} % are ties"
    )
    return lines
