"""Predicted against actual with the diagonal: one panel a metric, one point a case. Needs the extra `plots`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from replay.errors import UsageError

SUFFIXES = (".png", ".svg", ".pdf")
_PANELS = (
    ("total-time", "total time (ms)"),
    ("normal", "normal pages"),
    ("dirty-sync-count", "syncs"),
    ("downtime", "downtime (ms)"),
)
_COLOURS = {"store": "#0072B2", "event": "#D55E00", "recording": "#009E73"}


def picture(report: dict[str, Any], path: str) -> None:
    """Draw a report of `validate` into a PNG, SVG or PDF file. Raises UsageError for another suffix."""
    if Path(path).suffix not in SUFFIXES:
        raise UsageError(f"{path}: a picture's name ends in {', '.join(SUFFIXES)}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("pictures need matplotlib: pip install 'dirtyreplay[plots]'") from None
    figure = Figure(figsize=(9, 8.5), layout="constrained")
    for axis, (name, label) in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
        _panel(axis, report["cases"], name, label)
    figure.suptitle("Predicted against actual, migrations that completed")
    try:
        figure.savefig(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from None


def _panel(axis: Any, cases: list[dict[str, Any]], name: str, label: str) -> None:
    low, high = float("inf"), 0.0
    for kind, colour in _COLOURS.items():
        rows = [case for case in cases if case["trace_kind"] == kind]
        points = [case["metrics"][name] for case in rows]
        kept = [(p["actual"], p["predicted"]) for p in points if p["actual"] and p["predicted"]]
        if not kept:
            continue
        x, y = zip(*kept, strict=True)
        axis.scatter(x, y, s=18, color=colour, label=f"ours, {kind} trace", zorder=3)
        low, high = min(low, *x, *y), max(high, *x, *y)
        if name in ("total-time", "normal", "dirty-sync-count"):
            fluid = [
                (case["metrics"][name]["actual"], case["fluid"][name])
                for case in rows
                if case["metrics"][name]["actual"] and case["fluid"]["converged"]
            ]
            if fluid:
                axis.scatter(
                    *zip(*fluid, strict=True), s=18, marker="x", color="#999999", label="fluid model", zorder=2
                )
    if high > 0:
        axis.plot([low, high], [low, high], color="black", linewidth=0.8, zorder=1)
        axis.set_xscale("log")
        axis.set_yscale("log")
        handles, labels = axis.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        axis.legend(unique.values(), unique.keys(), fontsize="small")
    axis.set_xlabel(f"{label}, actual")
    axis.set_ylabel(f"{label}, predicted")
    axis.grid(alpha=0.3)
