"""Which design wins where: from a frame of replays over a grid to its winners and the lines between them.

A frame has one row for each cell and candidate. Columns that these functions read: `facet_index`, `y_index`, `x_index`
(the cell), `x_place` and `y_place` (where it lies; null on an axis without numbers), `candidate`, `status`,
`lost_pages`, `unsafe` (why its design can lose pages, null when it claims to be safe), and the figure's own column. A
run that did not converge, lost pages or could have is named and cannot win.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replay.columns import LOSSES, LOST_PCT
from replay.errors import unknown_name

if TYPE_CHECKING:
    import polars as pl

Cell = tuple[int, int, int]  # facet, y, x


@dataclass(frozen=True, kw_only=True)
class PhaseFigure:
    """What designs are compared by: less is better. A measured one is this machine's and never beside a modelled."""

    name: str
    column: str
    unit: str
    meaning: str
    tie: float  # figures that differ by at most this share of the least are a tie

    @property
    def measured(self) -> bool:
        """Whether it is from this machine's clock."""
        return self.column.startswith("measured_")


_FIGURES = (
    PhaseFigure(
        name="total-time", column="modelled_total_ns", unit="ns", tie=0.001,
        meaning="total time, modelled",
    ),
    PhaseFigure(
        name="downtime", column="modelled_downtime_ns", unit="ns", tie=0.001,
        meaning="downtime, modelled",
    ),
    PhaseFigure(
        name="find-cpu", column="modelled_find_cpu_ns", unit="ns", tie=0.001,
        meaning="CPU time spent finding pages, modelled: harvest, sync, find and the dirty log's work beside them",
    ),
    PhaseFigure(
        name="stall", column="modelled_stall_ns", unit="ns", tie=0.001,
        meaning="stall for the dirty log, modelled, sum over vCPUs",
    ),
    PhaseFigure(
        name="guest-lost", column=LOST_PCT, unit="%", tie=0.001,
        meaning="share of its time that the guest did not run, modelled, by any cause, mean over vCPUs",
    ),
    PhaseFigure(
        name="vcpu-lost", column="modelled_lost_most_pct", unit="%", tie=0.001,
        meaning="the same share of the vCPU that lost most",
    ),
    *(
        PhaseFigure(
            name=f"stall-{cause}", column=f"modelled_{cause}_stall_ns", unit="ns", tie=0.001,
            meaning=f"time that vCPUs did not run because of it ({cause}), modelled, sum over vCPUs",
        )
        for cause in LOSSES
    ),
    PhaseFigure(
        name="bytes", column="sent_bytes", unit="bytes", tie=0.001,
        meaning="bytes sent, modelled",
    ),
    PhaseFigure(
        name="measured-find-cpu", column="measured_find_cpu_ns", unit="ns", tie=0.05,
        meaning="time of our kernels on this machine, not QEMU's: harvest, sync, find, stepping the guest",
    ),
)  # fmt: skip
FIGURES = {figure.name: figure for figure in _FIGURES}


def figure_of(name: str) -> PhaseFigure:
    """The figure of that name. Raises UsageError naming those there are."""
    if name not in FIGURES:
        raise unknown_name("figure", name, FIGURES)
    return FIGURES[name]


def cells(frame: pl.DataFrame, figure: PhaseFigure, tie: float | None = None) -> pl.DataFrame:
    """One row a cell: `winner` (least figure; of equals the first candidate), `tied` (all within the tie, the winner
    first), its `value`, `runner_up` and `margin` (how much more the runner-up has, as a share), `out` (who could not
    win, and why).

    `winner` is null where nobody could win, `runner_up` and `margin` where all who could are tied.
    """
    import polars as pl

    share = figure.tie if tie is None else tie
    rows = [_cell(cell, members, figure.column, share) for cell, members in _by_cell(frame).items()]
    schema: Any = {
        "facet_index": pl.Int32, "y_index": pl.Int32, "x_index": pl.Int32, "winner": pl.String,
        "tied": pl.List(pl.String),
        "value": pl.Float64 if figure.unit == "%" else pl.Int64,
        "runner_up": pl.String, "margin": pl.Float64, "out": pl.List(pl.String),
    }  # fmt: skip
    return pl.DataFrame(rows, schema=schema)


