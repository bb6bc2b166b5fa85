"""Which settings are best over a sweep: means of a figure over repeats and start offsets, with their uncertainty.

Runs that are alike but for seed and start are a sample; what else differs within a group (other axes, traces) is a
stratum. A group's mean is the mean of its strata's means, each of equal weight; its interval is Student's t with the
variance of that mean and Welch and Satterthwaite's degrees of freedom. A stratum of one run has no variance: the group
has no interval then. Groups in which a run did not complete, lost pages or could have, come after those without.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from replay.analysis.phase import PhaseFigure
from replay.columns import LOST_PCT, LOST_SHARES
from replay.errors import UsageError, unknown_name

if TYPE_CHECKING:
    import polars as pl

SAMPLED = ("seed", "start")
CONFIDENCE = 0.95
_TERMS = 200


def rank(
    runs: pl.DataFrame, by: list[str], figure: PhaseFigure, *, settings: list[str], baseline: str | None = None
) -> pl.DataFrame:
    """One row a group of equal `by`, best first: `runs`, `completed`, `unsafe`, `mean`, `low`, `high` (null without an
    interval), `best`, `ratio`, the geometric mean of each run's figure over its baseline's, and whatever the figure,
    the mean share of its time that the guest lost, in all and by cause (columns LOST_PCT and LOST_SHARES).

    settings: columns of `runs` that say what a run is of. Raises UsageError for a column that there is not.
    """
    import polars as pl

    if figure.measured:
        raise UsageError(f"{figure.name} is measured; a sweep ranks by modelled figures")
    for name in by:
        if name not in settings:
            raise unknown_name("column to rank by:", name, settings)
    if baseline is not None:
        runs = _against(runs, figure.column, baseline)
    varying = [name for name in settings if name not in (*by, *SAMPLED) and runs[name].n_unique() > 1]
    fine = (pl.col("status") == "completed") & pl.col("unsafe").is_null() & (pl.col("lost_pages").fill_null(0) == 0)
    keys: list[Any] = list(by) or [pl.lit("all").alias("all")]
    value = pl.col(figure.column).filter(fine).cast(pl.Float64)
    strata = runs.group_by([*keys, *varying], maintain_order=True).agg(
        mean=value.mean(), variance=value.var(), n=value.count()
    )
    groups = runs.group_by(keys, maintain_order=True).agg(
        runs=pl.len(),
        completed=(pl.col("status") == "completed").sum(),
        failed=(pl.col("status") == "failed").sum(),
        unsafe=(~fine & (pl.col("status") == "completed")).sum(),
        best=value.min(),
        **{name: pl.col(name).filter(fine).mean() for name in (LOST_PCT, *LOST_SHARES)},
        ratio=pl.col("ratio_to_baseline").filter(fine).log().mean().exp() if baseline is not None else pl.lit(None),
    )
    names = by or ["all"]
    found: dict[Any, list[dict[str, Any]]] = {}
    for row in strata.to_dicts():
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    rows = [row | _mean(found[tuple(row[name] for name in names)]) for row in groups.to_dicts()]
    rows.sort(
        key=lambda row: (row["completed"] < row["runs"] or row["unsafe"] > 0, row["mean"] is None, row["mean"] or 0)
    )
    schema = groups.schema | {"mean": pl.Float64, "low": pl.Float64, "high": pl.Float64, "ratio": pl.Float64}
    return pl.DataFrame(rows, schema=schema)


def _against(runs: pl.DataFrame, column: str, baseline: str) -> pl.DataFrame:
    import polars as pl

    known = [name.removeprefix("baseline_") for name in runs.columns if name.startswith("baseline_")]
    if baseline not in known:
        raise unknown_name("baseline", baseline, known)
    fine = runs.filter(pl.col("status") == "completed")
    theirs = fine.select(pl.col("run").alias(f"baseline_{baseline}"), pl.col(column).alias("theirs")).unique()
    joined = runs.join(theirs, on=f"baseline_{baseline}", how="left", maintain_order="left")
    return joined.with_columns(ratio_to_baseline=pl.col(column) / pl.col("theirs"))


def _mean(strata: list[dict[str, Any]]) -> dict[str, float | None]:
    """Mean and interval of a group from its strata."""
    held = [row for row in strata if row["n"]]
    if not held:
        return {"mean": None, "low": None, "high": None}
    mean = sum(row["mean"] for row in held) / len(held)
    if any(row["n"] < 2 for row in held):
        return {"mean": mean, "low": None, "high": None}
    shares = [(row["variance"] / row["n"], row["n"] - 1) for row in held]
    variance = sum(share for share, _ in shares)
    if variance == 0:
        return {"mean": mean, "low": mean, "high": mean}
    freedom = variance**2 / sum(share**2 / df for share, df in shares)
    half = t_quantile(freedom) * math.sqrt(variance) / len(held)
    return {"mean": mean, "low": mean - half, "high": mean + half}


def t_quantile(freedom: float, confidence: float = CONFIDENCE) -> float:
    """The t that a Student variable's magnitude stays below with probability `confidence`; freedom may be a fraction.

    Bisection on the distribution function, which is the regularised incomplete beta function by its continued fraction
    (Abramowitz and Stegun 26.5.8, 26.7.1).
    """
    low, high = 0.0, 1.0
    while _within(high, freedom) < confidence:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < confidence else (low, middle)
    return (low + high) / 2


def _within(t: float, freedom: float) -> float:
    """P(|T| < t)."""
    return 1 - incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def incomplete_beta(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function I_x(a, b)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(1 - x, b, a)
    front = math.exp(a * math.log(x) + b * math.log(1 - x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)) / a
    fraction = 1.0
    for m in range(_TERMS, 0, -1):
        fraction = 1 + m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)) / fraction
        fraction = 1 - (a + m - 1) * (a + b + m - 1) * x / ((a + 2 * m - 2) * (a + 2 * m - 1)) / fraction
    return front / fraction
