"""Migrations of which only the rounds are known, put beside what a trace of the guest gives.

Two predictions, from the same writes, memory and bandwidth, from several start offsets in the trace: `passes`, Cloud
Hypervisor's own loop (passes.py), and `qemu`, QEMU's loop, which syncs at other times and so has other rounds: what the
same guest would do there. What enters them of the log: the first pass's size (the guest's memory) and
bandwidth, and the downtime limit. The rest of the log is what they are compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from replay.errors import UsageError
from replay.importing.ram_blocks import Block
from replay.migration.costs import Costs
from replay.migration.link import PAGE_BYTES
from replay.migration.record import Outcome
from replay.trace import shipped
from replay.trace.reader import Trace, open_trace
from replay.units import format_bytes, format_duration
from replay.validation import predict, traces
from replay.validation.case import Inputs
from replay.validation.passes import Passes, full_passes
from replay.validation.rounds_file import Recorded, read_rounds

COSTS = "generic-x86"
QEMU_VERSION = "10.0"
# A guest's memory as its hypervisor counts it: beside RAM there is a little firmware and video memory.
_MEMORY_TOLERANCE = 0.02
_MORE_PASSES = 20
# What sees a page again after at most this time hides nothing that the length of a pass would show.
_RESOLVED_NS = 10_000_000


def compare_rounds(
    path: Path,
    trace: Path | str | None,
    table: Costs,
    *,
    members: int,
    seed: int,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Each migration of a summary beside its predictions: {"migrations": [...], "skipped": [...], ...}.

    Raises TraceError for a file that is no summary, UsageError for a trace that is missing or of another guest.
    """
    recorded = read_rounds(path)
    if trace is None:
        told = "; ".join(one.in_words() for one in recorded)
        raise UsageError(
            f"{path}: has rounds ({told}) but no pages, so nothing can be predicted from it alone. Missing: "
            "a trace of that guest, or of one like it, with --trace (replay trace list; replay capture --help)"
        )
    found = shipped.find(trace)
    if found.is_dir():
        raise UsageError(f"{found}: rounds are compared with a trace file, not with a case's folder")
    opened = open_trace(found)
    writes = _writes(opened, seed)
    migrations, skipped = [], []
    for number, one in enumerate(recorded):
        name = f"{path.name}, migration {one.number}"
        if progress is not None:
            progress(name, number, len(recorded))
        if one.missing is not None:
            skipped.append({"name": name, "error": f"nothing to predict from: {one.missing}"})
            continue
        _check_memory(one, opened, path)
        migrations.append(_compare(one, opened, writes, table, members))
    return {
        "kind": "rounds",
        "file": str(path),
        "trace": str(trace),
        "migrations": migrations,
        "skipped": skipped,
        "notes": list(_notes(writes, recorded)),
        "costs": table.name,
        "members": members,
        "seed": seed,
    }


def _writes(trace: Trace, seed: int) -> traces.Recorded:
    """The trace's events; where it re-arms seldom, with the writes filled in that this hides."""
    meta, events = trace.metadata, trace.decode()
    resolved = meta.rearm_times_ns is None and (meta.rearm_gap_ns or 0) <= _RESOLVED_NS
    rearm = None if meta.rearm_times_ns is None else np.array(meta.rearm_times_ns, np.int64)
    recorded = traces.Recorded(
        t_ns=events.t_ns.astype(np.int64),
        page=events.page.astype(np.int64),
        vcpu=np.minimum(events.origin, meta.n_vcpus - 1).astype(np.uint16),
        end_ns=meta.duration_ns,
        bin_ns=(meta.rearm_gap_ns or 1) if resolved else None,
        rearm_ns=rearm,
        rearm_source="reconstructed" if rearm is None else "recorded",
    )
    return recorded if resolved else traces.fill(recorded, seed)


def _check_memory(one: Recorded, trace: Trace, path: Path) -> None:
    ours = trace.metadata.memory_bytes
    if abs(ours - one.memory_bytes) > _MEMORY_TOLERANCE * one.memory_bytes:
        size = format_bytes(one.memory_bytes)
        raise UsageError(
            f"{trace.path.name}: a guest of {format_bytes(ours)}, but the first pass in {path.name} sent {size}. "
            "Take a trace of that guest, or bring this one to its size first: replay trace scale "
            f"{trace.path.stem} --memory {one.memory_bytes // 2**20}M -o scaled.parquet"
        )


def _compare(one: Recorded, trace: Trace, writes: traces.Recorded, table: Costs, members: int) -> dict[str, Any]:
    assert one.bandwidth is not None
    inputs = _inputs(one, trace)
    most = len(one.sizes) if one.downtime_limit_ns is None else 2 * len(one.sizes) + _MORE_PASSES
    found: list[Passes] = []
    outcomes: list[Outcome] = []
    for start_ns in predict.start_offsets(writes, members):
        source = traces.Continued(writes, inputs, start_ns)
        found.append(full_passes(source.windows(0), one.memory_bytes, one.bandwidth, one.downtime_limit_ns, most))
        if one.downtime_limit_ns is not None:
            outcomes.append(predict.run(inputs, writes, table, start_ns, False, 100))
    return {
        "migration": one.number,
        "memory_bytes": one.memory_bytes,
        "bandwidth_bytes_per_s": one.bandwidth,
        "downtime_limit_ns": one.downtime_limit_ns,
        "rounds": _rows(one, found, outcomes),
        "summary": _summary(one, found, outcomes),
    }


