"""The page that says what is modelled, what is not, and how wrong each prediction has been: Markdown from a report."""

from __future__ import annotations

from typing import Any

from replay.validation.predict import NOT_MODELLED

_TARGETS = {
    "total-time": "total time",
    "normal": "normal pages",
    "transferred": "transferred bytes",
    "dirty-pages-per-round": "pages dirtied per round (200 and more)",
    "dirty-sync-count": "syncs",
    "downtime": "downtime",
}


def markdown(report: dict[str, Any]) -> str:
    """Summary tables by trace kind, then one line a case."""
    lines = [
        f"Cost table `{report['costs']}`" + (", fitted leave-one-out" if report["leave_one_out"] else "")
        + f"; {report['members']} replays a prediction. Summaries: migrations with a bandwidth limit and no capability"
        " that changes their course. Not modelled, and predicted as a plain precopy: " + ", ".join(NOT_MODELLED)
        + ". Another case's guest: the trace and zero map of one case with the parameters of another of its workload.",
        "",
    ]  # fmt: skip
    for kind, summary in report["summary_by_trace_kind"].items():
        lines += _summary(kind, summary)
    heads = (
        "case",
        "trace",
        "total ms, predicted / actual",
        "error",
        "80 % interval",
        "P(conv.)",
        "syncs",
        "normal",
        "",
    )
    lines += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += [_case(case) for case in report["cases"] if case["trace_kind"] != "others"]
    return "\n".join(lines)


def _summary(kind: str, summary: dict[str, Any]) -> list[str]:
    shown = "another case's guest" if kind == "others" else f"{kind} trace"
    lines = [f"| {shown} | cases or rounds | median | 90th percentile | |", "|---|---|---|---|---|"]
    for name, label in _TARGETS.items():
        entry, extra = summary[name], ""
        if name == "dirty-sync-count":
            extra = f"{entry['exact_pct']} % exact, {entry['within_1_or_10_pct']} % within 1 or 10 %"
        if name == "downtime":
            extra = f"{entry['within_5_ms_or_25_pct']} % within 5 ms or 25 %"
        if name == "total-time":
            extra = f"the 80 % interval covers {entry['interval_80_covers_pct']} %"
        lines.append(
            f"| {label} | {entry['cases']} | {_percent(entry, 'median')} | {_percent(entry, 'p90')} | {extra} |"
        )
    fluid, right = summary["fluid"]["total-time"], summary["converged"]
    lines.append(
        f"| total time, fluid model | {fluid['cases']} | {_percent(fluid, 'median')} | {_percent(fluid, 'p90')} | |"
    )
    lines.append(f"| converged or not | {right['of']} | | | {right['right']} right |")
    return [*lines, ""]


def _case(case: dict[str, Any]) -> str:
    metrics, interval = case["metrics"], case["interval_ms"]
    total, syncs = metrics["total-time"], metrics["dirty-sync-count"]
    notes = [f"{name} not modelled" for name in case["not_modelled"]]
    notes += [] if case["bandwidth_limited"] else ["unlimited"]
    notes += ["knife-edge"] if case["knife_edge"] else []
    if "postcopy-pages" in metrics:
        notes += [f"{part} {_pair(metrics[f'postcopy-{part}'])}" for part in ("pages", "faults")]
    cells = (
        f"`{case['name']}`",
        case["trace_kind"],
        _pair(total),
        _signed(total["error_pct"]),
        "-" if interval is None else f"{interval[0]:,} to {interval[1]:,}",
        f"{case['p_converged']:.2f}",
        _pair(syncs),
        _signed(metrics["normal"]["error_pct"]),
        ", ".join(notes),
    )
    return "| " + " | ".join(cells) + " |"


def _pair(metric: dict[str, Any]) -> str:
    return " / ".join("-" if metric[side] is None else f"{metric[side]:,}" for side in ("predicted", "actual"))


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f} %"


def _percent(entry: dict[str, Any], which: str) -> str:
    value = entry[f"{which}_abs_error_pct"]
    return "-" if value is None else f"{value:.2f} %"
