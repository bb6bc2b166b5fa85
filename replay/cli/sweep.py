"""`replay sweep`: a plan of replays, run, resumed, sharded; and what it came to."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from replay.cli import show
from replay.cli.options import add_json
from replay.errors import UsageError

if TYPE_CHECKING:
    from replay.analysis.phase import PhaseFigure
    from replay.sweeping.run import Progress, Standing

FIGURES = "total-time, downtime, find-cpu, stall, stall-CAUSE, guest-lost, vcpu-lost or bytes"
EXAMPLES = """examples:
  replay sweep plan.toml --dry-run
  replay sweep plan.toml -o results
  replay sweep plan.toml -o results --resume
  replay sweep plan.toml -o results --executor dask:local:4
  replay sweep show results --by design,memory --best downtime

a plan:
  [sweep]
  traces = ["redis-1g", "captures/*.parquet", "zipf:rate=20000", "s3://bucket/guest.parquet"]
  repeats = 3                      # each with a seed of its own
  starts = 4                       # moments at which the migration begins, spread over the trace
  [base]                           # options of every replay, as of replay run
  max-bandwidth = "1250MiB/s"
  [axes]                           # every combination; as in replay phase, and design
  design = ["bitmap", "double-ring:1024"]
  memory = ["8G", "96G"]
  [[zip]]                          # axes that move together
  link = ["1Gbit/s", "10Gbit/s"]
  downtime-limit = ["300ms", "100ms"]
  [[run]]                          # one more point
  design = "ring-only:4096"
  [baselines.today]                # for every point, the same with these changed
  design = "bitmap"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay sweep`."""
    parser.usage = "replay sweep PLAN.toml -o DIR [options]\n       replay sweep show DIR [--by AXES] [--best FIGURE]"
    parser.epilog = EXAMPLES + "\n" + (parser.epilog or "")
    parser.add_argument("words", nargs="+", metavar="PLAN.toml | show DIR", help="what to run, or a sweep to look at")
    parser.add_argument("-o", "--output", metavar="DIR", help="folder of the sweep; a new one unless --resume")
    parser.add_argument("--dry-run", action="store_true", help="count the runs, estimate time and memory, run nothing")
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at once (default: CPUs; never more than fit)")
    parser.add_argument(
        "--executor", metavar="WHERE", help="threads (default), processes:N, dask:tcp://HOST:PORT or dask:local:N"
    )
    parser.add_argument("--resume", action="store_true", help="go on with what is there; run what is missing")
    parser.add_argument("--shard", metavar="I/N", help="only every N-th run from the I-th; the last one done merges")
    parser.add_argument("--merge", action="append", metavar="DIR", help="take over runs from another sweep's folder")
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first run that fails")
    parser.add_argument("--best", default="total-time", metavar="FIGURE", help=f"{FIGURES} (default: total-time)")
    parser.add_argument("--by", metavar="AXIS,...", help="show: rank these (default: every axis but seed and start)")
    parser.add_argument("--baseline", metavar="NAME", help="show: a named baseline to compare with")
    parser.add_argument("--top", type=int, default=20, metavar="N", help="show: so many lines (default: 20)")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Run, or show. Returns 1 when runs failed."""
    from replay.analysis.phase import figure_of

    figure = figure_of(args.best)
    if args.jobs is not None and args.jobs < 1:
        raise UsageError(f"--jobs {args.jobs}: at least one run at once")
    if args.words[0] == "show":
        if len(args.words) != 2:
            raise UsageError("show one sweep: replay sweep show DIR")
        return _show(args, args.words[1], figure)
    if len(args.words) != 1:
        raise UsageError(f"one plan, not {len(args.words)}: replay sweep PLAN.toml -o DIR")
    if args.dry_run:
        return _dry_run(args)
    if not args.output:
        raise UsageError("say where results go: -o DIR (or --dry-run)")
    return _run(args, figure)


def _dry_run(args: argparse.Namespace) -> int:
    import dataclasses
    import tempfile

    from replay import api
    from replay.sweeping.estimate import estimate
    from replay.sweeping.store import WHOLE, Shard
    from replay.units import format_bytes, format_duration

    with tempfile.TemporaryDirectory() as fetched:
        plan = api.sweep_plan(args.words[0], fetched)
        show.note_compiling()
        told = estimate(plan, args.jobs, Shard.parse(args.shard) if args.shard else WHOLE)
    refused = sum(run.job is None for run in plan.runs)
    if args.json:
        axes = {"traces": [source.label for source in plan.sources], "axes": plan.axes, "baselines": plan.baselines}
        show.print_json({"points": len(plan.points), "refused": refused, **axes, **dataclasses.asdict(told)})
        return 0
    print(f"{told.runs:,} runs of {len(plan.points):,} points on {len(plan.sources)} trace(s); equal ones run once")
    if refused:
        print(f"{refused:,} of them cannot run: their settings exclude each other")
    least = "at least " if told.at_least else ""
    print(f"time: {least}{format_duration(told.seconds * 1e9)} with {told.at_once} at once on this machine, from "
          f"{told.sampled} of them made now")  # fmt: skip
    print(f"memory: {format_bytes(told.bytes)} at most")
    return 0


def _run(args: argparse.Namespace, figure: PhaseFigure) -> int:
    from replay import api
    from replay.units import format_duration

    show.note_compiling()
    with _stopped_alike(), _standing_line(figure) as progress:
        try:
            report = api.sweep(
                args.words[0], args.output, executor=args.executor, jobs=args.jobs, shard=args.shard,
                resume=args.resume, fail_fast=args.fail_fast, merge=args.merge or (), best=args.best, progress=progress,
            )  # fmt: skip
        except KeyboardInterrupt:
            print(f"replay: what was finished is kept in {args.output}; go on with --resume", file=sys.stderr)
            raise
    if args.json:
        show.print_json(
            {
                "folder": str(report.folder), "runs": report.total, "found": report.found, "ran": report.ran,
                "failed": report.failed, "complete": report.complete, "seconds": report.seconds,
            }
        )  # fmt: skip
        return 1 if report.failed else 0
    rate = f", {report.ran / report.seconds:.3g} a second" if report.ran else ""
    print(f"{report.total:,} runs: {report.found:,} were there, {report.ran:,} run in "
          f"{format_duration(report.seconds * 1e9)}{rate}, {len(report.failed):,} failed")  # fmt: skip
    for index, why in list(report.failed.items())[:5]:
        print(f"failed: run {index}: {why}")
    if report.complete:
        print(f"complete: replay sweep show {report.folder}")
    else:
        print("not complete: runs of other shards are missing")
    return 1 if report.failed else 0


@contextmanager
def _stopped_alike() -> Iterator[None]:
    """A batch system's SIGTERM stops a sweep as Ctrl-C does."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _standing_line(figure: PhaseFigure) -> Iterator[Progress | None]:
    """A bar with the time left and the best run so far on stderr, only on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}", markup=False),
    )
    with Progress(
        *columns, console=show.console(stderr=True), transient=True, speed_estimate_period=600
    ) as bar:  # fmt: skip
        task = bar.add_task("runs", total=None, state="")

        def report(standing: Standing) -> None:
            from replay.sweeping.run import describe

            state = f"{standing.failed} failed; " if standing.failed else ""
            if standing.best is not None:
                state += f"best {spell_figure(figure, standing.best[0])}: {describe(standing.best[1])}"
            bar.update(task, completed=standing.done, total=standing.total, state=state)

        yield report


def spell_figure(figure: PhaseFigure, value: float | None) -> str:
    """A figure for people."""
    from replay.units import format_bytes, format_duration

    if value is None:
        return "-"
    if figure.unit == "%":
        return f"{value:.3g} %"
    return format_bytes(round(value)) if figure.unit == "bytes" else format_duration(value)


def _show(args: argparse.Namespace, folder: str, figure: PhaseFigure) -> int:
    from rich.table import Table

    from replay import api
    from replay.analysis.guest_cost import spell_lost

    by = None if args.by is None else [name.strip() for name in args.by.split(",") if name.strip()]
    ranked = api.rank_sweep(folder, by, args.best, args.baseline)
    rows = ranked.to_dicts()
    if args.json:
        show.print_json({"figure": figure.name, "unit": figure.unit, "ranking": rows})
        return 0
    names = ranked.columns[: ranked.columns.index("runs")]
    table = Table(title=f"Least {figure.meaning}", title_justify="left", box=None, pad_edge=False)
    for name in names:
        table.add_column(name.replace("_", "-"), overflow="fold")
    for head in ("mean", "95 %", "best", "guest lost", "completed", *([f"x {args.baseline}"] if args.baseline else [])):
        table.add_column(head, justify="right")
    for row in rows[: args.top]:
        half = "-" if row["low"] is None else f"± {spell_figure(figure, row['high'] - row['mean'])}"
        completed = f"{row['completed']}/{row['runs']}" + (f", {row['unsafe']} unsafe" if row["unsafe"] else "")
        more = ["-" if row["ratio"] is None else f"{row['ratio']:.3f}"] if args.baseline else []
        cells = [spell_setting(name, row[name]) for name in names]
        table.add_row(
            *cells,
            spell_figure(figure, row["mean"]),
            half,
            spell_figure(figure, row["best"]),
            spell_lost(row, 1),
            completed,
            *more,
        )
    out = show.console()
    out.print(table)
    if len(rows) > args.top:
        out.print(f"... and {len(rows) - args.top} more (--top, --json)", markup=False)
    out.print("95 %: Student's t over repeats and start offsets; - where a setting was run once", markup=False)
    out.print("guest lost: share of its vCPUs' time, and the largest cause of it (all: --json)", markup=False)
    return 0


def spell_setting(name: str, value: Any) -> str:
    """A setting for people."""
    from replay.units import format_bytes, format_duration

    if value is None:
        return "none"
    if value == 0 and name in ("max_bandwidth", "link", "postcopy_bandwidth"):
        return "no limit"
    if name in ("memory", "xbzrle"):
        return format_bytes(value)
    if name in ("max_bandwidth", "link", "postcopy_bandwidth"):
        return f"{format_bytes(value)}/s"
    if name == "downtime_limit":
        return f"{value} ms"
    if name in ("start", "give_up", "postcopy_after"):
        return format_duration(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
