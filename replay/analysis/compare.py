"""Results side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replay.analysis.guest_cost import lost
from replay.columns import LOST
from replay.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from replay.results.result import Result

_SUMS = (
    "modelled_harvest_ns",
    "modelled_sync_ns",
    "modelled_find_ns",
    "modelled_send_ns",
    "modelled_wait_ns",
    "modelled_stall_ns",
    *LOST,
    "measured_harvest_ns",
    "measured_sync_ns",
    "measured_send_ns",
)
_RATIOS = ("total_ms", "downtime_ms", "sent_bytes", *_SUMS)


def figures(result: Result) -> dict[str, Any]:
    """One row of the comparison."""
    ram = result.summary["ram"]
    return {
        "log": result.config["log"],
        "design": result.config["design"],
        "status": result.status,
        "total_ms": result.summary["total-time"],
        "downtime_ms": result.summary["downtime"],
        "syncs": ram["dirty-sync-count"],
        "normal_pages": ram["normal"],
        "zero_pages": ram["duplicate"],
        "sent_bytes": ram["transferred"],
        "redundant_pages": result.redundant_pages,
        "lost_pages": result.lost_pages,
        "unsafe": result.unsafe,
        "fallback_rounds": result.total("fallback_rounds"),
        "kring_full_exits": result.total("kring_full_exits"),
        **{name: result.total(name) for name in _SUMS},
        **lost(result.guest["vcpus"]),
    }


def exact_figures(result: Result) -> dict[str, Any]:
    """The same with what the record has to the nanosecond: `modelled_total_ns` and `modelled_downtime_ns` (null unless
    completed), the CPU time spent finding pages, modelled and measured, and the trace's digest."""
    from replay.migration import costs

    row = figures(result)
    row["trace_sha256"] = result.provenance["trace"]["sha256"]
    last = result.rows[-1]
    stop_ns = costs.load(result.config["costs"]).fixed_ps["vm_stop"] // 1000  # downtime begins before the final sync
    completed = result.status == "completed"
    row["modelled_aside_ns"] = result.total("modelled_aside_ns")
    row["modelled_total_ns"] = last["end_ns"] if completed else None
    row["modelled_downtime_ns"] = last["end_ns"] - last["sync_begin_ns"] + stop_ns if completed else None
    row["modelled_find_cpu_ns"] = sum(row[f"modelled_{part}_ns"] for part in ("harvest", "sync", "find", "aside"))
    row["measured_find_cpu_ns"] = sum(row[f"measured_{part}_ns"] for part in ("harvest", "sync", "send"))
    return row


def compare(results: list[Result]) -> pl.DataFrame:
    """A polars DataFrame: one row a result, and for each time and byte count its ratio to the first result's.

    Columns named modelled_* and measured_* stay apart; ratio_X is X / X of the first row, null where that is 0 or null.
    Raises UsageError for an empty list.
    """
    import polars as pl

    if not results:
        raise UsageError("nothing to compare: give at least one result")
    frame = pl.DataFrame([figures(result) for result in results], infer_schema_length=None)
    return frame.with_columns(
        pl.when((pl.col(name).first() != 0) & pl.col(name).first().is_not_null())
        .then(pl.col(name).cast(pl.Float64) / pl.col(name).first())
        .alias(f"ratio_{name}")
        for name in _RATIOS
    )
