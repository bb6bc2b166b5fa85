"""`replay trace decode`: keep a trace's events decoded, for replays that come again and again."""

from __future__ import annotations

import argparse
from typing import Any

from replay.cli import show
from replay.cli.options import add_json

DESCRIPTION = """Decode a trace once for all processes: from then on replays map its events into memory, 14 bytes an
event in a file beside the trace (NAME.parquet.events) or, where that cannot be written, in the cache folder. The file
is checked whenever it is mapped, and made again when the trace was changed; traces/README.md says what is checked."""


def add_commands(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "decode", help="keep a decoded copy that all replays map into memory; --remove it", description=DESCRIPTION
    )
    parser.add_argument("file", metavar="FILE", help="trace file (Parquet), or the name of a shipped trace")
    parser.add_argument("--remove", action="store_true", help="delete the decoded copy")
    add_json(parser)
    parser.set_defaults(act=_decode)


def _decode(args: argparse.Namespace) -> int:
    from replay.trace import side_file
    from replay.trace.reader import TraceReader
    from replay.trace.shipped import find
    from replay.units import format_bytes

    path = find(args.file)
    if args.remove:
        removed = [str(place) for place in side_file.remove(path)]
        if args.json:
            show.print_json({"trace": str(path), "removed": removed})
        else:
            print(
                *(f"{place}: deleted" for place in removed) if removed else [f"{path}: has no decoded copy"], sep="\n"
            )
        return 0
    reader = TraceReader(path)
    with show.task_line("decode") as progress:
        made = side_file.make(reader, progress)
    size = made.stat().st_size
    if args.json:
        show.print_json({"trace": str(path), "decoded": str(made), "n_events": reader.n_events, "bytes": size})
    else:
        print(f"{made}: {reader.n_events:,} events, {format_bytes(size)}; replays of {path.name} map it from now on")
    return 0
