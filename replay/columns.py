"""Every column of the per-round record, named once: dtype, unit, meaning.

The record's polars schema, the field metadata of result files and the README's table are all made from `ROUNDS`.
Columns that begin with `modelled_` come from counted work, a cost table and the virtual clock; those that begin with
`measured_` from this machine's clock around our kernels. They are never added up or put on one axis.
"""

from __future__ import annotations

from dataclasses import dataclass

from replay.work import COUNTERS


@dataclass(frozen=True)
class Column:
    """A column: `dtype` is a polars type name."""

    name: str
    dtype: str
    unit: str
    meaning: str


LOSSES = {
    "full": "a ring or queue was full: it waited, emptied it, or sent pages itself",
    "sync": "a sync kicked it, or held the lock it needed",
    "throttle": "it slept under a throttle or a dirty limit",
    "fault": "its stores met pages tracked anew: count x write_fault of the cost table; a recording has "
    "faults in it already, so these delay nobody",
    "fetch": "after a switch to postcopy it waited at the target for pages",
}
"""Why a vCPU does not run: what the guest pays for its migration. Columns are named modelled_CAUSE_stall_ns."""

LOST = tuple(f"modelled_{cause}_stall_ns" for cause in LOSSES)

LOST_SHARES = tuple(f"modelled_{cause}_pct" for cause in LOSSES)
LOST_PCT = "modelled_lost_pct"


def _losses(of: str) -> tuple[Column, ...]:
    return tuple(Column(n, "Int64", "ns", f"{of}{m}") for n, m in zip(LOST, LOSSES.values(), strict=True))


VCPUS: tuple[Column, ...] = (
    Column("vcpu", "Int32", "", "number of the vCPU"),
    Column("ran_ns", "Int64", "ns", "host time in which it could have run: until the guest stopped, and at the target"),
    *_losses(""),
    Column("modelled_lost_ns", "Int64", "ns", "sum of these"),
    Column(LOST_PCT, "Float64", "%", "share of ran_ns that it did not run"),
)

SHARES: tuple[Column, ...] = (
    Column(LOST_PCT, "Float64", "%", "share of its time that the guest did not run, mean over vCPUs"),
    *(
        Column(name, "Float64", "%", f"of modelled_lost_pct: {meaning}")
        for name, meaning in zip(LOST_SHARES, LOSSES.values(), strict=True)
    ),
    Column("modelled_lost_most_pct", "Float64", "%", "the same of the vCPU that lost most"),
)
"""The guest's cost as shares, as rankings and comparisons have it."""

_OWN = (
    Column("round", "Int32", "", "number of the sync that began it, from 1"),
    Column(
        "cause",
        "String",
        "",
        "why that sync was made: setup, estimate (pending below the threshold), background, final, postcopy",
    ),
    Column("formulation", "String", "", "which inner loop sent the pages: batched or stepping"),
    Column("sync_begin_ns", "Int64", "ns", "host time of the sync since the migrate command"),
    Column("sync_end_ns", "Int64", "ns", "host time at which the sync was done"),
    Column("end_ns", "Int64", "ns", "host time of the next sync, or of the end"),
    Column("guest_ns", "Int64", "ns", "guest time that passed, mean over its lanes (vCPUs)"),
    Column("pending_before_pages", "Int64", "pages", "waiting to be sent before the sync"),
    Column("dirty_pages", "Int64", "pages", "that became pending at the sync"),
    Column("pending_after_pages", "Int64", "pages", "waiting to be sent after the sync"),
    Column("threshold_bytes", "Int64", "bytes", "pending below this is small enough to switch over; at the sync"),
    Column("throttle_pct", "Int64", "%", "share of the time that vCPUs were made to sleep, at the sync"),
    Column("sent_bytes", "Int64", "bytes", "put into the stream"),
    Column("redundant_pages", "Int64", "pages", "sent although unchanged since they were last sent; null unchecked"),
    Column("iterate_calls", "Int64", "calls", "times the sender was entered"),
    Column("kring_used_max", "Int64", "entries", "fullest KVM ring"),
    Column("ring_used_max", "Int64", "entries", "fullest queue of the design"),
    Column(
        "modelled_stall_ns",
        "Int64",
        "ns",
        "stood still for the dirty log, sum over lanes: vCPUs and devices where rings stop single ones, else the guest",
    ),
    *_losses("sum over vCPUs: "),
    Column("modelled_harvest_ns", "Int64", "ns", "collecting from the dirty log at the sync"),
    Column("modelled_sync_ns", "Int64", "ns", "making it visible to the sender"),
    Column("modelled_find_ns", "Int64", "ns", "finding pages, clear calls included"),
    Column("modelled_send_ns", "Int64", "ns", "checking and sending pages"),
    Column("modelled_wait_ns", "Int64", "ns", "asleep because the window's bytes were used up"),
    Column("modelled_other_ns", "Int64", "ns", "fixed costs: loop passes, setup, stop, device state"),
    Column("modelled_aside_ns", "Int64", "ns", "dirty-log work of vCPUs and the reaper thread, beside the clock"),
    Column("measured_harvest_ns", "Int64", "ns", "this machine: collecting from the dirty log"),
    Column("measured_sync_ns", "Int64", "ns", "this machine: making it visible to the sender"),
    Column(
        "measured_send_ns", "Int64", "ns", "this machine: finding and accounting pages; when stepping, the guest too"
    ),
    Column("measured_guest_ns", "Int64", "ns", "this machine: applying the guest's events; 0 when stepping"),
)

ROUNDS: tuple[Column, ...] = _OWN + tuple(Column(c.name, "Int64", c.unit, c.meaning) for c in COUNTERS)


def markdown() -> str:
    """Both tables of a record as the README shows them."""
    between = "And one row a vCPU: `result.vcpus`, the table `vcpus` of a sweep; `replay list vcpu-columns`."
    return f"{_markdown_table(ROUNDS)}\n\n{between}\n\n{_markdown_table(VCPUS)}"


def _markdown_table(columns: tuple[Column, ...]) -> str:
    lines = ["| column | unit | meaning |", "|---|---|---|"]
    lines += [f"| `{column.name}` | {column.unit} | {column.meaning} |" for column in columns]
    return "\n".join(lines)
