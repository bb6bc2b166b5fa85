"""`replay compare`: one trace through several designs, everything else equal."""

from __future__ import annotations

import argparse
import json

from replay.cli import show
from replay.cli.options import add_json, add_run_options, run_config
from replay.config import RunConfig
from replay.errors import UnsafeError, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay compare`."""
    parser.add_argument(
        "trace", metavar="TRACE", help="a trace file, or the name of a shipped trace (replay list traces)"
    )
    parser.add_argument(
        "--design",
        action="append",
        metavar="DESIGN[:PARAMS]",
        help="a design; give it twice or more (default: bitmap, double-ring)",
    )
    parser.add_argument(
        "--log",
        action="append",
        metavar="LOG[:PARAMS]",
        help="a dirty log; each design runs on each (default: kvm-ring:4096)",
    )
    parser.add_argument("--rounds", action="store_true", help="show the per-round table of each run too")
    add_json(parser)
    add_run_options(parser, leave_out=("design", "log"))


def main(args: argparse.Namespace) -> int:
    """Run all, show them side by side. Raises UnsafeError at the end when one lost pages."""
    designs, logs = args.design or ["bitmap", "double-ring"], args.log or ["kvm-ring:4096"]
    if len(designs) * len(logs) < 2:
        raise UsageError("compare needs two designs or two logs: give --design (or --log) twice")
    configs = [run_config(args, design=design, log=log) for log in logs for design in designs]
    return compare_and_show(args.trace, configs, as_json=args.json, rounds_of=len(configs) if args.rounds else 0)


def compare_and_show(trace_name: str, configs: list[RunConfig], *, as_json: bool, rounds_of: int) -> int:
    """Replay every configuration on one trace; print the rounds of the first `rounds_of` and the comparison of all."""
    from replay import api
    from replay.plugins import parse

    for config in configs:
        parse("log", config.log)
        parse("design", config.design)
    trace = api.open_trace(trace_name)
    show.note_compiling()
    results = []
    for config in configs:
        with show.progress_line(f"{config.design} on {config.log}", config.give_up) as progress:
            results.append(api.run_config(trace, config, progress=progress))
    if as_json:
        rows = json.loads(api.compare(results).write_json())
        show.print_json(
            {"trace": trace.metadata.title, "comparison": rows, "results": [result.as_dict() for result in results]}
        )
    else:
        out = show.console()
        for result in results[:rounds_of]:
            out.print(show.rounds_table(result, f"{result.config['design']} on {result.config['log']}"))
            out.print()
        out.print(show.compare_table(results))
    unsafe = [result for result in results if result.lost_pages]
    if unsafe:
        raise UnsafeError(
            ", ".join(f"{r.config['design']} on {r.config['log']} lost {r.lost_pages:,} pages" for r in unsafe)
        )
    return 0
