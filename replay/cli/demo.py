"""`replay demo`: the question of the thread on a real guest, with no flags needed."""

from __future__ import annotations

import argparse
import sys

from replay.cli.compare import compare_and_show
from replay.cli.options import add_json
from replay.config import RunConfig

TRACE = "redis-1g"
SETTINGS = {"memory": "96G", "max_bandwidth": "1250MiB/s", "downtime_limit": "300ms", "log": "kvm-ring:4096"}
DESIGNS = ("bitmap", "double-ring:65536", "bitmap:off")
EXPLANATION = """
The rings make syncs cheap, but nearly all of the difference is `find`: the posted ring code also leaves out the
second search that QEMU makes for each page sent. The third column is today's bitmaps without that search: nearly the
same gain, no ring. How much a second search costs is the open point: this cost table says 4.2 ns, measurements of its
bounded form say 0.1 ns; try your own figure with --costs (replay list costs; replay run --help).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay demo`."""
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """A real Redis guest in 96G of memory: today's bitmaps, two rings swapped at every sync, and a control arm."""
    if not args.json:
        print(
            "A recorded Redis guest in 96 GiB, migrated at 1250 MiB/s with 300 ms of downtime allowed.", file=sys.stderr
        )
    configs = [RunConfig(**SETTINGS, design=design) for design in DESIGNS]  # type: ignore[arg-type]
    code = compare_and_show(TRACE, configs, as_json=args.json, rounds_of=2)
    if not args.json:
        print(EXPLANATION)
    return code
