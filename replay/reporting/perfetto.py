"""A result as tracks of the Perfetto viewer (ui.perfetto.dev): Chrome's JSON trace format, which it opens.

Process `migration thread`: rounds, syncs, sends and sleeps one below the other. Process `guest`: stalls. Counters:
pending pages, dirty rate, bandwidth, throttle. The record has totals a round, not single events: within a round the
spans of a kind are drawn as one, in the order sync, send, sleep; stalls as one span as long as a vCPU's mean stall.
Times are virtual, in microseconds since the migrate command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from replay.results.result import Result

_MIGRATION, _GUEST = 1, 2
_TRACKS = {
    (_MIGRATION, 1): "rounds", (_MIGRATION, 2): "syncs", (_MIGRATION, 3): "sends", (_MIGRATION, 4): "sleeps",
    (_GUEST, 1): "stalls (mean of the vCPUs)", (_GUEST, 2): "throttled",
}  # fmt: skip


def trace_events(result: Result) -> dict[str, Any]:
    """The JSON object: `traceEvents`, and what the result is in `otherData`."""
    events: list[dict[str, Any]] = []
    for pid, name in ((_MIGRATION, "migration thread (virtual time)"), (_GUEST, "guest (virtual time)")):
        events.append({"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": name}})
    for (pid, tid), name in _TRACKS.items():
        events.append({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}})
    lanes = max(1, len(result.guest["stall_ns"]))
    for index, row in enumerate(result.rows):
        begin, synced, end = row["sync_begin_ns"], row["sync_end_ns"], row["end_ns"]
        number, cause = row["round"], row["cause"]
        counts = {name: row[name] for name in ("dirty_pages", "pending_after_pages", "normal_pages", "zero_pages")}
        _span(events, _MIGRATION, 1, f"round {number}", begin, end, counts | {"cause": cause})
        spent = {part: row[f"modelled_{part}_ns"] for part in ("harvest", "sync")}
        _span(events, _MIGRATION, 2, f"sync: {cause}", begin, synced, spent)
        busy = min(end - synced, row["modelled_find_ns"] + row["modelled_send_ns"])
        sent = {"bytes": row["sent_bytes"], "find_ns": row["modelled_find_ns"], "send_ns": row["modelled_send_ns"]}
        _span(events, _MIGRATION, 3, "send", synced, synced + busy, sent)
        _span(events, _MIGRATION, 4, "sleep", synced + busy, min(end, synced + busy + row["modelled_wait_ns"]), {})
        _span(events, _GUEST, 1, "stall", begin, min(end, begin + row["modelled_stall_ns"] // lanes), {
            "sum over vCPUs, ns": row["modelled_stall_ns"], "ring-full exits": row["kring_full_exits"],
        })  # fmt: skip
        after = result.rows[index + 1]["throttle_pct"] if index + 1 < len(result.rows) else row["throttle_pct"]
        if after:
            _span(events, _GUEST, 2, f"throttle {after} %", begin, end, {})
        length_s = max(1, end - begin) / 1e9
        for name, value in (
            ("pending pages", row["pending_after_pages"]),
            ("dirty pages/s", round(row["dirty_pages"] / length_s)),
            ("bandwidth MB/s", round(row["sent_bytes"] / length_s / 1e6, 3)),
            ("throttle %", after),
        ):
            events.append({"ph": "C", "name": name, "pid": _MIGRATION, "ts": synced / 1000, "args": {"value": value}})
    config = {key: str(value) for key, value in result.config.items()}
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"status": result.status} | config}


def _span(
    events: list[dict[str, Any]], pid: int, tid: int, name: str, begin: int, end: int, args: dict[str, Any]
) -> None:
    if end > begin:
        events.append(
            {
                "ph": "X",
                "name": name,
                "pid": pid,
                "tid": tid,
                "ts": begin / 1000,
                "dur": (end - begin) / 1000,
                "args": args,
            }
        )
