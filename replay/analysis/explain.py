"""Where the time, the bytes and the guest's stalls of a replay went, and what makes two replays differ.

Every figure is cut into causes that sum to it exactly, in whole picoseconds or bytes. The record's phases (harvest,
sync, find, send, wait, other) are on the clock one after the other; a phase is cut further by what its counted work
costs. What is left of a phase then belongs to the one kind of work in it that other threads also do (reaping), or is a
row of its own. Times are floored to nanoseconds in the record, so a few remain: `rounding of the record`.

Metrics: `total` (ps since the migrate command), `downtime` (ps, of a completed migration), `bytes` put into the stream,
`guest` (ps that vCPUs did not run while the guest was not stopped, sum over vCPUs). All modelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replay.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from replay.results.result import Result

HEADS = {"total": "total time", "downtime": "downtime", "bytes": "bytes sent", "guest": "vCPUs stood still, in sum"}
METRICS = tuple(HEADS)
SINGLE_ROUNDS = 6
ROUNDING = "rounding of the record"
_FIND = {
    "scan for dirty pages": ("find_calls", "find_words", "summary_words"),
    "second find": ("refind_calls",),
    "dequeue": ("ring_pops", "stale_pops", "background_pops", "background_skips", "ring_refills"),
    "clear-log calls": ("clear_ioctls", "clear_words", "clear_pages"),
    "re-arming pages one by one": ("tlb_resets",),
}
_HARVEST = {
    "sync: vCPU kicks": ("vcpu_kicks",),
    "sync: kernel log to L1": ("log_ioctls", "l0_words"),
    "sync: L1 to L2": ("l1_words", "l1_touched"),
    "sync: clearing L1": ("l1_zeroed",),
    "sync: devices' logs": ("device_words",),
}
_SYNC = {
    "sync: L2 to L3": ("l2_words", "l2_touched", "sync_summary_words"),
    "sync: refilling a queue": ("refill_words",),
    "sync: queue to L3": ("ring_merged", "ring_requeued", "ring_compares"),
}
_GUEST = {
    "ring or queue full": "modelled_full_stall_ns",
    "syncs: kicks, and waits for their lock": "modelled_sync_stall_ns",
    "throttle sleeps": "modelled_throttle_stall_ns",
    "faults of writes to pages tracked anew": "modelled_fault_stall_ns",
    "waits for pages after the switch to postcopy": "modelled_fetch_stall_ns",
}
Parts = dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Causes of one result, or of the difference of two. `rows`: dicts with metric, cause, unit, a, b, difference.

    Of one result: b is None and `difference` is a.
    """

    labels: tuple[str, ...]
    rows: list[dict[str, Any]]
    totals: dict[str, dict[str, int | None]]

    @property
    def frame(self) -> pl.DataFrame:
        """The rows as a polars DataFrame."""
        import polars as pl

        return pl.DataFrame(self.rows, infer_schema_length=None)

    def of(self, metric: str) -> list[dict[str, Any]]:
        """The rows of one metric."""
        return [row for row in self.rows if row["metric"] == metric]

    def as_dict(self) -> dict[str, Any]:
        """The object that `replay explain --json` prints."""
        return {"results": list(self.labels), "totals": self.totals, "causes": self.rows, "clock": "modelled"}


def explain(a: Result, b: Result | None = None) -> Explanation:
    """Cut every metric of `a` into causes, or the difference b - a when there is a second result. Exact.

    Raises UsageError when a cost table that a result was priced with is not there any more.
    """
    first = _causes(a)
    second = None if b is None else _causes(b)
    rows, totals = [], {}
    for metric in METRICS:
        mine, other = first[metric], None if second is None else second[metric]
        sums = [None if parts is None else sum(parts.values()) for parts in (mine, other)]
        both = b is None or (mine is not None and other is not None)
        totals[metric] = {
            "a": sums[0],
            "b": sums[1],
            "difference": None if not both else (sums[1] or 0) - (sums[0] or 0),
        }
        if b is None:
            totals[metric]["difference"] = sums[0]
        if mine is None or not both:
            continue
        for cause in dict.fromkeys([*mine, *(other or {})]):
            here, there = mine.get(cause, 0), None if other is None else other.get(cause, 0)
            if here or there:
                rows.append(
                    {
                        "metric": metric, "cause": cause, "unit": "bytes" if metric == "bytes" else "ps",
                        "a": here, "b": there, "difference": here if there is None else there - here,
                    }
                )  # fmt: skip
    return Explanation(labels=tuple(label(one) for one in (a, b) if one is not None), rows=rows, totals=totals)


def label(result: Result) -> str:
    """A result in a few words."""
    return f"{result.config['design']} on {result.config['log']}"


def rounds(result: Result) -> list[dict[str, Any]]:
    """The causes of one run's total time, round by round: dicts with round, cause of the sync, and ps by phase.

    `total_ps` is the time from the round's sync (the first: from the migrate command) to the next, and is the sum of
    the phases; what flooring took away is `rounding_ps`.
    """
    found = []
    for index, row in enumerate(result.rows):
        phases = {f"{name}_ps": row[f"modelled_{name}_ns"] * 1000 for name in _PHASES}
        total = (row["end_ns"] - (row["sync_begin_ns"] if index else 0)) * 1000
        found.append(
            {"round": row["round"], "cause": row["cause"], "total_ps": total}
            | phases
            | {"rounding_ps": total - sum(phases.values())}
        )
    return found


_PHASES = ("harvest", "sync", "find", "send", "wait", "other")


