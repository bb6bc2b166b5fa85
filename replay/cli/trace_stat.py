"""`replay trace stat`: a trace in figures and curves, or beside another."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from replay.cli import show
from replay.cli.options import add_json
from replay.errors import ReplayError

if TYPE_CHECKING:
    from replay.describing.against import Row
    from replay.describing.stat import Stat

BARS = " ▁▂▃▄▅▆▇█"
CURVE_COLUMNS = 72
ALL_COLUMNS = 80
NARROW = ("window", "windows", "mean pages", "max", "mean size", "extent")
WORDS = """words:
  working set   distinct pages written in a window
  extent        neighbouring pages that were all written in a window, in any order: what a bitmap
                scan finds
  run           one vCPU's writes to pages each one above the one before
  reuse         time, and number of other pages written, since a page's last write (percentiles
                to within 13 %)
"""


def add_commands(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "stat", help="rate, working sets, extents, runs, reuse, skew, period; or two traces compared",
        description="Describe what a trace writes, in one pass.", epilog=WORDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("trace", metavar="TRACE", help="a trace file, a shipped trace, or WORKLOAD[:PARAMS]")
    parser.add_argument(
        "--windows", metavar="TIME,...", default="100ms,1s,10s", help="lengths of windows (default: 100ms,1s,10s)"
    )
    parser.add_argument("--against", metavar="TRACE", help="a second trace: every figure of both, and the error")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the curves, a row a window: .parquet or .csv")
    parser.add_argument("--plot", metavar="FILE", help="draw the curves: .png, .svg or .pdf")
    add_json(parser)
    parser.set_defaults(act=_stat)


def _stat(args: argparse.Namespace) -> int:
    from replay import api
    from replay.cli.outputs import PICTURES, check_outputs

    check_outputs((args.output, (".parquet", ".csv")), (args.plot, PICTURES))
    show.note_compiling()
    windows = [text.strip() for text in args.windows.split(",")]
    with show.task_line("stat") as progress:
        found = api.stat(args.trace, windows, progress)
        other = None if args.against is None else api.stat(args.against, windows, progress)
    if args.output:
        _save(found, args.output)
    if args.plot:
        from replay.analysis.stat_plot import draw
        from replay.cli.outputs import save_figure

        save_figure(draw(found), args.plot)
    if other is not None:
        return _against(args, found, other)
    if args.json:
        show.print_json(found.as_dict())
        return 0
    console = show.console()
    for table in (_figures(found.figures), _windows(found.figures, narrow=console.width < ALL_COLUMNS)):
        console.print(table)
    for line in _curves(found, min(console.width, CURVE_COLUMNS + 28)):
        console.print(line, markup=False, no_wrap=True)
    return 0


def _against(args: argparse.Namespace, found: Stat, other: Stat) -> int:
    from replay.describing.against import compare

    rows = compare(found.figures, other.figures)
    if args.json:
        figures = {"first": found.as_dict(), "second": other.as_dict(), "rows": [row._asdict() for row in rows]}
        show.print_json(figures)
    else:
        show.console().print(comparison(rows, (args.trace.rpartition("/")[2], args.against.rpartition("/")[2])))
    return 0


def comparison(rows: Sequence[Row], names: tuple[str, str]) -> Any:
    """Figures of two traces side by side, with the second's error."""
    from rich.table import Table

    table = Table(title=f"{names[1]} against {names[0]}", title_justify="left", box=None, pad_edge=False)
    table.add_column("figure", no_wrap=True)
    for name in (*names, "error"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("")
    for row in rows:
        error = "" if row.error is None else off(row.error)
        table.add_row(row.figure, number(row.first), number(row.second), error, row.unit)
    return table


def off(error: float) -> str:
    """An error of a figure as per cent, or as a factor where it is beyond ten."""
    return f"{round(100 * error, 1) + 0.0:+.1f} %" if abs(error) < 10 else f"x {error + 1:.3g}"


def number(value: float | None) -> str:
    """A figure in at most four significant digits, or all digits of a larger whole number; a dash for none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _save(found: Stat, path: str) -> None:
    frame = found.frame()
    try:
        frame.write_csv(path) if path.endswith(".csv") else frame.write_parquet(path)
    except OSError as error:
        raise ReplayError(f"{path}: cannot be written: {error.strerror or error}") from error


def _figures(f: dict[str, Any]) -> Any:
    from replay.cli.trace import pairs
    from replay.units import format_bytes, format_duration

    rate, runs, skew, reuse = f["rate"], f["runs"], f["skew"], f["reuse"]
    window = format_duration(rate["window_ns"])
    period = "none found"
    if f["period"] is not None:
        period = f"{format_duration(f['period']['period_ns'])} (autocorrelation {f['period']['strength']:.2f})"
    rows = {
        "title": f["title"],
        "writes": f"{f['n_events']:,} in {format_duration(f['duration_ns'])}, by {f['n_vcpus']} vCPUs",
        "rate": f"mean {rate['mean']:,.0f}/s; in {window}: median {rate['median']:,.0f}/s, "
        f"90 % from {rate['p5']:,.0f} to {rate['p95']:,.0f}/s, peak {rate['peak']:,.0f}/s",
        "period": period,
        "pages": f"{f['written_pages']:,} ever written ({format_bytes(f['written_pages'] * f['page_size'])}, "
        f"{f['density']:.3%} of memory)",
        "runs": f"mean {runs['mean']:.2f} pages, 95 % up to {runs['p95']:,}, longest {runs['longest']:,}; "
        f"half of the writes in runs of {runs['half_of_pages_in']:,} and less",
        "rewrites": f"{reuse['rewrites_share']:.2%} of writes go to a page that was written before",
        "reuse": "time 10, 50, 90 %: " + _spread(reuse["time_ns"], format_duration)
        + "; distance: " + _spread(reuse["distance_pages"], lambda pages: f"{pages:,.0f}") + " pages",
        "skew": f"the top 1 % of written pages take {skew['top_1pct_share']:.1%} of the writes, the top 10 % "
        f"{skew['top_10pct_share']:.1%}; half of the writes go to {skew['half_of_writes_pages']:,} pages; "
        f"like zipf with exponent {skew['zipf_exponent']:.2f}",
    }  # fmt: skip
    return pairs(f["path"], rows)


def _spread(percentiles: dict[str, float | None], text: Any) -> str:
    return ", ".join("-" if value is None else text(value) for value in percentiles.values())


def _windows(f: dict[str, Any], narrow: bool = False) -> Any:
    """A row a window length; `narrow`: the columns that say most."""
    from rich import box
    from rich.table import Table

    from replay.units import format_bytes, format_duration

    table = Table(
        title="working set and extents by window", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    headings = ("window", "windows", "mean pages", "median", "95 %", "max", "mean size", "extent", "half in")
    shown = [heading for heading in headings if not narrow or heading in NARROW]
    for heading in shown:
        table.add_column(heading, justify="right", no_wrap=heading != "mean pages")
    for w in f["windows"]:
        cells = (
            format_duration(w["window_ns"]),
            f"{w['windows']:,}",
            *(f"{w[f'{key}_unique_pages']:,.0f}" for key in ("mean", "median", "p95", "max")),
            format_bytes(w["mean_unique_pages"] * f["page_size"]),
            f"{w['extents']['mean']:.2f}",
            f"{w['extents']['half_of_pages_in']:,}",
        )
        table.add_row(*(cell for heading, cell in zip(headings, cells, strict=True) if heading in shown))
    table.caption = "extent: mean pages of one" + (
        "" if narrow else "; half in: half of the pages lie in extents of that many and less"
    )
    table.caption_justify = "left"
    return table


def _curves(found: Stat, width: int) -> list[str]:
    """Rate and working set over time, a bar a slice of the recording, in lines of at most `width`."""
    from replay.units import format_duration

    curve = found.curves[0]
    if curve.events.size < 8:
        return []
    length = format_duration(curve.window_ns)
    ends = (
        f"  peak {curve.events.max() / (curve.window_ns / 1e9):,.0f}/s",
        f"  max {curve.unique_pages.max():,} in {length}",
    )
    room = max(8, min(CURVE_COLUMNS - 16, width - 12 - max(map(len, ends))))
    return [
        f"writes      {_bars(curve.events, room)}{ends[0]}",
        f"working set {_bars(curve.unique_pages, room)}{ends[1]}",
    ]


def _bars(values: Any, columns: int) -> str:
    """Values over time in block characters from zero to the highest, each the mean of its part."""
    import numpy as np

    parts = np.array_split(values, min(columns, values.size))
    means = np.array([part.mean() for part in parts])
    heights = np.ceil(means / max(float(means.max()), 1e-9) * (len(BARS) - 1)).astype(int)
    return "".join(BARS[height] for height in heights)
