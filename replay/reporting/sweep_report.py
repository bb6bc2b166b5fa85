"""The page of a finished sweep: a ranking, every completed run, and those that no other beats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from replay.analysis.phase import PhaseFigure, figure_of
from replay.reporting.page import Chart, Section, page
from replay.reporting.report import as_text, provenance
from replay.units import format_bytes

if TYPE_CHECKING:
    from replay.sweeping.dataset import Sweep

MOST_RUNS = 3000
_FRONT_NOTE = "Completed runs that no other of the same trace beats in total time, downtime and bytes."


def of_sweep(sweep: Sweep, ranking: list[dict[str, Any]], best: str) -> str:
    """The page of a finished sweep: a ranking, and every completed run by total time and downtime."""
    import polars as pl

    about = sweep.about
    runs = sweep.runs.collect()
    counts = dict(runs["status"].value_counts().sort("status").iter_rows())
    facts = [("runs", f"{runs.height:,}"), *((str(key), f"{value:,}") for key, value in counts.items())]
    done = runs.filter(pl.col("status") == "completed").head(MOST_RUNS)
    charts = []
    best_runs: list[dict[str, Any]] = []
    if done.height:
        rows = done.select("run", "trace", "design", "log", "seed", "total_ms", "downtime_ms", "sent_bytes").to_dicts()
        best_runs = _front(rows)
        front = {row["run"] for row in best_runs}
        for x, y, text in (
            ("total_ms", "downtime_ms", "Downtime (ms, up) by total time (ms)"),
            ("total_ms", "sent_bytes", "Bytes sent (up) by total time (ms)"),
        ):
            series = [
                {"name": design, "points": [
                    [row[x], row[y], f"run {row['run']}, {row['trace']}: {row['total_ms']:,} ms, "
                     f"{row['downtime_ms']} ms down, "
                     f"{format_bytes(row['sent_bytes'])}{', Pareto front' if row['run'] in front else ''}"]
                    for row in rows if row["design"] == design
                ]}
                for design in dict.fromkeys(row["design"] for row in rows)
            ]  # fmt: skip
            spec = {"type": "xy", "x": "total time, ms", "series": series, "lines": False, "height": 320}
            data = [row | {"pareto": row["run"] in front} for row in rows]
            charts.append(Chart(title=text, note="one mark a completed run", spec=spec, rows=data))
    note = f"Best first, by {best}; intervals are over seeds and start offsets."
    sections = [
        Section(title="Summary", facts=tuple(facts)),
        Section(title="Ranking", note=note, rows=_ranked(ranking, figure_of(best))),
        Section(title="Runs", charts=tuple(charts), note="" if charts else "No run completed."),
        Section(title="Pareto front", note=_FRONT_NOTE, rows=tuple(best_runs)),
        provenance([("sweep", {}, {key: as_text(value) for key, value in about.items()})]),
    ]
    return page(f"Sweep {Path(sweep.folder).resolve().name}", sections)


def _ranked(ranking: list[dict[str, Any]], figure: PhaseFigure) -> tuple[dict[str, Any], ...]:
    """A ranking as it is read: times in ms, bandwidths in MB/s, and no column that says nothing."""
    scale, unit = (1e-6, "ms") if figure.unit == "ns" else (1.0, figure.unit)
    quiet = [name for name in ("ratio", "low", "high", "failed", "unsafe") if not any(row.get(name) for row in ranking)]
    rows = []
    for row in ranking:
        told: dict[str, Any] = {}
        for name, value in row.items():
            if name in quiet:
                continue
            if name in ("mean", "low", "high", "best"):
                told[f"{name}, {unit}"] = None if value is None else round(value * scale, 1 if scale != 1 else 0)
            elif name in ("max_bandwidth", "link", "postcopy_bandwidth") and value:
                told[f"{name}, MB/s"] = value / 1e6
            elif name == "downtime_limit":
                told[f"{name}, ms"] = value
            else:
                told[name] = ", ".join(map(str, value)) if isinstance(value, list) else value
        rows.append(told)
    return tuple(rows)


def _front(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs that no other is as good as in total time, downtime and bytes, and better in one; a trace each."""
    names = ("total_ms", "downtime_ms", "sent_bytes")
    kept = []
    for row in rows:
        beaten = any(
            other["trace"] == row["trace"]
            and all(other[name] <= row[name] for name in names)
            and any(other[name] < row[name] for name in names)
            for other in rows
        )
        if not beaten:
            kept.append(row)
    return kept
