"""`replay generate`: a workload, or a mixture of workloads and recordings, as a trace file."""

from __future__ import annotations

import argparse

from replay.cli import show
from replay.cli.options import add_json
from replay.config import RunConfig

EXAMPLES = """examples:
  replay generate uniform --rate 50000 --memory 8G -o uniform.parquet
  replay generate hot-cold:rate=200MB/s,hot=5% --memory 8G --vcpus 8 --duration 60s -o hot.parquet
  replay generate guest.toml -o guest.parquet
  replay generate redis-1g+file-cache:rate=5000,on=1,within=50%-100% -o mixture.parquet
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay generate`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES + "\n" + (parser.epilog or "")
    parser.add_argument(
        "workload",
        metavar="WORKLOAD[:PARAMS][+...]",
        help="what the guest does (replay list workloads), a recorded trace, a sum of them, or a config file (.toml)",
    )
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the trace file to write")
    parser.add_argument("--memory", metavar="SIZE", help="memory of the guest (default: as spelled or recorded, or 1G)")
    parser.add_argument("--vcpus", metavar="N", help="vCPUs of the guest (default: as spelled or recorded, or 4)")
    parser.add_argument("--duration", metavar="TIME", help="length (default: as spelled or recorded, or 10s)")
    parser.add_argument(
        "--rate", metavar="RATE", help="writes of all parts together: 50000 (pages a second) or 200MB/s"
    )
    parser.add_argument("--seed", metavar="N", help="seed of everything random (default: as the file says, or 1)")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Write the file and say what is in it."""
    from replay import api

    seed = None if args.seed is None else RunConfig(seed=args.seed).seed
    with show.task_line("generate") as progress:
        trace = api.generate(
            args.workload, args.output, memory=args.memory, vcpus=args.vcpus, duration=args.duration,
            rate=args.rate, seed=seed, progress=progress,
        )  # fmt: skip
    meta = trace.metadata
    if args.json:
        told = {"path": str(trace.path), "digest": trace.digest, "n_events": trace.n_events, **meta.to_plain()}
        show.print_json(told)
        return 0
    print(f"{show.trace_line(trace)}, seed {meta.provenance['seed']}")
    return 0
