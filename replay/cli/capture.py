"""`replay capture`: record a trace of something that runs now; what that does to it is said before it starts."""

from __future__ import annotations

import argparse
import sys
import textwrap
from typing import Any

from replay.capturing.options import Options
from replay.cli import show
from replay.cli.kinds import add_parameters, given_parameters, kind_parser
from replay.cli.options import add_json

EXAMPLES = """examples:
  replay capture kvm-microvm --writer hot-cold --memory 64M --duration 5s -o hot.parquet
  replay capture process -o sort.parquet -- sort big.txt
  replay capture qemu --qmp vm.qmp --duration 10s -o vm.parquet

Ctrl-C stops; what was captured until then is a valid trace. `replay capture KIND --help` has the options of a kind.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay capture`: the kind; what comes after it depends on the kind."""
    from replay import plugins

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    listed = []
    for name in plugins.names("capture"):
        listed.append(f"  {name:18} {plugins.describe('capture', name).summary.partition(': ')[2]}")
        listed.append(f"  {'':18} cost: {plugins.constant('capture', name, 'COST')}")
    recipes = "\n".join(f"{name}\n{plugins.constant('capture', name, 'HOW')}" for name in plugins.names("capture"))
    parser.epilog = "kinds:\n" + "\n".join(listed) + f"\n\n{EXAMPLES}\n{recipes}\n{parser.epilog or ''}"
    parser.usage = "replay capture KIND -o OUTPUT [options] [-- COMMAND...]"
    parser.add_argument("kind", metavar="KIND", help="what to record, see below; or the path of a capture of yours")
    parser.add_argument(
        "rest", nargs=argparse.REMAINDER, metavar="-o OUTPUT [options] [-- COMMAND...]", help="see below"
    )


def _parser(kind: str) -> argparse.ArgumentParser:
    """The parser of a kind: its parameters, and what every capture takes."""
    from replay import plugins

    parser = kind_parser("capture", "capture", kind)
    if plugins.constant("capture", kind, "COMMAND") not in ("", "none"):
        parser.usage = f"replay capture {kind} -o OUTPUT [options] -- COMMAND..."
    parser.add_argument("-o", "--output", metavar="OUTPUT", required=True, help="the trace to write")
    add_parameters(parser, "capture", kind, Options)
    add_json(parser)
    return parser


def main(args: argparse.Namespace) -> int:
    """Capture, and say what was caught. Ends with the exit code of the program that was recorded, if one was."""
    from replay import api

    rest = args.rest
    at = rest.index("--") if "--" in rest else len(rest)
    given, command = _parser(args.kind).parse_args(rest[:at]), rest[at + 1 :]
    options = given_parameters(given, "output")
    with show.task_line("capture") if not command else show.no_line() as progress:
        done = api.capture_trace(
            args.kind, given.output, command, announce=_announce, progress=progress, to_stderr=given.json, **options
        )
    if given.json:
        show.print_json(done.to_plain())
    else:
        _tell(done, sys.stderr if command else sys.stdout)
    return done.exit_code


def _announce(lines: list[str]) -> None:
    for line in lines:
        print(_wrapped(f"replay: {line}"), file=sys.stderr)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, show.WIDTH, subsequent_indent="  ", break_on_hyphens=False)


_ENDED = {"interrupted": "; stopped when asked to", "duration": "; the time was over", "end": ""}


def _tell(done: Any, where: Any) -> None:
    """A program's own output has standard output to itself; this then goes to standard error."""
    print(f"{show.trace_line(done.trace)}{_ENDED[done.ended]}", file=where)
    print(_wrapped(f"limits: {done.trace.metadata.limits}"), file=where)