def crossovers(frame: pl.DataFrame, won: pl.DataFrame, figure: PhaseFigure) -> pl.DataFrame:
    """Where the winner changes between neighbours: one row a pair of cells whose winners, ties included, are disjoint.

    `along` is "x" or "y"; the cell is the one on the lower side, `before` wins there and `after` in its neighbour;
    `step` is how far from the one to the other (0 to 1) their figures are equal, and `place` where that is on the axis:
    figures are taken to change linearly over the axis's coordinate, which is the logarithm where all of it is positive.
    Both are null where one of the two could not win in both cells; `place` also on an axis without numbers.
    """
    import polars as pl

    members, winners = _by_cell(frame), {_key(row): row for row in won.to_dicts()}
    rows = []
    for along, offset in (("x", (0, 0, 1)), ("y", (0, 1, 0))):
        for cell, row in winners.items():
            beyond = (cell[0], cell[1] + offset[1], cell[2] + offset[2])
            other = winners.get(beyond)
            if other is None or not row["tied"] or not other["tied"] or set(row["tied"]) & set(other["tied"]):
                continue
            pair = (row["winner"], other["winner"])
            step = _step(members[cell], members[beyond], pair, figure.column)
            ends = [members[at][0][f"{along}_place"] for at in (cell, beyond)]
            rows.append(
                dict(zip(("facet_index", "y_index", "x_index"), cell, strict=True))
                | {"along": along, "before": pair[0], "after": pair[1]}
                | {"step": step, "place": _between(ends, step, _is_log(frame, along))}
            )
    schema: Any = {
        "facet_index": pl.Int32, "y_index": pl.Int32, "x_index": pl.Int32, "along": pl.String, "before": pl.String,
        "after": pl.String, "step": pl.Float64, "place": pl.Float64,
    }  # fmt: skip
    return pl.DataFrame(rows, schema=schema)


def _key(row: dict[str, Any]) -> Cell:
    return row["facet_index"], row["y_index"], row["x_index"]


def _by_cell(frame: pl.DataFrame) -> dict[Cell, list[dict[str, Any]]]:
    members: dict[Cell, list[dict[str, Any]]] = {}
    for row in frame.to_dicts():
        members.setdefault(_key(row), []).append(row)
    return dict(sorted(members.items()))


def reason(row: dict[str, Any]) -> str | None:
    """Why a run cannot win, None when it can."""
    if row["lost_pages"]:
        return f"unsafe, lost {row['lost_pages']:,} pages"
    if row["unsafe"]:
        return f"unsafe, {row['unsafe']}"
    return None if row["status"] == "completed" else str(row["status"])


def _cell(cell: Cell, members: list[dict[str, Any]], column: str, tie: float) -> dict[str, Any]:
    able = [row for row in members if reason(row) is None and row[column] is not None]
    able.sort(key=lambda row: row[column])
    found: dict[str, Any] = dict(zip(("facet_index", "y_index", "x_index"), cell, strict=True))
    found |= {"winner": None, "tied": [], "value": None, "runner_up": None, "margin": None}
    found["out"] = [f"{row['candidate']}: {reason(row)}" for row in members if reason(row) is not None]
    if able:
        least = able[0][column]
        tied = [row["candidate"] for row in able if row[column] - least <= tie * least]
        found |= {"winner": tied[0], "tied": tied, "value": least}
        if len(able) > len(tied):
            second = able[len(tied)]
            margin = second[column] / least - 1 if least else None
            found |= {"runner_up": second["candidate"], "margin": margin}
    return found


def _step(here: list[dict[str, Any]], there: list[dict[str, Any]], pair: tuple[str, str], column: str) -> float | None:
    """How far from one cell to the next two candidates' figures are equal."""
    ahead = []
    for members in (here, there):
        rows = {row["candidate"]: row for row in members}
        if any(reason(rows[name]) is not None or rows[name][column] is None for name in pair):
            return None
        ahead.append(rows[pair[1]][column] - rows[pair[0]][column])
    return float(ahead[0] / (ahead[0] - ahead[1]))


def _is_log(frame: pl.DataFrame, along: str) -> bool:
    places = frame[f"{along}_place"]
    return bool((places > 0).all()) and places.null_count() == 0


def _between(ends: list[float | None], step: float | None, logarithmic: bool) -> float | None:
    low, high = ends
    if step is None or low is None or high is None:
        return None
    if logarithmic:
        return math.exp(math.log(low) + step * (math.log(high) - math.log(low)))
    return low + step * (high - low)