def _causes(result: Result) -> dict[str, Parts | None]:
    prices = _Prices(result)
    completed = result.status == "completed" and result.rows[-1]["cause"] == "final"
    total = _times(result, prices, result.rows, from_start=True)
    _close(total, result.rows[-1]["end_ns"] * 1000)
    downtime = None
    if completed:
        last = result.rows[-1]
        downtime = {"switchover: stopping the guest": prices.fixed["vm_stop"]} | _times(result, prices, [last])
        _close(downtime, (last["end_ns"] - last["sync_begin_ns"]) * 1000 + prices.fixed["vm_stop"])
    return {"total": total, "downtime": downtime, "bytes": _bytes(result), "guest": _guest(result)}


class _Prices:
    """What a unit of each counted work cost in a result, ps."""

    def __init__(self, result: Result) -> None:
        from replay.migration import costs, wire
        from replay.work import INDEX

        config = result.config
        try:
            table = costs.load(config["costs"])
        except UsageError as error:
            raise UsageError(f"{label(result)}: its cost table is needed to explain it: {error}") from error
        vector = wire.prices(table, config["link"], config["mapped-ram"])
        self.work = {name: int(vector[index]) for name, index in INDEX.items()}
        self.fixed = table.fixed_ps


def _times(result: Result, prices: _Prices, rows: list[dict[str, Any]], *, from_start: bool = False) -> Parts:
    """The causes of the time of some rounds."""
    parts: Parts = {}
    for name, split, rest in (
        ("harvest", _HARVEST, "sync: reaping rings"),
        ("sync", _SYNC, "sync: locks, listeners, the rest"),
        ("find", _FIND, "finding pages, the rest"),
    ):
        _split(parts, rows, prices, name, split, rest)
    _sends(parts, rows, prices)
    for row in rows:
        throttled = row["throttle_pct"] > 0
        _add(parts, "waits under throttle" if throttled else "rate-limit sleeps", row["modelled_wait_ns"] * 1000)
    _fixed(parts, result, prices, rows, from_start)
    return parts


def _split(
    parts: Parts, rows: list[dict[str, Any]], prices: _Prices, phase: str, split: dict[str, tuple[str, ...]], rest: str
) -> None:
    """Cut a phase by its counted work. Where other threads did some of that work, the phase stays whole."""
    spent = sum(row[f"modelled_{phase}_ns"] for row in rows) * 1000
    known = {
        cause: sum(row[name] * prices.work[name] for row in rows for name in names) for cause, names in split.items()
    }
    if sum(known.values()) > spent + 1000 * (1 + len(rows)):
        _add(parts, f"{rest} (whole: other threads did part of it)", spent)
        return
    for cause, ps in known.items():
        _add(parts, cause, ps)
    left = spent - sum(known.values())
    _add(parts, rest if abs(left) > 1000 * (1 + len(rows)) else ROUNDING, left)


def _sends(parts: Parts, rows: list[dict[str, Any]], prices: _Prices) -> None:
    """Zero checks; pages sent although unchanged; then the pages with content, by round."""
    for row in rows:
        spent = row["modelled_send_ns"] * 1000
        zero = min(spent, row["zero_pages"] * prices.work["zero_pages"])
        redundant = min(spent - zero, (row["redundant_pages"] or 0) * prices.work["normal_pages"])
        number = row["round"]
        _add(parts, "zero check", zero)
        _add(parts, "redundant resends", redundant)
        name = f"sends, round {number}" if number <= SINGLE_ROUNDS else f"sends, rounds from {SINGLE_ROUNDS + 1} on"
        _add(parts, name, spent - zero - redundant)


def _fixed(parts: Parts, result: Result, prices: _Prices, rows: list[dict[str, Any]], from_start: bool) -> None:
    """Fixed costs: what is known of setup and switchover, and the loop's passes."""
    left, fixed = sum(row["modelled_other_ns"] for row in rows) * 1000, prices.fixed
    stopped = result.status == "completed" and rows[-1]["cause"] == "final"
    known: Parts = {}
    if from_start:
        known["setup"] = fixed["connect"] + fixed["setup"] + result.config["memory"] // 4096 * fixed["setup_page"]
        known["switchover: stopping the guest"] = fixed["vm_stop"] if stopped else 0
    known["switchover: device state"] = fixed["device_state"] if stopped else 0
    for cause, ps in known.items():
        part = min(left, ps)
        left -= part
        _add(parts, cause, part)
    _add(parts, "loop passes", left)


def _bytes(result: Result) -> Parts:
    """Bytes: zero pages, pages with content by round, and everything beside pages."""
    from replay.migration.wire import page_bytes

    normal, zero = page_bytes(result.config["mapped-ram"])
    parts: Parts = {}
    for row in result.rows:
        sent = row["sent_bytes"]
        zeros = min(sent, row["zero_pages"] * zero)
        redundant = min(sent - zeros, (row["redundant_pages"] or 0) * normal)
        pages = min(sent - zeros - redundant, row["normal_pages"] * normal - redundant)
        number = row["round"]
        name = f"sends, round {number}" if number <= SINGLE_ROUNDS else f"sends, rounds from {SINGLE_ROUNDS + 1} on"
        for cause, count in (("zero pages", zeros), ("redundant resends", redundant), (name, pages)):
            _add(parts, cause, count)
        _add(parts, "headers, deltas, device state", sent - zeros - redundant - pages)
    return parts


def _guest(result: Result) -> Parts:
    """Time that vCPUs did not run, by cause, in sum over vCPUs."""
    parts: Parts = {}
    for cause, column in _GUEST.items():
        _add(parts, cause, sum(row[column] for row in result.rows) * 1000)
    return parts


def _add(parts: Parts, cause: str, value: int) -> None:
    parts[cause] = parts.get(cause, 0) + value


def _close(parts: Parts, total: int) -> None:
    """What the parts do not come to is the rounding of the record."""
    left = total - sum(parts.values())
    if left:
        _add(parts, ROUNDING, left)
