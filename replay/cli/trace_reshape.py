"""`replay trace slice | sample | merge | scale`: a trace made of traces."""

from __future__ import annotations

import argparse
from typing import Any

from replay.cli import show
from replay.cli.options import add_json
from replay.config import RunConfig

SAMPLES = """what a sample keeps:
  --by pages   all events of some pages: when each is written and rewritten, and how popularity
               differs, stay; rates and working sets shrink to the share; runs are broken
  --by events  some events of all pages: the shape of the rate and the proportions of popularity
               stay; reuse and working sets do not
"""
FITS = """memory of another size:
  embed    pages keep their numbers, the rest is never written
  tile     copies side by side, each from its own phase: rate and working set grow with memory
  stretch  written extents stay whole, the memory between them grows (or shrinks): rate, working
           set, run lengths and reuse stay
"""


def add_commands(commands: Any) -> None:
    """Adds the four subcommands."""
    _slice(_command(commands, "slice", "cut out a span of time, ranges of pages, or both", "TRACE"))
    _sample(_command(commands, "sample", "thin it: some of its pages, or some of its events", "TRACE"))
    _merge(_command(commands, "merge", "several traces as one: guests side by side, or vCPUs of one guest", None))
    _scale(_command(commands, "scale", "guest time faster or slower, memory larger or smaller", "TRACE"))


def _command(commands: Any, name: str, summary: str, metavar: str | None) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    told = "a trace file, a shipped trace by name, or WORKLOAD[:PARAMS]"
    if metavar:
        parser.add_argument("trace", metavar=metavar, help=told)
    else:
        parser.add_argument("traces", metavar="TRACE", nargs="+", help=f"two or more: {told}")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the trace file to write")
    add_json(parser)
    return parser


def _slice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="start", metavar="TIME", default="0", help="from then on (default: the start)")
    parser.add_argument("--to", dest="end", metavar="TIME", help="up to then, exclusive (default: the end)")
    parser.add_argument(
        "--pages", metavar="FIRST-END", action="append", default=[], help="pages by number, the end exclusive; repeat"
    )
    parser.add_argument(
        "--within", metavar="LOW-HIGH", action="append", default=[], help="memory: 0-512M or 25%%-50%%; repeat"
    )
    parser.add_argument("--keep-times", action="store_true", help="times count from the recording's start, as before")
    parser.add_argument("--keep-pages", action="store_true", help="pages and memory stay as they were")
    parser.set_defaults(act=_do_slice)


def _sample(parser: argparse.ArgumentParser) -> None:
    parser.epilog = SAMPLES
    parser.add_argument("--keep", metavar="SHARE", required=True, help="the share to keep: 10%% or 0.1")
    parser.add_argument("--by", metavar="pages|events", default="pages", help="of what (default: pages)")
    _seed(parser)
    parser.set_defaults(act=_do_sample)


def _merge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--of", metavar="guests|vcpus", default="guests",
        help="guests: memory side by side; vcpus: one guest's memory, its vCPUs recorded apart (default: guests)",
    )  # fmt: skip
    parser.set_defaults(act=_do_merge)


def _scale(parser: argparse.ArgumentParser) -> None:
    parser.epilog = FITS
    parser.add_argument("--speed", metavar="FACTOR", help="guest time: 4x is four times as fast, 0.5x half as fast")
    parser.add_argument("--memory", metavar="SIZE", help="memory of the guest")
    parser.add_argument("--fit", metavar="embed|tile|stretch", default="embed", help="how (default: embed)")
    parser.add_argument("--rest", metavar="zero|data", default="zero", help="what added memory holds (default: zero)")
    _seed(parser)
    parser.set_defaults(act=_do_scale)


def _seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", metavar="N", default="1", help="seed of everything random (default: 1)")


def _do_slice(args: argparse.Namespace) -> int:
    return _run(
        args, "slice_trace", args.trace, start=args.start, end=args.end, pages=args.pages, within=args.within,
        keep_times=args.keep_times, keep_pages=args.keep_pages,
    )  # fmt: skip


def _do_sample(args: argparse.Namespace) -> int:
    seed = RunConfig(seed=args.seed).seed
    return _run(args, "sample_trace", args.trace, keep=args.keep, by=args.by, seed=seed)


def _do_merge(args: argparse.Namespace) -> int:
    return _run(args, "merge_traces", args.traces, of=args.of)


def _do_scale(args: argparse.Namespace) -> int:
    seed = RunConfig(seed=args.seed).seed
    return _run(
        args, "scale_trace", args.trace, speed=args.speed, memory=args.memory, fit=args.fit, rest=args.rest, seed=seed
    )


def _run(args: argparse.Namespace, function: str, given: Any, **options: Any) -> int:
    """Do it with a progress line, then say what was written and how it came about."""
    from replay import api
    from replay.reshaping.history import steps

    with show.task_line(args.trace_command) as progress:
        made = getattr(api, function)(given, args.output, progress=progress, **options)
    meta = made.metadata
    if args.json:
        show.print_json({"path": str(made.path), "digest": made.digest, "n_events": made.n_events, **meta.to_plain()})
        return 0
    print(show.trace_line(made))
    for step in steps(meta.provenance):
        print(f"  {step}")
    return 0
