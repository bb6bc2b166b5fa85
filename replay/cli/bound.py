"""`replay bound`: what hindsight could have done with a guest, and how far designs and policies are from it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from replay.cli import show
from replay.cli.options import add_json, add_run_options, add_trace, given_options
from replay.cli.outputs import PICTURES, check_outputs, save_figure
from replay.units import PS_PER_NS, format_bytes, format_duration

if TYPE_CHECKING:
    from replay.answers.bound import Bound
    from replay.answers.hindsight import Moment

EXAMPLES = """examples:
  replay bound redis-1g --link 1Gbit/s --max-bandwidth 0
  replay bound rand-1g --link 1Gbit/s --design bitmap --design double-ring:1024 --policy none
  replay bound idle-1g --plot bound.png --order order.parquet
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay bound`."""
    parser.epilog = EXAMPLES + "\n" + (parser.epilog or "")
    add_trace(parser)
    parser.add_argument("--design", action="append", metavar="DESIGN[:PARAMS]", help="compare it (default: all)")
    parser.add_argument(
        "--policy", action="append", metavar="POLICY[:PARAMS]", help="compare it (default: none, and auto-converge)"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw it: .png, .svg or .pdf")
    parser.add_argument(
        "--order", metavar="FILE", help="write in which order hindsight sends the pages, and when: .parquet"
    )
    parser.add_argument(
        "--give-up", default="60s", metavar="TIME", help="give a migration up after so long (default: 60s)"
    )
    add_json(parser)
    add_run_options(parser, leave_out=("design", "policy", "give_up"))


def main(args: argparse.Namespace) -> int:
    """Find the optimum, replay, compare."""
    from replay import api

    check_outputs((args.plot, PICTURES), (args.order, (".parquet",)))
    policies = None if args.policy is None else ["" if name == "none" else name for name in args.policy]
    show.note_compiling()
    with show.task_line("replays") as progress:
        found = api.bound(
            args.trace, designs=args.design, policies=policies, order=bool(args.order), progress=progress,
            **given_options(args, leave_out=("design", "policy")),
        )  # fmt: skip
    if args.plot:
        save_figure(found.plot(), args.plot)
    if found.order is not None:
        found.order.save(args.order, {"config": found.config, **found.provenance})
    if args.json:
        show.print_json(found.as_dict())
        return 0
    out = show.console()
    for line in _lines(found):
        out.print(line, markup=False)
    out.print()
    if found.rows:
        out.print(_table(found))
        for line in _notes(found):
            out.print(line, markup=False)
    return 0


def _lines(found: Bound) -> list[str]:
    """The optimum in words."""
    best, soonest, horizon = found.limited.best, found.limited.soonest, found.limited.horizon_ps
    limit = found.config["downtime-limit"]
    lines = [found.provenance["trace"]["title"], "", "With hindsight, and no better by any design:"]
    lines.append(f"best switchover:     {_moment(found, best)}")
    if soonest is None:
        span = format_duration(horizon // PS_PER_NS)
        lines.append(f"within {limit} ms:       at no moment up to {span}: no design can, unless the guest is slowed")
    else:
        lines.append(f"soonest in {limit} ms: ".ljust(21) + _moment(found, soonest))
    if found.limited.channel.limit_page_ps:
        lines.append(f"without max-bandwidth: {_moment(found, found.channel.best)}")
    if found.order is not None:
        lines.append(f"order of sends: {found.order.page.size:,} pages by their last writes, "
                     f"{found.order.sent_after_the_stop:,} of them after the stop")  # fmt: skip
    return lines


def _moment(found: Bound, moment: Moment) -> str:
    ends_ps = moment.ends_ps(found.limited.channel.stop_ps)
    at, downtime, ends = (format_duration(ps // PS_PER_NS) for ps in (moment.at_ps, moment.downtime_ps, ends_ps))
    return f"at {at}, downtime {downtime}, {format_bytes(moment.total_bytes)} sent, over at {ends}"


def _table(found: Bound) -> Any:
    from rich.table import Table

    table = Table(title="Distance from it", title_justify="left", box=None, pad_edge=False)
    table.add_column("design, policy", overflow="fold")
    for head in ("stopped at", "downtime", "pause", "least", "x", "sent", "x"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in sorted(found.rows, key=lambda row: (row["pause_ns"] is None, row["pause_ns"] or 0)):
        name = row["design"] + (f", {row['policy']}" if row["policy"] else "")
        if row["pause_ns"] is None:
            table.add_row(name, row["status"])
            continue
        table.add_row(
            name,
            format_duration(row["stopped_ns"]),
            *(format_duration(row[name]) for name in ("downtime_ns", "pause_ns", "least_here_ns")),
            f"{row['pause_ratio']:.3g}",
            format_bytes(row["sent_bytes"]),
            f"{row['bytes_ratio']:.3g}" + ("" if row["limited"] else "*"),
        )
    return table


def _notes(found: Bound) -> list[str]:
    lines = [
        "pause: the downtime, and what the vCPU slowed most lost before it",
        "least: the same with hindsight, if the guest stops at that moment; x: times the least; modelled",
    ]
    if any(row["limited"] is False and row["pause_ns"] is not None for row in found.rows):
        lines.append("*: its vCPUs send pages too and do not heed max-bandwidth; least: without it")
    refused = [row for row in found.rows if row["refused"]]
    lines += [f"refused, {row['design']}, {row['policy'] or 'no policy'}: {row['refused']}" for row in refused]
    return lines
