"""`replay validate`: cases, or a summary of rounds, in; one JSON-ready report out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from replay.errors import TraceError, UsageError, unknown_name
from replay.migration import versions
from replay.migration.costs import load as load_costs
from replay.validation import calibration, predict, rounds, score, traces
from replay.validation.case import KINDS, Case, read_case
from replay.validation.fluid import fluid
from replay.validation.rounds_file import is_summary

CHOICES = ("auto", "store", "event", "both", "recording", "others")
DEFAULT_COSTS = "tcg-2core"
Report = dict[str, Any]


def validate(
    folders: Sequence[str | os.PathLike[str]],
    *,
    trace_kind: str = "auto",
    costs: str | None = None,
    leave_one_out: bool = False,
    members: int = predict.MEMBERS,
    seed: int = 1,
    trace: str | os.PathLike[str] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Predict each case and compare: {"cases": [...], "skipped": [...], "summary": {...}}.

    `trace_kind`: "auto" (stores where a case has them, else events), "store", "event", "both", "recording": with
    `trace`, another boot's trace file from `members` start offsets, or another case's folder from its migrate command;
    or "others": each case from the guests of all other given cases of its workload (named in `trace_of`).
    `leave_one_out` fits the cost table's per-page and fixed times on the other given cases. A broken case is listed
    under "skipped". `costs`: "tcg-2core" unless given. A file instead of a folder is a summary of rounds, one alone,
    compared with `trace` as replay.validation.rounds says. Raises UsageError for senseless options, and TraceError for
    a file that is no such summary.
    """
    if trace_kind not in CHOICES:
        raise unknown_name("trace kind", trace_kind, CHOICES)
    if trace_kind == "recording" and trace is None:
        raise UsageError("recording needs --trace: a trace file of another boot, or the folder of another case")
    if trace_kind == "others" and trace is not None:
        raise UsageError("others takes the given cases' own traces: leave out --trace")
    if members < 1:
        raise UsageError("members must be at least 1")
    if not folders:
        raise UsageError("give at least one case folder")
    if any(is_summary(folder) for folder in folders):
        if len(folders) > 1:
            raise UsageError("a summary of rounds is compared alone: give one file, or folders of cases")
        if trace_kind != "auto" or leave_one_out:
            raise UsageError(
                f"{folders[0]}: a summary of rounds has no cases, so no --trace-kind and no --leave-one-out"
            )
        return rounds.compare_rounds(
            Path(folders[0]), None if trace is None else os.fspath(trace), load_costs(costs or rounds.COSTS),
            members=members, seed=seed, progress=progress,
        )  # fmt: skip
    table = load_costs(costs or DEFAULT_COSTS)
    cases, skipped = _read_all(folders)
    rows: list[dict[str, Any]] = []
    for number, case in enumerate(cases):
        if progress is not None:
            progress(case.inputs.name, number, len(cases))
        own = table
        if leave_one_out:
            rest = [other.inputs.folder for other in cases if other.inputs.folder != case.inputs.folder]
            own = calibration.fit(rest, table).table
        try:
            if trace_kind == "others":
                rows += [_compare(case, "others", own, members, seed, guest) for guest in _guests_like(case, cases)]
                continue
            for kind in _kinds(case, trace_kind):
                rows.append(_compare(case, kind, own, members, seed, None if trace is None else Path(trace)))
        except TraceError as error:
            skipped.append({"name": case.inputs.name, "error": str(error)})
    judged = [row for row in rows if row["judged"]]
    by_kind = {kind: score.summary([row for row in judged if row["trace_kind"] == kind]) for kind in _found(judged)}
    return {
        "cases": rows,
        "skipped": skipped,
        "summary": score.summary(judged) if judged else {},
        "summary_by_trace_kind": by_kind,
        "costs": table.name,
        "leave_one_out": leave_one_out,
        "members": members,
        "seed": seed,
    }


def _read_all(folders: Sequence[str | os.PathLike[str]]) -> tuple[list[Case], list[dict[str, str]]]:
    cases, skipped = [], []
    for folder in folders:
        try:
            cases.append(read_case(Path(folder)))
        except TraceError as error:
            skipped.append({"name": Path(folder).name, "error": str(error)})
    return cases, skipped


def _kinds(case: Case, wanted: str) -> list[str]:
    if wanted == "recording":
        return ["recording"]
    have = [kind for kind in KINDS if kind in case.inputs.traces]
    if wanted == "auto":
        have = have[:1]
    elif wanted != "both":
        have = [kind for kind in have if kind == wanted]
    if not have:
        asked = "store or event" if wanted in ("auto", "both") else wanted
        raise TraceError(f"{case.inputs.folder}: has no trace of kind {asked}")
    return have


def _guests_like(case: Case, cases: list[Case]) -> list[Path]:
    """Folders of the other cases that run the same workload on the same QEMU, without capabilities that matter.

    Under TCG QEMU 7.2 lost writes: a guest recorded there is not the one that a later version sees.
    """
    if case.inputs.capabilities:
        return []
    return [
        other.inputs.folder
        for other in cases
        if other.inputs.folder != case.inputs.folder
        and other.inputs.workload == case.inputs.workload
        and versions.nearest(other.inputs.qemu_version) == versions.nearest(case.inputs.qemu_version)
        and other.inputs.traces
        and not other.inputs.capabilities
    ]


def _found(rows: list[dict[str, Any]]) -> list[str]:
    return sorted({row["trace_kind"] for row in rows})


def _compare(case: Case, kind: str, table: Any, members: int, seed: int, trace: Path | None) -> dict[str, Any]:
    prediction = predict.predict(case.inputs, kind, table, members=members, seed=seed, trace=trace)
    source = case.inputs.traces[kind] if trace is None else next(iter(predict.other_traces(trace).values()))
    limited = int(case.inputs.parameters["max-bandwidth"]) >= 10
    unmodelled = [name for name in predict.NOT_MODELLED if name in case.inputs.capabilities]
    return {
        "name": case.inputs.name,
        "trace_kind": kind,
        "trace_of": case.inputs.name if trace is None else trace.name,
        "metrics": score.metrics(case.actual, prediction),
        "rounds": score.rounds(case.actual, prediction),
        "p_converged": round(prediction.p_converged, 4),
        "knife_edge": 0 < prediction.p_converged < 1,
        "interval_ms": prediction.interval_ms,
        "fluid": fluid(case.inputs, traces.read_file(source, case.inputs)),
        "judged": limited and not case.inputs.capabilities,
        "bandwidth_limited": limited,
        "not_modelled": unmodelled,
        "inputs": list(prediction.inputs),
        "notes": [
            *prediction.notes,
            *(["no result: nothing to compare with"] if case.actual.converged is None else []),
        ],
    }
