"""`replay trace fit`: a generator config whose guest comes near to a trace, and how near."""

from __future__ import annotations

import argparse
from typing import Any

from replay.cli import show
from replay.cli.options import add_json
from replay.config import RunConfig

LISTED = 5
FEW = 1000
NOTE = "a fit: its figures are near the trace's as far as the table says; it is not the program that was recorded"


def add_commands(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "fit", help="a generator config whose figures are near the trace's, and how near",
        description="Find the workload or mixture whose figures are nearest to a trace's, and write it as a generator "
        "config (replay generate FILE.toml).",
    )  # fmt: skip
    parser.add_argument("trace", metavar="TRACE", help="a trace file, a shipped trace, or WORKLOAD[:PARAMS]")
    parser.add_argument("-o", "--output", metavar="FILE.toml", help="write the config (default: only show it)")
    parser.add_argument("--seed", metavar="N", default="1", help="seed of the generated guests (default: 1)")
    add_json(parser)
    parser.set_defaults(act=_fit)


def _fit(args: argparse.Namespace) -> int:
    from replay import api
    from replay.cli.outputs import check_outputs
    from replay.cli.trace_stat import comparison

    check_outputs((args.output, (".toml",)))
    seed = RunConfig(seed=args.seed).seed
    show.note_compiling()
    with show.task_line("fit") as progress:
        found = api.fit(args.trace, args.output, seed=seed, progress=progress)
    if args.json:
        show.print_json(found.as_dict())
        return 0
    console = show.console()
    console.print(comparison(found.rows(), (args.trace.rpartition("/")[2], "generated")))
    others = ", ".join(f"{name} {score:.3f}" for name, score in found.tried[:LISTED])
    console.print(f"score {found.score:.3f} (0: all figures alike); nearest on a part of it: {others}", markup=False)
    for part in found.parts:
        spelled = ", ".join(f"{key} {value}" for key, value in part.items() if key != "workload")
        console.print(f"{part['workload']}: {spelled}", markup=False)
    console.print(NOTE, markup=False)
    if found.original["n_events"] < FEW:
        console.print(f"{found.original['n_events']:,} events are few: any workload can be near to them", markup=False)
    if args.output:
        print(f"{args.output}: replay generate {args.output} -o FILE.parquet")
    return 0
