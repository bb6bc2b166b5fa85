"""`replay explain`: which causes a run's time, bytes and stalls have, and what makes two runs differ."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from replay.cli import show
from replay.cli.options import add_json, add_run_options, run_config
from replay.errors import ResultError, UsageError

if TYPE_CHECKING:
    from replay.analysis.explain import Explanation
    from replay.reproducing.seed import Seed
    from replay.results.result import Result

SEED = "seed-96g"
EXAMPLES = """examples:
  replay explain result.parquet                             # one run, round by round
  replay explain before.parquet after.parquet               # what makes them differ
  replay explain redis-1g --design bitmap --design double-ring:1024 --memory 96G
  replay explain seed-96g                                   # the thread's question, with control arms
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay explain`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES + "\n" + (parser.epilog or "")
    parser.add_argument("first", metavar="RESULT|TRACE", help=f"a result file, a trace to replay, or {SEED}")
    parser.add_argument("second", metavar="RESULT", nargs="?", help="a result file to compare with")
    parser.add_argument(
        "--design", action="append", metavar="DESIGN[:PARAMS]", help="of a trace: one, or two to compare"
    )
    parser.add_argument("--log", action="append", metavar="LOG[:PARAMS]", help="of a trace: one, or two to compare")
    parser.add_argument("--plot", metavar="FILE", help="draw the waterfall: .png, .svg or .pdf")
    add_json(parser)
    add_run_options(parser, leave_out=("design", "log"))


def main(args: argparse.Namespace) -> int:
    """Load or replay, take apart, show."""
    from replay import api
    from replay.cli.outputs import PICTURES, check_outputs, save_figure

    check_outputs((args.plot, PICTURES))
    if args.first == SEED:
        if args.second or args.design or args.log:
            raise UsageError(f"{SEED} has arms of its own: give it no second result, --design or --log")
        show.note_compiling()
        with show.task_line("replaying the control arms") as line:
            seed = api.explain_seed(progress=None if line is None else lambda done, _: line(done, 0))
        found, results = seed.waterfall, []
        if args.json:
            show.print_json(seed.as_dict())
        else:
            _print_seed(seed)
    else:
        results = _results(args)
        found = api.explain(*results)
        if args.json:
            one = len(results) == 1
            show.print_json(found.as_dict() | ({"rounds": api.explain_rounds(results[0])} if one else {}))
        else:
            _print(found, results)
    if args.plot:
        from replay.analysis.charts import waterfall

        save_figure(waterfall(found), args.plot)
    return 0


def _results(args: argparse.Namespace) -> list[Result]:
    """The one or two results that are meant: files, or replays of a trace."""
    from replay import api

    if args.second is not None:
        if args.design or args.log:
            raise UsageError("two results are explained as they are: leave out --design and --log, or give one trace")
        return [api.load(args.first), api.load(args.second)]
    if not args.design and not args.log and args.first.endswith(".parquet"):
        try:
            return [api.load(args.first)]
        except ResultError as error:
            if "not a result" not in str(error):
                raise
    designs, logs = args.design or ["bitmap"], args.log or ["kvm-ring:4096"]
    configs = [run_config(args, design=design, log=log) for log in logs for design in designs]
    if len(configs) > 2:
        raise UsageError(
            f"explain takes apart one run or two, not {len(configs)}: replay compare shows more side by side"
        )
    trace = api.open_trace(args.first)
    show.note_compiling()
    results = []
    for config in configs:
        with show.progress_line(f"{config.design} on {config.log}", config.give_up) as progress:
            results.append(api.run_config(trace, config, progress=progress))
    return results


def _print(found: Explanation, results: list[Result]) -> None:
    from replay.analysis.explain import METRICS

    out = show.console()
    for metric in METRICS:
        if found.of(metric):
            out.print(_table(found, metric))
            out.print()
    if len(results) == 1:
        out.print(_rounds(results[0]))
    out.print("modelled: counted work x cost table; the causes of a figure sum to it exactly", style="dim")


def _spell(value: int | None, unit: str) -> str:
    from replay.units import format_bytes, format_duration

    if value is None:
        return "-"
    return format_bytes(value) if unit == "bytes" else format_duration(value / 1000)


def _table(found: Explanation, metric: str) -> Any:
    from rich.table import Table

    from replay.analysis.explain import HEADS

    two = len(found.labels) == 2
    table = Table(title=HEADS[metric], title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("cause")
    for name in found.labels:
        table.add_column(name, justify="right", overflow="fold", max_width=26)
    if two:
        table.add_column("difference", justify="right")
    table.add_column("share", justify="right")
    whole, unit = found.totals[metric]["difference"] or 0, "bytes" if metric == "bytes" else "ps"
    for row in sorted(found.of(metric), key=lambda row: -abs(row["difference"])):
        cells = [_spell(row["a"], unit)] + ([_spell(row["b"], unit), _signed(row["difference"], unit)] if two else [])
        table.add_row(
            row["cause"], *cells, f"{100 * row['difference'] / whole:.1f} %" if whole and row["difference"] else ""
        )
    table.add_section()
    totals = found.totals[metric]
    cells = [_spell(totals["a"], unit)] + ([_spell(totals["b"], unit), _signed(whole, unit)] if two else [])
    table.add_row("[bold]all[/bold]", *cells, "100 %" if whole else "-")
    return table


def _signed(value: int, unit: str) -> str:
    return "0" if not value else ("+" if value > 0 else "-") + _spell(abs(value), unit)


def _rounds(result: Result) -> Any:
    from rich.table import Table

    from replay.analysis.explain import rounds

    table = Table(title="round by round", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    heads = ("harvest", "sync", "find", "send", "wait", "other")
    for head in ("round", "cause", *heads, "all"):
        table.add_column(head, justify="left" if head == "cause" else "right")
    entries = rounds(result)
    shown = entries if len(entries) <= 24 else [*entries[:12], *entries[-12:]]
    for index, entry in enumerate(shown):
        if len(shown) < len(entries) and index == 12:
            table.add_row("...", f"{len(entries) - len(shown)} more")
        cells = (_spell(entry[f"{head}_ps"], "ps") for head in heads)
        table.add_row(str(entry["round"]), entry["cause"], *cells, _spell(entry["total_ps"], "ps"))
    return table


def _print_seed(seed: Seed) -> None:
    from rich.table import Table

    out = show.console()
    out.print(f"96 GiB, idle: the ring was {seed.published_ms:.0f} ms faster. What accounts for them?", markup=False)
    out.print()
    out.print("modelled: ms less than the bitmap takes, by the price of a second find", style="bold")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("arm")
    for price in seed.prices:
        table.add_column(f"{price['refind_ns']:g} ns", justify="right")
    for arm in seed.arms:
        table.add_row(arm["arm"], *(f"{arm['explains_ms'][price['price']]:.1f}" for price in seed.prices))
    table.add_section()
    table.add_row("syncs and dequeue alone", *(f"{price['syncs_and_dequeue_ms']:.1f}" for price in seed.prices))
    table.add_row(f"the ring, of {seed.published_ms:.0f} ms", *(f"{p['of_published_pct']:.0f} %" for p in seed.prices))
    out.print(table)
    for price in seed.prices:
        out.print(f"{price['refind_ns']:g} ns: {price['price']} ({price['source']})", markup=False)
    out.print()
    out.print("measured: our kernels on this machine, ms; not QEMU's, and no part of the above", style="bold")
    measured = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for arm in seed.arms:
        measured.add_row(arm["arm"], f"{arm['measured_ms']:.1f}")
    out.print(measured)
    from replay.reproducing.seed import DECIDES, NOT_SHOWN, SHOWN

    for head, lines in (("Shown", SHOWN), ("Not shown", NOT_SHOWN), ("What would decide it", (DECIDES,))):
        out.print()
        out.print(f"{head}:", style="bold")
        for line in lines:
            out.print(f"- {line}", markup=False)
