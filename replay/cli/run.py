"""`replay run`: one trace, one dirty log, one design."""

from __future__ import annotations

import argparse

from replay.cli import show
from replay.cli.options import add_json, add_run_options, add_trace, run_config
from replay.errors import UnsafeError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay run`."""
    add_trace(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="write the result as Parquet")
    add_json(parser)
    add_run_options(parser)


def main(args: argparse.Namespace) -> int:
    """Run, show, write. Raises UnsafeError after showing everything when pages were lost."""
    config = run_config(args)
    from replay import api
    from replay.plugins import parse

    parse("log", config.log)
    parse("design", config.design)
    trace = api.open_trace(args.trace)
    show.note_compiling()
    with show.progress_line("replay", config.give_up) as progress:
        result = api.run_config(trace, config, progress=progress)
    if args.output:
        result.save(args.output)
    if args.json:
        show.print_json(result.as_dict())
    else:
        print(*show.rounds_lines(result, trace.metadata.title), "", *show.summary_lines(result), sep="\n")
    if result.lost_pages:
        raise UnsafeError(f"{result.lost_pages:,} pages were lost: {config.design} on {config.log} is unsafe")
    return 0
