"""`replay warm`: compile ahead."""

from __future__ import annotations

import argparse

from replay.cli import show
from replay.cli.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay warm`."""
    parser.add_argument("--log", action="append", metavar="LOG", help="only this dirty log; several: give it again")
    parser.add_argument(
        "--design", action="append", metavar="DESIGN", help="only this design, a name or a path; several: again"
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="compile in so many processes (default: one a core)")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Compile, and say what there is now."""
    from replay.warming import warm_all

    with show.task_line("compile") as progress:
        warmed = warm_all(args.log or (), args.design or (), jobs=args.jobs, progress=progress)
    if args.json:
        found = {name: getattr(warmed, name) for name in ("pairs", "found", "made", "seconds")}
        show.print_json({"folder": str(warmed.folder), **found})
    else:
        print(
            f"{warmed.made:,} kernels compiled, {warmed.found:,} were there, for {warmed.pairs} pairs of log and "
            f"design ({warmed.seconds:.0f} s): {warmed.folder}"
        )
    return 0
