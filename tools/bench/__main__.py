"""`python tools/bench [SUBCOMMAND] [--quick] [--json | --markdown]`: measure, and say which targets are met.

Without a subcommand all of them run. A missed target is shown, never an exit code: a time depends on the machine and on
what else it does. The exit code is 1 only when the two sides of a comparison computed different results.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[0] = str(ROOT)  # not this folder: its replay.py is not the package

from tools.bench import harness, show  # noqa: E402

COMMANDS = {
    "scan": "find and clear every dirty page of a bitmap, against C in QEMU's style",
    "sync": "merge and fold bitmaps at a sync, against C",
    "decode": "the positions of a bitmap's set bits, against C, NumPy, polars and Python",
    "ring": "a bounded queue with a dedupe bitmap, against C",
    "apply": "events into a dirty bitmap, against C, NumPy, polars and Python",
    "replay": "whole migrations, against C that steps page by page; the price of verbs",
    "peers": "whole migrations against scripts: NumPy, polars, pyroaring, plain Python, simpy",
    "trace": "size of trace files; reading and applying one against applying arrays",
    "start": "start-up times of the command line",
    "threads": "two replays in two threads, against one after the other",
    "memory": "what a 96G replay adds to its decoded trace",
}


def main() -> int:
    """Run the chosen benchmarks and print their rows."""
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__.split("\n\n")[1].replace("\n", " "))
    parser.add_argument("command", nargs="?", choices=COMMANDS, metavar="SUBCOMMAND", help=_help())
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds: does it work, not how fast")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="machine, rows and raw samples as JSON")
    shape.add_argument("--markdown", action="store_true", help="a table for a README")
    args = parser.parse_args()
    if not harness.has_compiler():
        print("bench: no gcc found: the C side is skipped", file=sys.stderr)
    rows: list[harness.Row] = []
    for name in [args.command] if args.command else COMMANDS:
        try:
            rows += importlib.import_module(f"tools.bench.{name}").measure(args.quick)
        except harness.DifferentResultsError as error:
            print(f"bench {name}: {error}", file=sys.stderr)
            return 1
    if args.json:
        json.dump(harness.as_json(rows), sys.stdout, indent=1)
        print()
    elif args.markdown:
        print(show.markdown(rows, harness.machine()))
    else:
        show.plain(rows, harness.machine())
    return 0


def _help() -> str:
    return "; ".join(f"{name}: {summary}" for name, summary in COMMANDS.items())


sys.exit(main())
