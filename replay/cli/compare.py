"""`replay compare`: one trace through several designs, everything else equal."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from replay.cli import show
from replay.cli.options import add_json, add_run_options, add_trace, run_config
from replay.config import RunConfig
from replay.errors import UnsafeError, UsageError

if TYPE_CHECKING:
    from replay.results.result import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay compare`."""
    add_trace(parser)
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
    helpers = _compile_ahead(configs) if show.note_compiling() else []
    results: list[Result] = []
    for config in configs:
        if results:
            for helper in helpers:
                helper.wait()
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
            print(*show.rounds_lines(result, f"{result.config['design']} on {result.config['log']}"), "", sep="\n")
        out.print(show.compare_table(results))
    unsafe = [result for result in results if result.lost_pages]
    if unsafe:
        raise UnsafeError(
            ", ".join(f"{r.config['design']} on {r.config['log']} lost {r.lost_pages:,} pages" for r in unsafe)
        )
    return 0


_WARM = """
import sys
from replay.migration.warm import warm
from replay.plugins import parse
warm(parse("log", sys.argv[1]), parse("design", sys.argv[2]), sys.argv[3])
"""


def _compile_ahead(configs: list[RunConfig]) -> list[subprocess.Popen[bytes]]:
    """On a cold start, compile what later runs need in other processes while this one compiles for the first run.

    numba compiles one kernel at a time in a process; the results meet in the cache folder. One process a spare core.
    """
    first = (configs[0].log, configs[0].design.partition(":")[0])
    others: dict[tuple[str, str], RunConfig] = {}
    for config in configs[1:]:
        pair = (config.log, config.design.partition(":")[0])
        if pair != first:
            others.setdefault(pair, config)
    spare = len(os.sched_getaffinity(0)) - 1
    return [
        subprocess.Popen(
            [sys.executable, "-c", _WARM, config.log, config.design, config.formulation], stderr=subprocess.DEVNULL
        )
        for config in list(others.values())[:spare]
    ]
