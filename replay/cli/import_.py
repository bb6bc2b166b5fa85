"""`replay import`: a recording as it lies there, made into a trace; nothing is lost without being said."""

from __future__ import annotations

import argparse
from typing import Any

from replay.cli import show
from replay.cli.kinds import add_parameters, given_parameters, kind_parser
from replay.cli.options import add_json
from replay.importing.options import Options

EXAMPLES = """examples:
  replay import kvm-ftrace ring.txt -o guest.parquet
  zcat guest.log.gz | replay import qemu-log - -o guest.parquet --blocks pc.ram@0+1G
  replay import table writes.csv --columns 't=time,page=addr>>12' --time-unit us -o guest.parquet

Files may be packed with gzip or zstd. `replay import KIND --help` has the options of a kind, and how to record it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay import`: the kind; what comes after it depends on the kind."""
    from replay import plugins

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    kinds = [plugins.describe("importer", name) for name in plugins.names("importer")]
    listed = "\n".join(f"  {kind.name:18} {kind.summary.partition(': ')[2]}" for kind in kinds)
    recipes = "\n".join(f"{kind.name}\n{plugins.constant('importer', kind.name, 'HOW')}" for kind in kinds)
    parser.epilog = f"kinds:\n{listed}\n\n{EXAMPLES}\n{recipes}\n{parser.epilog or ''}"
    parser.usage = "replay import KIND FILE... -o OUTPUT [options]"
    parser.add_argument(
        "kind", metavar="KIND", help="what was recorded, see below; or the path of an importer of yours"
    )
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="FILE... -o OUTPUT [options]", help="see below")


def _parser(kind: str) -> argparse.ArgumentParser:
    """The parser of a kind: its parameters, and what every import takes."""
    parser = kind_parser("import", "importer", kind)
    parser.add_argument("files", nargs="+", metavar="FILE", help="recordings, in their order; -: standard input")
    parser.add_argument("-o", "--output", metavar="OUTPUT", required=True, help="the file to write")
    add_parameters(parser, "importer", kind, Options)
    add_json(parser)
    return parser


def main(args: argparse.Namespace) -> int:
    """Import, and say what became of every line."""
    from replay import api

    given = _parser(args.kind).parse_args(args.rest)
    options = given_parameters(given, "files", "output")
    with show.task_line("import") as progress:
        done = api.import_trace(args.kind, given.files, given.output, progress=progress, **options)
    if given.json:
        show.print_json(done.to_plain())
        return 0
    _tell(done)
    return 0


def _tell(done: Any) -> None:
    from rich.table import Table

    counts = done.counts
    if done.trace is not None:
        print(show.trace_line(done.trace))
        print(f"limits: {done.trace.metadata.limits}")
    else:
        rounds = len(done.rounds["rounds"])
        print(f"{done.path}: {rounds} rounds; a summary to compare with, not a trace: the log names no pages")
    table = Table(title=f"{counts['read']:,} {counts['unit']}s", title_justify="left", box=None, pad_edge=False)
    table.add_column("what", overflow="fold")
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("first", overflow="fold")
    table.add_row("events", f"{counts['events']:,}", "")
    for kind, word in (
        ("other", ""),
        ("dropped", "dropped: "),
        ("lost", "lost in the recording: "),
        ("notes", "note: "),
    ):
        for reason, count in counts[kind].items():
            if count:
                table.add_row(f"{word}{reason}", f"{count:,}", counts["first"].get(reason, "") if word else "")
    show.console().print(table, markup=False)