def _inputs(one: Recorded, trace: Trace) -> Inputs:
    """The migration as QEMU would be asked for it: that bandwidth as its limit, no page taken for zero."""
    n_pages = trace.metadata.n_pages
    return Inputs(
        name=f"migration {one.number}",
        folder=trace.path.parent,
        workload=trace.metadata.workload,
        qemu_version=QEMU_VERSION,
        n_vcpus=trace.metadata.n_vcpus,
        blocks=(Block(name="memory", ram_page=0, first_page=0, n_pages=n_pages),),
        parameters={
            "max-bandwidth": one.bandwidth, "downtime-limit": -(-(one.downtime_limit_ns or 0) // 10**6),
            "zero-page-detection": "none",
        },
        capabilities=(),
        give_up_ns=max(60 * 10**9, 4 * (one.total_ns or one.begins_ns[-1])),
        postcopy_after_ns=None,
        busy_pct=100,
        zero=np.zeros(n_pages, bool),
        zero_source="none: all pages are sent",
        traces={},
    )  # fmt: skip


def _rows(one: Recorded, found: list[Passes], outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """A row a pass: as recorded, as predicted (median and 80 % interval over those that have it), QEMU's."""
    ours = sorted(found, key=lambda p: (len(p.sizes), p.end_ns))[len(found) // 2]
    rows = []
    for k in range(max(len(one.sizes), len(ours.sizes))):
        sizes = [passes.sizes[k] for passes in found if k < len(passes.sizes)]
        begins = [passes.begins_ns[k] for passes in found if k < len(passes.sizes)]
        theirs = [
            outcome.rounds[k]["pending_after_pages"] * PAGE_BYTES for outcome in outcomes if k < len(outcome.rounds)
        ]
        actual = one.sizes[k] if k < len(one.sizes) else None
        predicted = _median(sizes)
        rows.append(
            {
                "pass": k,
                "actual_bytes": actual,
                "actual_begin_ns": one.begins_ns[k] if k < len(one.sizes) else None,
                "predicted_bytes": predicted,
                "predicted_80_bytes": _interval(sizes),
                "predicted_begin_ns": _median(begins),
                "predicted_in": len(sizes),
                "error_pct": _error(predicted, actual),
                "qemu_bytes": _median(theirs),
            }
        )
    return rows


def _summary(one: Recorded, found: list[Passes], outcomes: list[Outcome]) -> dict[str, Any]:
    assert one.bandwidth is not None
    rest = [passes.rest_bytes for passes in found]
    rest_ns = [size * 10**9 // one.bandwidth for size in rest]
    total = [passes.end_ns + ns for passes, ns in zip(found, rest_ns, strict=True)]
    done = [outcome for outcome in outcomes if outcome.status == "completed"]
    judged = one.downtime_limit_ns is not None
    return {
        "passes": {"actual": len(one.sizes), "predicted": _median([len(passes.sizes) for passes in found])},
        "p_converged": round(sum(bool(p.converged) for p in found) / len(found), 4) if judged else None,
        "rest_bytes": {"actual": one.rest_bytes, "predicted": _median(rest)},
        "rest_ns": {"actual": one.rest_ns, "predicted": _median(rest_ns)},
        "total_ns": {"actual": one.total_ns, "predicted": _median(total), "predicted_80": _interval(total)},
        "downtime_ns": {"actual": one.downtime_ns, "predicted": None},
        "qemu": {
            "p_converged": round(len(done) / len(outcomes), 4),
            "syncs": _median([len(outcome.rounds) for outcome in outcomes]),
            "total_ms": _median([int(outcome.summary["total-time"]) for outcome in done]),
            "downtime_ms": _median([int(outcome.summary["downtime"]) for outcome in done]),
        } if outcomes else None,
    }  # fmt: skip


def _notes(writes: traces.Recorded, recorded: list[Recorded]) -> list[str]:
    notes = ["sizes in the log are whole MiB, rounded up"]
    if writes.bin_ns is None:
        notes.append(f"first writes, re-arm times {writes.rearm_source}: those between were filled in, seeded")
    elif writes.bin_ns > 1:
        notes.append(f"a page is seen once in {format_duration(writes.bin_ns)}: shorter passes are not resolved")
    if any(one.downtime_limit_ns is None and one.missing is None for one in recorded):
        notes.append(
            "the log does not say the downtime limit (its line 'Migration completed ... goal was'): as many passes are "
            "predicted as were recorded, convergence is not judged, and QEMU's loop is left out"
        )
    return notes


def _median(values: list[int]) -> int | None:
    return int(np.median(np.array(values))) if values else None


def _interval(values: list[int]) -> list[int] | None:
    return [int(x) for x in np.quantile(np.array(values), (0.1, 0.9))] if values else None


def _error(predicted: int | None, actual: int | None) -> float | None:
    if predicted is None or not actual:
        return None
    return round((predicted - actual) / actual * 100, 2)
