"""`python tools/bench [SUBCOMMAND] [--quick] [--json | --markdown]`: measure, and say which targets are met.

Without a subcommand all of them run, but for growth. A missed target is shown, never an exit code: a time depends on
the machine and on what else it does. The exit code is 1 when the two sides of a comparison computed different results,
or a report cannot be read.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[0] = str(ROOT)  # not this folder: its replay.py is not the package

from tools.bench import harness, moved, show  # noqa: E402

COMMANDS = {
    "scan": "find and clear every dirty page of a bitmap, against C in QEMU's style",
    "sync": "merge and fold bitmaps at a sync, against C",
    "decode": "the positions of a bitmap's set bits, against C, NumPy, polars and Python",
    "ring": "a bounded queue with a dedupe bitmap, against C",
    "apply": "events into a dirty bitmap, against C, NumPy, polars and Python",
    "replay": "whole migrations, against C that steps page by page; the price of verbs",
    "peers": "whole migrations against scripts: NumPy, polars, pyroaring, plain Python, simpy",
    "trace": "size of trace files; reading and applying one against applying arrays",
    "run": "whole replay.run calls on a file of 10^8 events; checking and progress against neither",
    "growth": "how time and memory grow with events (to 10^9) and guests (to 12T); with a plot: --plot",
    "start": "start-up times of the command line",
    "threads": "two replays in two threads, against one after the other",
    "memory": "what a 96G replay adds to its decoded trace",
}

ALONE = ("growth",)  # many minutes: only when asked for


def main() -> int:
    """Run the chosen benchmarks and print their rows."""
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__.split("\n\n")[1].replace("\n", " "))
    parser.add_argument("command", nargs="?", choices=COMMANDS, metavar="SUBCOMMAND", help=_help())
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds: does it work, not how fast")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="machine, rows and raw samples as JSON")
    shape.add_argument("--markdown", action="store_true", help="a table for a README")
    parser.add_argument("--read", metavar="FILE.json", help="show what --json wrote instead of measuring")
    parser.add_argument("--compare", metavar="OLD.json", help="print what moved since an older --json")
    parser.add_argument("--plot", metavar="FILE.png", help="growth: draw it")
    args = parser.parse_args()
    try:
        old = moved.read(args.compare)[0] if args.compare else []
        if args.read:
            rows, machine = moved.read(args.read)
        else:
            rows, machine = _measure(args), harness.machine()
    except (harness.DifferentResultsError, moved.ReportError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if args.compare:
        print("\n".join(moved.compare(old, rows)))
    elif args.json:
        json.dump(harness.as_json(rows), sys.stdout, indent=1)
        print()
    elif args.markdown:
        print(show.markdown(rows, machine))
    else:
        show.plain(rows, machine)
    return 0


def _measure(args: argparse.Namespace) -> list[harness.Row]:
    if not harness.has_compiler():
        print("bench: no gcc found: the C side is skipped", file=sys.stderr)
    rows: list[harness.Row] = []
    for name in [args.command] if args.command else [name for name in COMMANDS if name not in ALONE]:
        module = importlib.import_module(f"tools.bench.{name}")
        rows += module.measure(args.quick)
        if args.plot and hasattr(module, "plot"):
            module.plot(rows, args.plot)
    return rows


def _help() -> str:
    return "; ".join(f"{name}: {summary}" for name, summary in COMMANDS.items())


sys.exit(main())
