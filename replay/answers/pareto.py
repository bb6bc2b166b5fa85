"""Pareto fronts over a finished sweep: downtime, total time, bytes and guest stall against one another.

A setting is what is equal but for seed and start offset; its figures are means over those. A setting of which a run did
not complete, failed, lost pages or could have is no candidate, and is counted. Guests (traces) are never compared with
one another: each has its own front.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replay.analysis.pareto import fronts
from replay.analysis.phase import PhaseFigure, figure_of
from replay.analysis.rank import rank
from replay.errors import UsageError
from replay.sweeping.dataset import load
from replay.sweeping.summary import settings_of

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

FIGURES = ("downtime", "total-time", "bytes", "stall")


@dataclass(frozen=True, kw_only=True)
class Pareto:
    """What `replay.pareto` returns. frame: one row a setting: `by`, `runs`, a column a figure (its mean), `on_front`
    (null: not a candidate), `beaten_by` (the row of one that dominates it)."""

    frame: pl.DataFrame
    by: list[str]
    figures: list[PhaseFigure]
    sweep: str

    @property
    def front(self) -> pl.DataFrame:
        """The settings on the fronts, by the first figure."""
        import polars as pl

        apart = ["trace"] if "trace" in self.by else []
        return self.frame.filter(pl.col("on_front")).sort(*apart, *(figure.column for figure in self.figures))

    def as_dict(self) -> dict[str, Any]:
        """The object that `replay pareto --json` prints."""
        return {
            "sweep": self.sweep,
            "by": self.by,
            "figures": [
                {"name": f.name, "column": f.column, "unit": f.unit, "meaning": f.meaning} for f in self.figures
            ],
            "front": self.front.to_dicts(),
            "settings": self.frame.to_dicts(),
        }

    def plot(self) -> Figure:
        """Every two figures against each other. Needs matplotlib."""
        from replay.analysis.answer_plots import pareto_figure

        return pareto_figure(self.as_dict())


def pareto(
    folder: str | os.PathLike[str], by: Sequence[str] | None = None, figures: Sequence[str] | None = None
) -> Pareto:
    """The fronts of a finished sweep.

    by: axes or columns of `runs` (default: every axis but seed and start, and the trace where there are several).
    figures: two or more of those of replay.analysis.phase (default: downtime, total-time, bytes, stall). Raises
    UsageError, and ResultError when there is no finished sweep.
    """
    import polars as pl

    compared = [figure_of(name) for name in (FIGURES if figures is None else figures)]
    if len({figure.name for figure in compared}) < max(2, len(compared)):
        raise UsageError("a front needs two or more different figures")
    runs, names, settings = settings_of(load(Path(folder)), None if by is None else list(by))
    if "trace" not in names and runs["trace"].n_unique() > 1:
        names = ["trace", *names]
    frame: pl.DataFrame | None = None
    for figure in compared:
        ranked = rank(runs, names, figure, settings=settings)
        fine = (pl.col("completed") == pl.col("runs")) & (pl.col("unsafe") == 0)
        keys = names or ["all"]
        part = ranked.select(
            *keys, "runs", "completed", "unsafe", pl.when(fine).then(pl.col("mean")).alias(figure.column)
        )
        frame = part if frame is None else frame.join(
            part.select(*keys, figure.column), on=keys, how="left", nulls_equal=True, maintain_order="left"
        )  # fmt: skip
    assert frame is not None
    frame = fronts(frame, [figure.column for figure in compared], ["trace"] if "trace" in names else [])
    return Pareto(frame=frame, by=names or ["all"], figures=compared, sweep=os.fspath(folder))
