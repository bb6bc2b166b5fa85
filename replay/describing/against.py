"""Two traces side by side, figure by figure, with the second's error against the first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from replay.units import format_duration

Figures = dict[str, Any]


class Row(NamedTuple):
    """One figure of two traces. error: second / first - 1; None where that says nothing."""

    figure: str
    unit: str
    first: float | None
    second: float | None
    error: float | None


def compare(first: Figures, second: Figures) -> list[Row]:
    """The figures (of replay.describing.stat) that describe a guest's writing; window by window of equal length."""
    rows = [_row(name, unit, of(first), of(second)) for name, unit, of in _FIGURES]
    others = {window["window_ns"]: window for window in second["windows"]}
    for window in first["windows"]:
        other = others.get(window["window_ns"])
        if other is not None:
            length = format_duration(window["window_ns"])
            for name, key in (("distinct pages", "mean_unique_pages"), ("most distinct pages", "max_unique_pages")):
                rows.append(_row(f"{name} in {length}", "pages", window[key], other[key]))
            mean = [w["extents"]["mean"] for w in (window, other)]
            rows.append(_row(f"mean extent in {length}", "pages", *mean))
    return rows


def _row(figure: str, unit: str, first: float | None, second: float | None) -> Row:
    error = None
    if first is not None and second is not None:
        error = second / first - 1 if first else (0.0 if not second else None)
    return Row(figure, unit, first, second, error)


def _period(figures: Figures) -> float | None:
    return None if figures["period"] is None else figures["period"]["period_ns"] / 1e9


def _reuse_s(figures: Figures) -> float | None:
    value = figures["reuse"]["time_ns"]["p50"]
    return None if value is None else value / 1e9


_FIGURES: tuple[tuple[str, str, Callable[[Figures], Any]], ...] = (
    ("rate", "writes/s", lambda f: f["rate"]["mean"]),
    ("variation of the rate", "", lambda f: f["rate"]["variation"]),
    ("period", "s", _period),
    ("pages ever written", "pages", lambda f: f["written_pages"]),
    ("mean run", "pages", lambda f: f["runs"]["mean"]),
    ("95 % of runs up to", "pages", lambda f: f["runs"]["p95"]),
    ("share of rewrites", "", lambda f: f["reuse"]["rewrites_share"]),
    ("median reuse time", "s", _reuse_s),
    ("median reuse distance", "pages", lambda f: f["reuse"]["distance_pages"]["p50"]),
    ("writes to the top 1 % of pages", "", lambda f: f["skew"]["top_1pct_share"]),
    ("writes to the top 10 % of pages", "", lambda f: f["skew"]["top_10pct_share"]),
    ("zipf exponent", "", lambda f: f["skew"]["zipf_exponent"]),
)
