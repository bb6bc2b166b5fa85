"""A finished sweep as a ranking: the axes of its plan, or columns of its runs, best first."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from replay.analysis.phase import PhaseFigure
from replay.analysis.rank import SAMPLED, rank
from replay.config import RunConfig
from replay.sweeping.dataset import Sweep

if TYPE_CHECKING:
    import polars as pl


def ranking(sweep: Sweep, by: list[str] | None, figure: PhaseFigure, baseline: str | None = None) -> pl.DataFrame:
    """The ranking of replay.analysis.rank. Where `by` has an axis that is no option of a run (ring-size, log.entries),
    a run counts once for every value at which the plan asks for it. Raises UsageError."""
    runs, by, settings = settings_of(sweep, by)
    return rank(runs, by, figure, settings=settings, baseline=baseline)


def settings_of(sweep: Sweep, by: list[str] | None) -> tuple[pl.DataFrame, list[str], list[str]]:
    """(runs, the columns that tell their settings apart, every column that says what a run is of)."""
    import polars as pl

    runs = sweep.runs.collect()
    options = [field.name for field in dataclasses.fields(RunConfig)]
    settings = ["trace", "dirty_rate", *options]
    if by is None:
        plain = [name for name in (_column(axis) for axis in sweep.about["axes"]) if name in settings]
        by = [name for name in plain if name not in SAMPLED and runs[name].n_unique() > 1]
        owned = any(_column(axis) not in settings for axis in sweep.about["axes"])
        by = list(dict.fromkeys([*by, *(name for name in ("log", "design") if owned and runs[name].n_unique() > 1)]))
        by = ["trace", *by] if runs["trace"].n_unique() > 1 else by
    by = [name if name in sweep.about["axes"] and _column(name) not in settings else _column(name) for name in by]
    extra = [name for name in by if name in sweep.about["axes"] and name not in settings]
    if extra:
        points = sweep.points.filter(pl.col("baseline").is_null()).select("run", *extra).unique(maintain_order=True)
        runs = points.collect().join(runs, on="run", maintain_order="left")
    return runs, by, [*settings, *extra]


def _column(axis: str) -> str:
    """An axis as a column of the runs is named."""
    return axis.replace("-", "_")
