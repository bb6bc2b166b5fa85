"""`replay demo`: the question of the thread on a real guest, with no flags needed."""

from __future__ import annotations

import argparse
import sys

from replay.cli.compare import compare_and_show
from replay.cli.options import add_json
from replay.config import RunConfig

TRACE = "redis-1g"
SETTINGS = {"memory": "96G", "max_bandwidth": "1250MiB/s", "downtime_limit": "300ms", "log": "kvm-ring:4096"}
DESIGNS = ("bitmap", "double-ring:65536")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay demo`."""
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """A real Redis guest in 96G of memory, through today's bitmaps and through two rings swapped at every sync."""
    if not args.json:
        print("A recorded Redis guest in 96 GiB of memory, migrated at 1250 MiB/s with 300 ms of downtime allowed:", file=sys.stderr)
    configs = [RunConfig(**SETTINGS, design=design) for design in DESIGNS]  # type: ignore[arg-type]
    return compare_and_show(TRACE, configs, as_json=args.json, with_rounds=True)
