"""`replay export`: a result for other programs."""

from __future__ import annotations

import argparse

from replay.errors import unknown_name

FORMATS = ("perfetto",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay export`."""
    parser.add_argument("format", metavar="FORMAT", help="perfetto: tracks for https://ui.perfetto.dev (JSON)")
    parser.add_argument("result", metavar="RESULT", help="a result file")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the file to write, .json")


def main(args: argparse.Namespace) -> int:
    """Load, convert, write."""
    from replay import api
    from replay.cli.outputs import check_outputs

    if args.format not in FORMATS:
        raise unknown_name("format", args.format, FORMATS)
    check_outputs((args.output, (".json",)))
    api.export_perfetto(args.result, args.output)
    return 0
