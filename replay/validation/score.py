"""Predicted against actual: errors by case, medians and 90th percentiles over cases."""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.migration.link import PAGE_BYTES
from replay.validation.case import Actual
from replay.validation.predict import Prediction

METRICS = ("total-time", "downtime", "dirty-sync-count", "normal", "duplicate", "transferred")
LARGE_ROUND_PAGES = 200
DOWNTIME_MS, DOWNTIME_SHARE = 5, 0.25


def metrics(actual: Actual, prediction: Prediction) -> dict[str, Any]:
    """{metric: {actual, predicted, error_pct}} for METRICS, those of postcopy, and converged.

    None where one side has no such figure.
    """
    summary = prediction.outcome.summary
    ram = summary["ram"]
    predicted = {
        "total-time": summary["total-time"] if prediction.converged else None,
        "downtime": summary["downtime"],
        "dirty-sync-count": ram["dirty-sync-count"],
        "normal": ram["normal"],
        "duplicate": ram["duplicate"],
        "transferred": ram["transferred"],
    }
    real = {
        "total-time": actual.total_ms,
        "downtime": actual.downtime_ms,
        "dirty-sync-count": actual.syncs,
        "normal": actual.normal_pages if actual.converged else None,
        "duplicate": actual.zero_pages if actual.converged else None,
        "transferred": actual.transferred_bytes if actual.converged else None,
    }
    table: dict[str, Any] = {
        name: {"actual": real[name], "predicted": predicted[name], "error_pct": error_pct(real[name], predicted[name])}
        for name in METRICS
    }
    if actual.postcopy_pages is not None:
        last = prediction.outcome.rounds[-1]
        switched = last["cause"] == "postcopy"
        for name, real_value, ours in (
            ("postcopy-pages", actual.postcopy_pages, last["postcopy_pages"]),
            ("postcopy-faults", actual.postcopy_faults, prediction.postcopy_faults),
            ("postcopy-time", actual.postcopy_ms, (last["end_ns"] - last["sync_begin_ns"]) // 10**6),
        ):
            value = ours if switched else None
            table[name] = {"actual": real_value, "predicted": value, "error_pct": error_pct(real_value, value)}
    table["converged"] = {"actual": actual.converged, "predicted": prediction.converged}
    table["throttle"] = {
        "actual": list(actual.throttle_pct),
        "predicted": [pct for _, pct in prediction.outcome.throttle_steps],
    }
    return table


def error_pct(actual: float | None, predicted: float | None) -> float | None:
    """Signed error in percent of the actual value."""
    if actual is None or predicted is None or actual == 0:
        return None
    return (predicted / actual - 1) * 100


def rounds(actual: Actual, prediction: Prediction) -> list[dict[str, Any]]:
    """Round by round: when the sync began and how many pages it found, on both sides."""
    ours = prediction.outcome.rounds
    table = []
    for index in range(max(len(ours), len(actual.round_dirty_pages))):
        row: dict[str, Any] = {"round": index + 1, "actual": None, "predicted": None, "error_pct": None}
        if index < len(actual.round_dirty_pages):
            row["actual"] = {
                "start_ms": actual.round_start_ms[index],
                "dirty_pages": actual.round_dirty_pages[index],
            }
        if index < len(ours):
            row["predicted"] = {
                "start_ms": ours[index]["sync_begin_ns"] / 1e6,
                "dirty_pages": ours[index]["dirty_pages"],
                "pending_kb": ours[index]["pending_after_pages"] * PAGE_BYTES // 1000,
                "threshold_kb": ours[index]["threshold_bytes"] // 1000,
            }
        if row["actual"] and row["predicted"] and row["actual"]["dirty_pages"] >= LARGE_ROUND_PAGES:
            row["error_pct"] = error_pct(row["actual"]["dirty_pages"], row["predicted"]["dirty_pages"])
        table.append(row)
    return table


def summary(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and 90th percentile of the absolute errors, and the shares that the figures without a percentage have."""
    result: dict[str, Any] = {}
    for name in METRICS:
        result[name] = _spread([case["metrics"][name]["error_pct"] for case in cases])
    done = [case for case in cases if case["metrics"]["converged"]["actual"]]
    result["dirty-pages-per-round"] = _spread([row["error_pct"] for case in done for row in case["rounds"]])
    syncs = [case["metrics"]["dirty-sync-count"] for case in cases]
    pairs = [(m["actual"], m["predicted"]) for m in syncs if m["actual"] is not None and m["predicted"] is not None]
    result["dirty-sync-count"] |= {
        "exact_pct": _share([a == p for a, p in pairs]),
        "within_1_or_10_pct": _share([abs(a - p) <= max(1, 0.1 * a) for a, p in pairs]),
    }
    downs = [case["metrics"]["downtime"] for case in cases]
    near = [
        abs(m["actual"] - m["predicted"]) <= max(DOWNTIME_MS, DOWNTIME_SHARE * m["actual"])
        for m in downs
        if m["actual"] is not None and m["predicted"] is not None
    ]
    result["downtime"] |= {"within_5_ms_or_25_pct": _share(near)}
    known = [case["metrics"]["converged"] for case in cases if case["metrics"]["converged"]["actual"] is not None]
    right = [outcome["actual"] == outcome["predicted"] for outcome in known]
    result["converged"] = {"right": sum(right), "of": len(right)}
    covered = [
        c["interval_ms"][0] <= c["metrics"]["total-time"]["actual"] <= c["interval_ms"][1]
        for c in cases
        if c["interval_ms"] is not None and c["metrics"]["total-time"]["actual"] is not None
    ]
    result["total-time"] |= {"interval_80_covers_pct": _share(covered)}
    fluid = [error_pct(c["metrics"]["total-time"]["actual"], c["fluid"]["total-time"]) for c in cases if c["fluid"]]
    result["fluid"] = {"total-time": _spread(fluid)}
    return result


def _spread(errors: list[float | None]) -> dict[str, Any]:
    known = np.abs(np.array([error for error in errors if error is not None], dtype=float))
    if not known.size:
        return {"cases": 0, "median_abs_error_pct": None, "p90_abs_error_pct": None}
    return {
        "cases": int(known.size),
        "median_abs_error_pct": round(float(np.median(known)), 4),
        "p90_abs_error_pct": round(float(np.quantile(known, 0.9)), 4),
    }


def _share(flags: list[bool]) -> float | None:
    return round(100 * sum(flags) / len(flags), 1) if flags else None
