"""`replay report`: one HTML file."""

from __future__ import annotations

import argparse

from replay.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay report`."""
    parser.add_argument(
        "things", metavar="RESULT|SWEEP_DIR", nargs="+", help="one to six result files, or a sweep's folder"
    )
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the report, .html")
    parser.add_argument("--trace", metavar="TRACE", help="the results' trace, for the heatmap (shipped ones are found)")
    parser.add_argument("--best", default="total-time", metavar="FIGURE", help="rank a sweep by (default: total-time)")


def main(args: argparse.Namespace) -> int:
    """Load, put together, write."""
    from pathlib import Path

    from replay import api
    from replay.cli.outputs import check_outputs

    check_outputs((args.output, (".html", ".htm")))
    if len(args.things) > 1 and any(Path(thing).is_dir() for thing in args.things):
        raise UsageError("a sweep's folder has a report alone: give one folder, or result files")
    api.report(args.things, args.output, trace=args.trace, best=args.best)
    return 0
