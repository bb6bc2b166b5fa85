"""`replay trace heatmap`: writes by address and time, in the terminal or as a picture."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from replay.cli import show
from replay.cli.options import add_json
from replay.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from replay.describing.heat import Heat

PICTURE_CELLS = (800, 400)
LINES = 22
LABEL_COLUMNS = 11
TIME_UNITS = (("s", 1e9), ("ms", 1e6), ("us", 1e3), ("ns", 1.0))
ADDRESS_UNITS = (("G", 1 << 30, 3), ("M", 1 << 20, 2), ("K", 1 << 10, 0))
SHADES = " .:-=+*#%@"
# Seven colours of matplotlib's viridis, from few writes to many: on a terminal's dark ground light is many.
COLOURS = ((68, 1, 84), (68, 57, 131), (49, 104, 142), (33, 145, 140), (53, 183, 121), (144, 215, 67), (253, 231, 37))


def add_commands(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "heatmap", help="writes by address and time, in the terminal or as a picture",
        description="Draw writes by address and time: in the terminal, or with -o as a picture.",
    )  # fmt: skip
    parser.add_argument("trace", metavar="TRACE", help="a trace file, a shipped trace, or WORKLOAD[:PARAMS]")
    parser.add_argument("-o", "--output", metavar="FILE", help="write a picture: .png, .svg or .pdf")
    parser.add_argument("--from", dest="start", metavar="TIME", default="0", help="from then on (default: the start)")
    parser.add_argument("--to", dest="end", metavar="TIME", help="up to then (default: the end)")
    parser.add_argument("--within", metavar="LOW-HIGH", help="only this memory: 0-512M or 25%%-50%%")
    parser.add_argument(
        "--bins", metavar="COLUMNSxROWS", help="cells (default: 800x400 in a picture, what fits in the terminal)"
    )
    parser.add_argument(
        "--address",
        metavar="gib|page",
        default="gib",
        help="vertical axis (default: gib; mib or kib where little is shown)",
    )
    add_json(parser)
    parser.set_defaults(act=_heatmap)


def _heatmap(args: argparse.Namespace) -> int:
    from replay import api
    from replay.cli.outputs import PICTURES, check_outputs, save_figure

    check_outputs((args.output, PICTURES))
    if args.address not in ("gib", "page"):
        raise UsageError(f"--address {args.address}: the vertical axis counts gib or page")
    console = show.console()
    columns, rows = _bins(args, console)
    show.note_compiling()
    with show.task_line("heatmap") as progress:
        heat = api.heatmap(
            args.trace, rows=rows, columns=columns, start=args.start, end=args.end, within=args.within,
            progress=progress,
        )  # fmt: skip
    if args.output:
        from replay.analysis.heat_plot import draw

        save_figure(draw(heat, address=args.address), args.output)
    if args.json:
        show.print_json(as_dict(heat) | {"path": args.output})
    elif args.output:
        print(f"{args.output}: {int(heat.cells.sum()):,} of {heat.n_events:,} writes, {columns}x{rows} cells")
    else:
        for line in text(heat, console, args.address):
            console.print(line)
    return 0


def _bins(args: argparse.Namespace, console: Console) -> tuple[int, int]:
    """Columns and rows of the grid."""
    if args.bins:
        columns, x, rows = args.bins.lower().partition("x")
        if not x or not all(part.isascii() and part.isdecimal() and int(part) for part in (columns, rows)):
            raise UsageError(f"--bins {args.bins}: write columns and rows like 800x400")
        if not args.output and not args.json and int(columns) + LABEL_COLUMNS > console.width:
            raise UsageError(
                f"--bins {args.bins}: only {console.width - LABEL_COLUMNS} columns fit here; or use -o FILE"
            )
        return int(columns), int(rows)
    if args.output or args.json:
        return PICTURE_CELLS
    return max(8, console.width - LABEL_COLUMNS), LINES * (2 if coloured(console) else 1)


def coloured(console: Console) -> bool:
    """Whether cells are drawn in colour, two to a character, or as one shade each."""
    return console.color_system in ("256", "truecolor") and not console.no_color


def as_dict(heat: Heat) -> dict[str, Any]:
    """The grid, ready for JSON; row 0 has the lowest addresses."""
    names = ("from_ns", "to_ns", "first_page", "end_page", "page_size", "title", "n_events")
    return {name: getattr(heat, name) for name in names} | {"cells": heat.cells.tolist()}


def text(heat: Heat, console: Console, address: str) -> list[Text]:
    """Lines for a terminal: highest addresses above, labels on the left, time below, then the scale."""
    import numpy as np
    from rich.text import Text

    most = max(2, int(heat.cells.max()))
    level = np.where(heat.cells > 0, np.log(np.maximum(heat.cells, 1)) / np.log(most), -1.0)[::-1]
    colour = coloured(console)
    if colour and level.shape[0] % 2:
        level = np.vstack([np.full((1, level.shape[1]), -1.0), level])
    lines = level.shape[0] // (2 if colour else 1)
    out = [Text(heat.title, style="bold", overflow="ellipsis")]
    for line in range(lines):
        label = _label(heat, 1 - line / lines, address) if line % 4 == 0 else ""
        row = Text(f"{label:>{LABEL_COLUMNS - 2}} " + ("┤" if label else "│"))
        if colour:
            for upper, lower in zip(level[2 * line].tolist(), level[2 * line + 1].tolist(), strict=True):
                row.append(*_halves(upper, lower))
        else:
            row.append("".join(_shade(value) for value in level[line].tolist()))
        out.append(row)
    width = level.shape[1]
    bottom = _label(heat, 0, address)
    out.append(Text(f"{bottom:>{LABEL_COLUMNS - 2}} └" + "─" * width))
    unit, scale = next(((u, s) for u, s in TIME_UNITS if heat.to_ns - heat.from_ns >= s), TIME_UNITS[-1])
    begin, end = (f"{ns / scale:.6g} {unit}" for ns in (heat.from_ns, heat.to_ns))
    out.append(Text(" " * LABEL_COLUMNS + begin + end.rjust(max(width - len(begin), len(end) + 1))))
    out.append(_scale(heat, most, colour))
    return out


def _label(heat: Heat, share: float, address: str) -> str:
    page = heat.first_page + share * (heat.end_page - heat.first_page)
    if address == "page":
        return f"{page:,.0f}"
    shown = (heat.end_page - heat.first_page) * heat.page_size
    unit, scale, digits = next((row for row in ADDRESS_UNITS if shown >= row[1] // 4), ADDRESS_UNITS[-1])
    return f"{page * heat.page_size / scale:,.{digits}f} {unit}"


def _halves(upper: float, lower: float) -> tuple[str, str]:
    """A character and style for two cells, one above the other; below 0: no write."""
    if upper < 0 and lower < 0:
        return " ", ""
    if lower < 0:
        return "▀", _colour(upper)
    if upper < 0:
        return "▄", _colour(lower)
    return "▀", f"{_colour(upper)} on {_colour(lower)}"


def _colour(level: float) -> str:
    at = min(level, 1.0) * (len(COLOURS) - 1)
    index = min(int(at), len(COLOURS) - 2)
    mixed = (a + (b - a) * (at - index) for a, b in zip(COLOURS[index], COLOURS[index + 1], strict=True))
    return "rgb({},{},{})".format(*(round(part) for part in mixed))


def _shade(level: float) -> str:
    return " " if level < 0 else SHADES[1 + min(int(level * (len(SHADES) - 1)), len(SHADES) - 2)]


def _scale(heat: Heat, most: int, colour: bool) -> Text:
    """The key: what the faintest and the strongest cell mean."""
    from rich.text import Text

    from replay.units import format_bytes, format_duration

    steps = [step / 8 for step in range(9)]
    row = Text("1 ")
    for step in steps:
        row.append("█" if colour else _shade(step), _colour(step) if colour else "")
    cell_ns = (heat.to_ns - heat.from_ns) / heat.cells.shape[1]
    pages = (heat.end_page - heat.first_page) / heat.cells.shape[0]
    row.append(f"  {most:,} writes in {format_duration(cell_ns)} x {format_bytes(pages * heat.page_size)} (log scale)")
    return row
