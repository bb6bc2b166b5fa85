"""The picture of a grid: who wins in each cell, by how much, and the lines where the winner changes.

Cells are drawn side by side at equal sizes, whatever the distances of the values; a crossover lies where its figures
are equal on the axis's own scale. Lines join the crossovers around every corner of four cells.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from replay.analysis.plots import COLOURS
from replay.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from replay.analysis.phase_map import Phase

_MORE_COLOURS = (*COLOURS, "#F0E442", "#999999")
_PANELS_A_ROW = 3
_FAINT, _FULL_MARGIN = 0.3, 0.25  # opacity of a win by nothing, and the margin that is drawn in full
Point = tuple[float, float]


def draw(phase: Phase) -> Figure:
    """One panel a facet; a cell has its winner's colour, stronger the further ahead it is. Hatched: a tie."""
    try:
        from matplotlib.figure import Figure as NewFigure
        from matplotlib.patches import Patch
    except ImportError:
        raise UsageError("plots need matplotlib: pip install 'dirtyreplay[plots]'") from None
    n_x, n_y, n_panels = (len(phase.axes[key].values) if key in phase.axes else 1 for key in ("x", "y", "facet"))
    columns = min(n_panels, _PANELS_A_ROW)
    rows = -(-n_panels // columns)
    size = (max(6, 1.2 + columns * (0.9 + 1.5 * n_x)), 1.9 + rows * (0.9 + 0.75 * n_y))
    figure = NewFigure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat
    cells, lines = phase.cells.to_dicts(), phase.crossovers.to_dicts()
    winners = [name for name in phase.provenance["candidates"] if any(name in cell["tied"] for cell in cells)]
    colours = dict(zip(winners, _MORE_COLOURS * 8, strict=False))
    for index, panel in enumerate(panels):
        if index >= n_panels:
            panel.set_visible(False)
            continue
        for cell in cells:
            if cell["facet_index"] == index:
                _draw_cell(panel, cell, colours)
        for (a, b), known in segments([line for line in lines if line["facet_index"] == index], n_x, n_y):
            panel.plot([a[0], b[0]], [a[1], b[1]], color="black", linewidth=2, linestyle="-" if known else ":")
        _label(panel, phase, index)
    handles = [Patch(facecolor=colours[name], label=name.rpartition("/")[2]) for name in winners]
    if any(len(cell["tied"]) > 1 for cell in cells):
        handles.append(Patch(facecolor="white", edgecolor="black", hatch="///", label="tie"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, max(1, len(handles))), frameon=False)
    lines_above = (
        f"least {phase.figure.meaning}",
        phase.provenance["trace"]["title"],
        "in a cell: how much more the runner-up takes",
    )
    wide = max(40, int(size[0] * 12))
    figure.suptitle("\n".join(textwrap.fill(line, wide) for line in lines_above), fontsize="medium")
    return figure


def _draw_cell(panel: Any, cell: dict[str, Any], colours: dict[str, str]) -> None:
    from matplotlib.patches import Rectangle

    x, y, tied = cell["x_index"], cell["y_index"], cell["tied"]
    corner = (x - 0.5, y - 0.5)
    if not tied:
        panel.add_patch(Rectangle(corner, 1, 1, facecolor="white", edgecolor="0.6"))
        panel.text(x, y, "none", ha="center", va="center", color="0.4", fontsize="small")
        return
    margin = cell["margin"] or 0.0
    strength = _FAINT + (1 - _FAINT) * min(1.0, margin / _FULL_MARGIN)
    for place, name in enumerate(name for name in colours if name in tied):  # ties share the cell from left to right
        alpha = strength if len(tied) == 1 else _FAINT
        at = (x - 0.5 + place / len(tied), y - 0.5)
        panel.add_patch(Rectangle(at, 1 / len(tied), 1, facecolor=colours[name], alpha=alpha, linewidth=0))
    hatch = "///" if len(tied) > 1 else None
    panel.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="white", linewidth=1.5))
    if hatch:
        panel.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=(0, 0, 0, 0.25), hatch=hatch, linewidth=0))
    ahead = "no other" if cell["runner_up"] is None else f"+{100 * margin:.3g} %"
    text = "tie" if len(tied) > 1 else f"{_short(tied[0])}\n{ahead}"
    box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "alpha": 0.75, "linewidth": 0}
    panel.text(x, y, text, ha="center", va="center", fontsize="small", bbox=box, zorder=3)


def _short(candidate: str) -> str:
    """A candidate's spelling in at most two lines of a cell; a user's own file without its folders."""
    name, colon, parameters = candidate.rpartition("/")[2].partition(":")
    return name + (f":\n{textwrap.shorten(parameters, 22, placeholder='...')}" if colon else "")


def _label(panel: Any, phase: Phase, index: int) -> None:
    for key, set_ticks, set_label in (
        ("x", panel.set_xticks, panel.set_xlabel),
        ("y", panel.set_yticks, panel.set_ylabel),
    ):
        axis = phase.axes[key]
        set_ticks(range(len(axis.values)), axis.values)
        set_label(axis.name)
    panel.set_xlim(-0.5, len(phase.axes["x"].values) - 0.5)
    panel.set_ylim(-0.5, len(phase.axes["y"].values) - 0.5)
    panel.tick_params(length=0)
    panel.label_outer()
    if "facet" in phase.axes:
        facet = phase.axes["facet"]
        panel.set_title(f"{facet.name} {facet.values[index]}", fontsize="medium")


def segments(lines: list[dict[str, Any]], n_x: int, n_y: int) -> list[tuple[tuple[Point, Point], bool]]:
    """Lines through crossovers, in cells' coordinates, and whether the places of their ends are known.

    Around every corner of four cells two crossovers are joined; one, three or four meet at their middle. At the edge
    of the grid a line goes on straight.
    """
    points: dict[tuple[str, int, int], tuple[Point, bool]] = {}
    for line in lines:
        x, y, step = line["x_index"], line["y_index"], line["step"]
        move = 0.5 if step is None else step
        at = (x + move, float(y)) if line["along"] == "x" else (float(x), y + move)
        points[line["along"], x, y] = (at, step is not None)
    drawn = []
    for x in range(-1, n_x):
        for y in range(-1, n_y):
            sides = (("x", x, y), ("x", x, y + 1), ("y", x, y), ("y", x + 1, y))
            around = [points[side] for side in sides if side in points]
            if len(around) == 2:
                drawn.append(((around[0][0], around[1][0]), around[0][1] and around[1][1]))
                continue
            for point, known in around:
                drawn.append(((point, _middle(point, around, x, y, n_x, n_y)), known))
    return drawn


def _middle(point: Point, around: list[tuple[Point, bool]], x: int, y: int, n_x: int, n_y: int) -> Point:
    """Where a line that has no single partner goes: straight on at the grid's edge, else to the middle of all."""
    if x < 0 or x == n_x - 1:
        return (-0.5 if x < 0 else n_x - 0.5, point[1])
    if y < 0 or y == n_y - 1:
        return (point[0], -0.5 if y < 0 else n_y - 0.5)
    if len(around) == 1:
        return (x + 0.5, y + 0.5)
    return sum(p[0] for p, _ in around) / len(around), sum(p[1] for p, _ in around) / len(around)
