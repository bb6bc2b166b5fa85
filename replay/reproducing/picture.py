"""The picture of a reproduction: published and replayed figures side by side, a group a row."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from replay.analysis.plots import COLOURS
from replay.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from replay.reproducing.report import Figure as Cell
    from replay.reproducing.report import Report


def draw(report: Report) -> Figure:
    """A line a cell: a hollow mark for the published figure, a full one for the replayed. Raises UsageError.

    A diamond is a fit, a circle a prediction, an arrow at the right edge what did not converge.
    """
    try:
        from matplotlib.figure import Figure as NewFigure
        from matplotlib.lines import Line2D
    except ImportError:
        raise UsageError("plots need matplotlib: pip install 'dirtyreplay[plots]'") from None
    columns = list(dict.fromkeys(figure.place[1] for figure in report.figures))
    colours = dict(zip(columns, COLOURS * len(columns), strict=False))
    units = list(dict.fromkeys(one.unit for one in report.figures))
    groups = [[one for one in report.figures if one.unit == unit] for unit in units]
    figure = NewFigure(figsize=(8, 1.6 + 0.5 * len(groups) + 0.28 * len(report.figures)), layout="constrained")
    axes = figure.subplots(len(groups), 1, squeeze=False, height_ratios=[len(group) + 1 for group in groups])[:, 0]
    clock = "measured on this machine" if report.measured else "replayed in virtual time"
    for axis, unit, group in zip(axes, units, groups, strict=True):
        _panel(axis, group, colours)
        axis.set_xlabel(f"{unit or report.unit} ({clock})")
    figure.suptitle(report.title, fontsize="medium", x=0.01, ha="left")
    handles: list[Any] = [
        Line2D([], [], marker="o", color="0.3", markerfacecolor="white", linestyle="none", label="published"),
        Line2D([], [], marker="o", color="0.3", linestyle="none", label="replayed, prediction"),
    ]
    if any(one.kind == "fit" for one in report.figures):
        handles.append(Line2D([], [], marker="D", color="0.3", linestyle="none", label="replayed, fit"))
    if not all(math.isfinite(v) for one in report.figures for v in (one.published, one.replayed)):
        handles.append(Line2D([], [], marker=">", color="0.3", linestyle="none", label="did not converge"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _panel(axis: Any, cells: list[Cell], colours: dict[str, str]) -> None:
    """The cells of one unit, on an axis of their own."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    finite = [value for one in cells for value in (one.published, one.replayed) if math.isfinite(value)]
    edge = max(finite) * 1.6
    for y, one in enumerate(cells):
        colour, mark = colours[one.place[1]], "D" if one.kind == "fit" else "o"
        ends = [min(value, edge) for value in (one.published, one.replayed)]
        axis.plot(ends, [y, y], color=colour, linewidth=1, alpha=0.6)
        for value, end, filled in zip((one.published, one.replayed), ends, (False, True), strict=True):
            shape = mark if math.isfinite(value) else ">"
            axis.plot(end, y, shape, markersize=7, color=colour, markerfacecolor=colour if filled else "white")
    if max(finite) / min(finite) > 8:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(finite) / min(finite) < 1000 else (1,)))
        axis.xaxis.set_minor_formatter(NullFormatter())
    else:
        axis.set_xlim(left=0)
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axis.set_yticks(range(len(cells)), [f"{row}   {column}" for row, column in (cell.place for cell in cells)])
    axis.set_ylim(len(cells) - 0.5, -0.5)
    axis.grid(axis="x", which="both", alpha=0.25)
