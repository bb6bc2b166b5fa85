"""The figures of a result over time, as plain rows: what charts and reports are made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from replay.results.result import Result

TIMELINE = {
    "pending": "pages pending after the sync",
    "dirty_rate": "pages dirtied a second, since the last sync",
    "bandwidth": "MB/s sent",
    "throttle": "throttle, %",
    "stall": "vCPU stall so far, ms, sum over vCPUs",
}


def timeline(result: Result) -> list[dict[str, Any]]:
    """One dict a round: round, cause, begin_s, end_s, and the figures of TIMELINE. Modelled."""
    rows, stall_ns, found = result.rows, 0, []
    for index, row in enumerate(rows):
        stall_ns += row["modelled_stall_ns"]
        begin = row["sync_begin_ns"]
        before_s = (begin - rows[index - 1]["sync_begin_ns"]) / 1e9 if index else 0.0
        length_s = (row["end_ns"] - begin) / 1e9
        after = rows[index + 1]["throttle_pct"] if index + 1 < len(rows) else row["throttle_pct"]
        found.append(
            {
                "round": row["round"],
                "cause": row["cause"],
                "begin_s": begin / 1e9,
                "end_s": row["end_ns"] / 1e9,
                "pending": row["pending_after_pages"],
                "dirty_rate": round(row["dirty_pages"] / before_s) if before_s else 0,
                "bandwidth": round(row["sent_bytes"] / length_s / 1e6, 3) if length_s else 0.0,
                "throttle": after,
                "stall": round(stall_ns / 1e6, 6),
            }
        )
    return found
