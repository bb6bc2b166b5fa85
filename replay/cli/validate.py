"""`replay validate`: predictions against real migrations: recorded with their traces, or known by their rounds."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from replay.cli import show
from replay.cli.options import add_json

_EXIT_BROKEN = 4
_LABELS = {
    "total-time": "total time",
    "downtime": "downtime",
    "dirty-sync-count": "syncs",
    "normal": "normal pages",
    "duplicate": "zero pages",
    "transferred": "transferred",
    "dirty-pages-per-round": "pages dirtied per round (200 and more)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay validate`."""
    parser.add_argument(
        "case",
        metavar="CASE_DIR|ROUNDS.json",
        nargs="+",
        help="folder of a recorded migration (case.json, traces); or what replay import cloud-hypervisor wrote: its "
        "passes, beside those that the guest of --trace gives in full passes and in QEMU's loop",
    )
    parser.add_argument(
        "--trace-kind",
        default="auto",
        metavar="KIND",
        help="auto (stores where there are, else events), store, event, both, recording, or others: each case from the "
        "guests of the other given cases of its workload (default: auto)",
    )
    parser.add_argument(
        "--trace",
        metavar="PATH",
        help="with recording: a trace file of another boot, or another case's folder; with rounds: that guest's trace",
    )
    parser.add_argument("--costs", metavar="TABLE", help="cost table (default: tcg-2core; with rounds: generic-x86)")
    parser.add_argument(
        "--leave-one-out", action="store_true", help="fit the host's figures for each case on the other given cases"
    )
    parser.add_argument("--members", type=int, default=15, metavar="N", help="replays a prediction (default: 15)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of everything random (default: 1)")
    parser.add_argument("--rounds", action="store_true", help="show each case round by round")
    parser.add_argument("--inputs", action="store_true", help="show what each prediction was made from")
    parser.add_argument("-o", "--output", metavar="FILE", help="draw predicted against actual: .png, .svg or .pdf")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Predict, compare, show; 4 when a case was broken."""
    from replay.cli.validate_rounds import show_rounds
    from replay.errors import UsageError
    from replay.validation.picture import picture
    from replay.validation.rounds_file import is_summary
    from replay.validation.run import validate

    rounds = any(is_summary(case) for case in args.case)
    if args.output and rounds:
        raise UsageError("-o draws cases; rounds have no picture: leave it out")
    show.note_compiling()
    report = validate(
        args.case,
        trace_kind=args.trace_kind,
        costs=args.costs,
        leave_one_out=args.leave_one_out,
        members=args.members,
        seed=args.seed,
        trace=args.trace,
        progress=_progress if sys.stderr.isatty() else None,
    )
    if args.output:
        picture(report, args.output)
    if args.json:
        show.print_json(report)
    elif rounds:
        show_rounds(report)
    else:
        _show(report, args)
    for skipped in report["skipped"]:
        print(f"replay: skipped {skipped['name']}: {skipped['error']}", file=sys.stderr)
    return _EXIT_BROKEN if report["skipped"] else 0


def _progress(name: str, number: int, of: int) -> None:
    end = "\n" if number + 1 == of else ""
    print(f"\r\x1b[Kreplay: {number + 1} of {of}: {name}", end=end, file=sys.stderr, flush=True)


def _show(report: dict[str, Any], args: argparse.Namespace) -> None:
    out = show.console()
    if report["cases"]:
        out.print(_cases(report["cases"]))
        out.print()
    for case in report["cases"]:
        said = [
            *case["notes"],
            *(["the 80 % interval is all there is to say"] if not case["bandwidth_limited"] else []),
        ]
        lines = [f"note: {note}" for note in said if "filled in" not in note]
        lines += [f"used: {'; '.join(case['inputs'])}"] if args.inputs else []
        if case["metrics"]["throttle"]["actual"] or case["metrics"]["throttle"]["predicted"]:
            steps = case["metrics"]["throttle"]
            lines.append(f"throttle: predicted {_steps(steps['predicted'])}, actual {_steps(steps['actual'])}")
        if "postcopy-pages" in case["metrics"]:
            parts = [f"{part} {_pair(case['metrics'][f'postcopy-{part}'])}" for part in ("pages", "faults", "time")]
            lines.append(f"postcopy: predicted/actual {', '.join(parts)} ms")
        if lines or args.rounds:
            origin = "" if case["trace_kind"] != "others" else f" from {case['trace_of']}"
            out.print(f"{case['name']} ({case['trace_kind']}{origin})", markup=False)
        for line in lines:
            out.print(f"  {line}", markup=False)
        if args.rounds:
            out.print(_rounds(case["rounds"]))
    for kind, summary in report["summary_by_trace_kind"].items():
        out.print()
        out.print(_summary(kind, summary))
    out.print(f"\nCost table {report['costs']}" + (", fitted leave-one-out" if report["leave_one_out"] else ""))
    out.print("Nothing of a case's result or rounds enters its prediction: --inputs lists what does.")


def _steps(steps: list[int]) -> str:
    return " ".join(f"{pct}%" for pct in steps) or "none"


def _table(title: str, heads: tuple[str, ...]) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for index, head in enumerate(heads):
        table.add_column(head, justify="left" if index == 0 else "right", no_wrap=True, max_width=30)
    return table


def _cases(cases: list[dict[str, Any]]) -> Any:
    heads = ("case", "trace", "total ms", "error", "80 % interval", "P(conv)", "syncs", "normal", "downtime")
    table = _table("Predicted/actual", heads)
    for case in cases:
        metrics, interval = case["metrics"], case["interval_ms"]
        table.add_row(
            case["name"],
            case["trace_kind"],
            _pair(metrics["total-time"]),
            _signed(metrics["total-time"]["error_pct"]),
            "-" if interval is None else f"{interval[0]}-{interval[1]}",
            f"{case['p_converged']:.2f}{'!' if case['knife_edge'] else ''}",
            _pair(metrics["dirty-sync-count"]),
            _signed(metrics["normal"]["error_pct"]),
            _pair(metrics["downtime"]),
        )
    table.caption = "total -: not converged; P(conv) with !: knife-edge; normal: error of the pages sent in full"
    table.caption_justify = "left"
    return table


def _rounds(rounds: list[dict[str, Any]]) -> Any:
    table = _table("", ("  round", "began, predicted", "actual", "dirty pages, predicted", "actual", "error"))
    for row in rounds:
        ours, theirs = row["predicted"] or {}, row["actual"] or {}
        table.add_row(
            f"  {row['round']}",
            *(f"{side['start_ms']:,.1f} ms" if side else "-" for side in (ours, theirs)),
            *(f"{side['dirty_pages']:,}" if side else "-" for side in (ours, theirs)),
            _signed(row["error_pct"]),
        )
    return table


def _summary(kind: str, summary: dict[str, Any]) -> Any:
    table = _table(
        f"Errors, {kind} traces, cases with a bandwidth limit that completed", ("", "n", "median", "p90", "")
    )
    for name, label in _LABELS.items():
        entry = summary[name]
        extra = ""
        if name == "dirty-sync-count" and entry.get("exact_pct") is not None:
            extra = f"{entry['exact_pct']} % exact, {entry['within_1_or_10_pct']} % within 1 or 10 %"
        if name == "downtime" and entry.get("within_5_ms_or_25_pct") is not None:
            extra = f"{entry['within_5_ms_or_25_pct']} % within 5 ms or 25 %"
        if name == "total-time" and entry.get("interval_80_covers_pct") is not None:
            extra = f"80 % interval covers {entry['interval_80_covers_pct']} %"
        table.add_row(label, str(entry["cases"]), *(_percent(entry[k]) for k in _SPREAD), extra)
    fluid = summary["fluid"]["total-time"]
    table.add_row("total time, fluid model", str(fluid["cases"]), *(_percent(fluid[k]) for k in _SPREAD), "")
    right = summary["converged"]
    table.add_row("converged or not", str(right["of"]), "", "", f"{right['right']} right")
    return table


_SPREAD = ("median_abs_error_pct", "p90_abs_error_pct")


def _pair(metric: dict[str, Any]) -> str:
    return "/".join("-" if metric[side] is None else f"{metric[side]}" for side in ("predicted", "actual"))


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}%"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} %"
