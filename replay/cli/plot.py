"""`replay plot`: one chart."""

from __future__ import annotations

import argparse

from replay.errors import UsageError, unknown_name

EXAMPLES = """examples:
  replay plot timeline result.parquet -o rounds.png
  replay plot waterfall before.parquet after.parquet -o why.svg
  replay plot heatmap redis-1g -o writes.pdf

kinds: timeline, rounds, phases, phases-measured, waterfall, compare (of results), heatmap (of a trace)
"""
KINDS = ("timeline", "rounds", "phases", "phases-measured", "waterfall", "compare", "heatmap")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay plot`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES + "\n" + (parser.epilog or "")
    parser.add_argument("kind", metavar="KIND", help="which chart, see below")
    parser.add_argument("things", metavar="RESULT|TRACE", nargs="+", help="result files; for heatmap a trace")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the picture: .png, .svg or .pdf")


def main(args: argparse.Namespace) -> int:
    """Load, draw, write."""
    from replay import api
    from replay.cli.outputs import PICTURES, check_outputs, save_figure

    if args.kind not in KINDS:
        raise unknown_name("kind of chart", args.kind, KINDS)
    check_outputs((args.output, PICTURES))
    if args.kind == "waterfall" and len(args.things) > 2:
        raise UsageError("a waterfall is of one result, or of the difference of two")
    save_figure(api.plot(args.kind, *args.things), args.output)
    return 0
