"""The command `replay`: finds the subcommand, runs it, and turns an error into a message and an exit code.

Only the file of the chosen subcommand is imported, and nothing at all for `--help`, which costs little more than
starting Python.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing's, whose import takes 6 ms
if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "demo": "a shipped trace of a real guest through two designs, in a minute or less",
    "run": "replay a trace through one dirty log and one design",
    "compare": "the same trace through several designs, side by side",
    "explain": "what a run's time went into, and what makes two runs differ: a waterfall",
    "plot": "one chart of results or of a trace, as .png, .svg or .pdf",
    "report": "one HTML file of results or of a sweep: charts with hover and zoom, offline",
    "export": "a result for other programs: the Perfetto viewer",
    "phase": "which design wins where: a grid over two or three settings",
    "sweep": "thousands of replays: a plan of traces and axes, on one machine or a cluster",
    "advise": "will a guest converge, and what would make it: bandwidth, design, rings, policy",
    "bound": "what hindsight could have done with a guest, and how far designs are from it",
    "pareto": "the settings of a sweep that none other beats in every figure",
    "fleet": "a folder of traces: which guests will not converge, worst first",
    "generate": "write the trace of a generated guest: workloads, recordings, mixtures",
    "import": "a trace from what was recorded: kernel trace, QEMU's log, any table",
    "capture": "a trace of something that runs now: a guest in QEMU, a program, a micro-VM",
    "reproduce": "published experiments, replayed and compared cell by cell",
    "validate": "predictions against real migrations, recorded with their traces",
    "calibrate": "measure this machine's costs, or fit a host's from its migrations",
    "check": "explore every interleaving of a design on small guests: can it lose a page?",
    "warm": "compile every kernel ahead, so that no first run has to",
    "help": "topics, from the first commands to a design of one's own; essays of plug-ins",
    "doctor": "versions, CPU, cache, what optional parts are missing and how to get them",
    "completion": "what bash, zsh or fish needs to complete commands, options and names",
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    quiet, given = _taken(given, ("-q", "--quiet"))
    verbose, given = _taken(given, ("-v", "--verbose"))
    if given[:1] in (["-h"], ["--help"]):
        from replay.cli import overview

        print(overview.text(COMMANDS, EXIT_CODES), end="")
        return 0
    return _run(given, quiet, verbose)


def _taken(given: list[str], flags: tuple[str, ...]) -> tuple[bool, list[str]]:
    """Whether a flag is there (before any --), and the rest."""
    end = given.index("--") if "--" in given else len(given)
    rest = [word for word in given[:end] if word not in flags]
    return len(rest) < end, rest + given[end:]


def _run(given: list[str], quiet: bool, verbose: bool) -> int:
    import time

    from replay.cli import parser, show
    from replay.errors import ReplayError
    from replay.version import __version__

    show.QUIET = quiet
    began = time.monotonic()
    try:
        args = parser.parse(given, COMMANDS, EXIT_CODES)
        code: int = parser.module(args.command).main(args)
        sys.stdout.flush()
        if verbose:
            print(f"replay: {__version__}, {time.monotonic() - began:.2f} s{_used()}", file=sys.stderr)
        return code
    except ReplayError as error:
        if verbose:
            import traceback

            traceback.print_exc()
        print(f"replay: error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        print("replay: interrupted", file=sys.stderr)
        return 130


def _used() -> str:
    """The cache of compiled kernels, where a command used it."""
    jit = sys.modules.get("replay.jit")
    return f", kernels in {jit.CACHE_FOLDER}" if jit is not None else ""
