"""`replay advise`: will a guest converge, and what would make it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from replay.cli import show
from replay.cli.options import add_json, add_run_options, add_trace, given_options
from replay.cli.outputs import PICTURES, check_outputs, save_figure
from replay.units import format_bytes, format_duration

if TYPE_CHECKING:
    from replay.answers.advice import Advice, Found, Probe

EXAMPLES = """examples:
  replay advise redis-1g
  replay advise redis-1g --downtime-limit 50ms --max-total-time 30s --max-bandwidth 20MB/s
  replay advise rand-1g --design bitmap --design double-ring:1024 --policy none --plot advice.png
"""
CHOSEN = ("design", "policy", "start", "give_up", "downtime_limit")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay advise`."""
    parser.epilog = EXAMPLES + "\n" + (parser.epilog or "")
    add_trace(parser)
    parser.add_argument("--downtime-limit", default="300ms", metavar="TIME", help="QEMU's parameter (default: 300ms)")
    parser.add_argument(
        "--max-total-time", default="60s", metavar="TIME", help="it must be over by then (default: 60s)"
    )
    parser.add_argument("--max-downtime", metavar="TIME", help="what the downtime must come to at most (default: any)")
    parser.add_argument(
        "--max-slowdown", default="5%", metavar="SHARE",
        help="of its time that the guest may lose without a policy (default: 5%%)",
    )  # fmt: skip
    parser.add_argument(
        "--design", action="append", metavar="DESIGN[:PARAMS]",
        help="search it; the first is what there is now (default: all safe ones, bitmap)",
    )  # fmt: skip
    parser.add_argument(
        "--policy",
        action="append",
        metavar="POLICY[:PARAMS]",
        help="search it; none: no policy (default: auto-converge)",
    )
    parser.add_argument("--starts", type=int, default=8, metavar="N", help="moments to begin at (default: 8)")
    parser.add_argument("--wanted", default="100%", metavar="SHARE", help="of them that must converge (default: 100%%)")
    parser.add_argument("--tolerance", default="2%", metavar="SHARE", help="of the bandwidth found (default: 2%%)")
    parser.add_argument("--plot", metavar="FILE", help="draw it: .png, .svg or .pdf")
    add_json(parser)
    add_run_options(parser, leave_out=CHOSEN)


def main(args: argparse.Namespace) -> int:
    """Search, and say what was found."""
    from replay import api

    check_outputs((args.plot, PICTURES))
    policies = None if args.policy is None else [name for name in args.policy if name != "none"]
    show.note_compiling()
    with show.task_line("replays") as progress:
        advice = api.advise(
            args.trace, downtime_limit=args.downtime_limit, max_total_time=args.max_total_time,
            max_downtime=args.max_downtime, max_slowdown=args.max_slowdown, designs=args.design, policies=policies,
            starts=args.starts, wanted=args.wanted, tolerance=args.tolerance, progress=progress,
            **given_options(args, leave_out=CHOSEN),
        )  # fmt: skip
    if args.plot:
        save_figure(advice.plot(), args.plot)
    if args.json:
        show.print_json(advice.as_dict())
        return 0
    out = show.console()
    for line in _now(advice):
        out.print(line, markup=False)
    if advice.remedies:
        out.print()
        out.print(_remedies(advice))
    out.print()
    out.print(_settings(advice))
    out.print()
    for line in _best(advice):
        out.print(line, markup=False)
    return 0


def _rate(value: int) -> str:
    return f"{format_bytes(value)}/s"


def _share(probe: Probe) -> str:
    """From how many moments, and how sure that is."""
    if probe.kept is None:
        return "too few"
    low, high = probe.interval() or (0.0, 1.0)
    return f"{probe.kept}/{probe.starts} ({low:.2f} to {high:.2f})"


def _figures(probe: Probe | None) -> tuple[str, str, str, str]:
    figures = {} if probe is None else probe.figures
    total, downtime, sent, slowed = (figures.get(name) for name in ("total_ns", "downtime_ns", "sent_bytes", "slowed"))
    return (
        "-" if total is None else format_duration(total),
        "-" if downtime is None else format_duration(downtime),
        "-" if sent is None else format_bytes(round(sent)),
        "-" if slowed is None else f"{100 * slowed:.2g} %",
    )


def _now(advice: Advice) -> list[str]:
    limits, now = advice.limits, advice.now
    wire = f", a wire of {_rate(advice.config.link)}" if advice.config.link != advice.config.max_bandwidth else ""
    answer = "converges" if now.enough else "does not converge"
    lines = [
        advice.provenance["trace"]["title"],
        f"within {format_duration(limits['total_ns'])}, downtime-limit {limits['downtime_ms']} ms, "
        f"{advice.config.design} on {advice.config.log}, {_rate(advice.config.max_bandwidth)}{wire}:",
        f"{answer}: from {_share(now)} of the start moments (95 %, Clopper-Pearson)",
    ]
    from replay.analysis.guest_cost import spell_lost

    total, downtime, sent, slowed = _figures(now)
    if now.completed:
        lines.append(f"mean of the {now.completed} that completed: total {total}, downtime {downtime}, {sent} sent, "
                     f"guest slowed {slowed}")  # fmt: skip
    if now.figures:
        lines.append(f"of its vCPUs' time the guest lost {spell_lost(now.figures)}")
    return lines


def _table(title: str, first: str, second: str) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(first, overflow="fold")
    table.add_column(second, overflow="fold")
    for head in ("from", "total", "downtime", "slowed"):
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _remedies(advice: Advice) -> Any:
    table = _table("What would make it, one thing changed", "change", "to")
    for remedy in advice.remedies:
        total, downtime, _, slowed = _figures(remedy.probe)
        kept = "-" if remedy.probe is None else _share(remedy.probe)
        table.add_row(remedy.name, remedy.value or "does not help", kept, total, downtime, slowed)
    return table


def _settings(advice: Advice) -> Any:
    table = _table("Least bandwidth, as searched", "setting", "bandwidth")
    for found in advice.settings:
        total, downtime, _, slowed = _figures(found.probe)
        if found.bandwidth is not None:
            value = _rate(found.bandwidth)
        else:
            value = "refused" if found.refused else f"> {_rate(found.more_than)}"
        table.add_row(found.name, value, "-" if found.probe is None else _share(found.probe), total, downtime, slowed)
    return table


def _best(advice: Advice) -> list[str]:
    lines = []
    if advice.best is None:
        lines.append("advice: none of these is enough at any bandwidth that was tried")
    else:
        lines += _spelled("advice", advice.best)
    if advice.slowed is not None:
        lines += _spelled("with a slowed guest", advice.slowed)
    lines += [f"refused, {found.name}: {found.refused}" for found in advice.settings if found.refused]
    return lines


def _spelled(label: str, found: Found) -> list[str]:
    assert found.bandwidth is not None
    config = found.config
    policy = f" --policy {config.policy}" if config.policy else ""
    told = [f"{label}: --design {config.design} --log {config.log}{policy}, at least {_rate(found.bandwidth)}"]
    probed = len(found.beside)
    if found.monotone:
        told.append(f"  {probed} bandwidths beside the path of the search agree: more is not worse")
    else:
        odd = [_rate(at) + (" is enough" if fine else " is not enough") for at, fine in found.beside
               if (at >= found.bandwidth) != fine]  # fmt: skip
        told.append(f"  more is not always better: {', '.join(odd)}")
        if found.surely_from is not None:
            told.append(f"  from {_rate(found.surely_from)} on all that were probed are enough")
    return told
