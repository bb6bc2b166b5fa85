"""The command `replay`: finds the subcommand, runs it, and turns an error into a message and an exit code.

Only the file of the chosen subcommand is imported, so `--help` costs little more than starting Python.
"""

from __future__ import annotations

import argparse
import importlib
import keyword
import sys
from collections.abc import Sequence
from typing import Any

from replay.errors import ReplayError
from replay.version import __version__

COMMANDS = {
    "demo": "a shipped trace of a real guest through two designs, in a minute or less",
    "run": "replay a trace through one dirty log and one design",
    "compare": "the same trace through several designs, side by side",
    "explain": "what a run's time went into, and what makes two runs differ: a waterfall",
    "phase": "which design wins where: a grid over two or three settings",
    "sweep": "thousands of replays: a plan of traces and axes, on one machine or a cluster",
    "generate": "write the trace of a generated guest: workloads, recordings, mixtures",
    "import": "a trace from what was recorded: kernel trace, QEMU's log, any table",
    "capture": "a trace of something that runs now: a guest in QEMU, a program, a micro-VM",
    "reproduce": "published experiments, replayed and compared cell by cell",
    "validate": "predictions against real migrations, recorded with their traces",
    "calibrate": "measure this machine's costs, or fit a host's from its migrations",
    "check": "explore every interleaving of a design on small guests: can it lose a page?",
    "list": "the logs, designs, workloads, traces, cost tables, columns and counters there are",
    "trace": "describe, check, cut, thin, merge, scale and fit traces; draw a heatmap",
}

EXIT_CODES = """exit codes:
  0  done (a migration that does not converge is an answer, not an error)
  1  something else went wrong
  2  a wrong name, option or value
  3  the replay lost pages, or check found a way to: the design is unsafe
  4  a damaged trace or result file; a broken case was skipped
  130  interrupted
"""


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="replay",
        description="Replay recorded guest dirty-page traces through the dirty-tracking designs of live migration.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"replay {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".", epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        if name == chosen:
            _module(name).add_arguments(command)
    return parser


def _module(command: str) -> Any:
    """The file of a subcommand; one that is a word of Python's has an underscore at its end."""
    return importlib.import_module(f"replay.cli.{command}{'_' * keyword.iskeyword(command)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    chosen = next((argument for argument in given if not argument.startswith("-")), None)
    try:
        args = _parser(chosen if chosen in COMMANDS else None).parse_args(given)
        code: int = _module(args.command).main(args)
        sys.stdout.flush()
        return code
    except ReplayError as error:
        print(f"replay: error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        print("replay: interrupted", file=sys.stderr)
        return 130
