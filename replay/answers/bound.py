"""How far designs and policies are from what hindsight could have done with the same guest and channel.

The bound is that of replay.answers.hindsight. Runs are compared by their pause: the downtime, and how long the vCPU
that was slowed most did not run before (a design that makes the guest wait must not look good by it).
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replay import plugins
from replay.analysis.compare import exact_figures
from replay.analysis.guest_cost import guest_cost
from replay.answers.hindsight import Hindsight, Moment, channel_of, hindsight
from replay.answers.order import Order
from replay.answers.order import order as best_order
from replay.answers.trials import Told, Trials
from replay.columns import SHARES
from replay.config import RunConfig, make
from replay.errors import UsageError
from replay.units import PS_PER_MS, PS_PER_NS

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

    from replay.results.result import Result

GIVE_UP = "60s"
POLICIES = ("", "auto-converge")
ROUNDED_NS = 8
"""What a record's whole nanoseconds may hide of a guest's stalls."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What `replay.bound` returns.

    limited: the optimum of a sender that heeds the bandwidth limit; channel: of one that does not (the same without a
    limit). rows: one dict a run, see `frame`.
    """

    limited: Hindsight
    channel: Hindsight
    rows: list[dict[str, Any]]
    config: dict[str, Any]
    provenance: dict[str, Any]
    order: Order | None = None

    @property
    def frame(self) -> pl.DataFrame:
        """One row a run: `design`, `policy`, `status` (or `refused`: why it cannot run), `downtime_ns`, `pause_ns`
        (downtime and what the vCPU slowed most lost), `stopped_ns` (when the guest stopped), `sent_bytes`, `limited`
        (whether its senders heed the limit), and the least that was possible: `least_here_ns` of a pause when the guest
        stops at that moment, `least_ns` at the best one, `least_bytes`. `pause_ratio`, `bytes_ratio`: how often the
        least. What the guest lost by cause: columns.SHARES. Null where a run did not complete or lost pages.
        """
        import polars as pl

        return pl.DataFrame(self.rows, schema=_SCHEMA(pl))

    def as_dict(self) -> dict[str, Any]:
        """The object that `replay bound --json` prints."""
        best, soonest = self.limited.best, self.limited.soonest
        return {
            "best": _told(self.limited, best),
            "soonest_within_the_limit": None if soonest is None else _told(self.limited, soonest),
            "best_without_bandwidth_limit": _told(self.channel, self.channel.best),
            "horizon_ns": self.limited.horizon_ps // PS_PER_NS,
            "events": self.limited.events,
            "channel": dataclasses.asdict(self.limited.channel),
            "curve_ns": [[at // PS_PER_NS, least // PS_PER_NS] for at, least in self.limited.curve],
            "runs": self.rows,
            "config": self.config,
            "provenance": self.provenance,
        }

    def plot(self) -> Figure:
        """The least downtime by the moment of the switchover, and where the runs are. Needs matplotlib."""
        from replay.analysis.answer_plots import bound_figure

        return bound_figure(self.as_dict())


def _SCHEMA(pl: Any) -> dict[str, Any]:  # noqa: N802
    texts, whole, shares = pl.String, pl.Int64, pl.Float64
    names = (
        "downtime_ns",
        "pause_ns",
        "stopped_ns",
        "end_ns",
        "sent_bytes",
        "least_here_ns",
        "least_ns",
        "least_bytes",
    )
    schema = {"design": texts, "policy": texts, "status": texts, "refused": texts, "limited": pl.Boolean}
    ratios = ("pause_ratio", "bytes_ratio", *(column.name for column in SHARES))
    return schema | dict.fromkeys(names, whole) | dict.fromkeys(ratios, shares)


def _told(found: Hindsight, moment: Moment) -> dict[str, int]:
    return {
        "switchover_ns": moment.at_ps // PS_PER_NS,
        "downtime_ns": moment.downtime_ps // PS_PER_NS,
        "end_ns": moment.ends_ps(found.channel.stop_ps) // PS_PER_NS,
        "sent_bytes": moment.total_bytes,
    }


def bound(
    trace: Any,
    *,
    designs: list[str] | None = None,
    policies: list[str] | None = None,
    order: bool = False,
    threads: int | None = None,
    progress: Told | None = None,
    **options: Any,
) -> Bound:
    """The offline optimum of a guest, and how far replays are from it.

    designs: spellings (default: every design that claims to be safe; [] for the bound alone). policies: spellings, ""
    for none (default: none, and auto-converge). order: find the order of sends for the best switchover too. options:
    those of `replay.run`; give_up is 60 s unless given. Raises UsageError, and TraceError for a damaged trace.
    """
    from replay.grid import safe_designs

    base = make({"give_up": GIVE_UP} | options)
    wanted = safe_designs() if designs is None else designs
    for name in wanted:
        plugins.parse("design", name)
    for name in POLICIES if policies is None else policies:
        if name:
            plugins.parse("policy", name)
    pairs = [(name, policy) for name in wanted for policy in (POLICIES if policies is None else policies)]
    with Trials(trace, threads=threads, progress=progress) as trials:
        trials.expected = len(pairs)
        source, channel = source_of(trials.guest, base)
        results: list[Result | str] = []
        for name, policy in pairs:
            try:
                results += trials.all([dataclasses.replace(base, design=name, policy=policy)])
            except UsageError as refused:
                results.append(str(refused))
        runs = [None if isinstance(result, str) else _Run(result) for result in results]
        asked = [run.moment_ps for run in runs if run is not None and run.comparable]
        common: dict[str, Any] = {
            "start_ns": base.start,
            "loop": base.at_end == "loop",
            "until_ps": base.give_up * PS_PER_NS,
            "limit_ps": base.downtime_limit * PS_PER_MS,
            "all_data": base.zero_page_detection == "none",
            "asked": asked,
        }
        limited = hindsight(source, channel, **common)
        free = hindsight(source, channel.unlimited(), **common)
        sent = None
        if order:
            told = {name: common[name] for name in ("start_ns", "loop", "all_data")}
            sent = best_order(source, channel, limited.best, **told)
        moments = {at: (one, two) for at, one, two in zip(asked, limited.asked, free.asked, strict=True)}
        rows = [
            _row(pair, result, run, moments, (limited, free))
            for pair, result, run in zip(pairs, results, runs, strict=True)
        ]
        meta = trials.guest.metadata
        provenance = {"trace": {"name": trials.guest.path.name, "title": meta.title, "sha256": trials.guest.digest}}
    told = {key: value for key, value in base.as_dict().items() if key not in ("design", "policy")}
    return Bound(
        limited=limited, channel=free, rows=rows, config=json.loads(json.dumps(told)), provenance=provenance, order=sent
    )


def source_of(guest: Any, config: RunConfig) -> tuple[Any, Any]:
    """The guest as the engine would be fed it, and its channel. Raises UsageError where there is no bound."""
    from replay.migration import costs, scale
    from replay.synthesis.synthetic import settled

    if not 0 <= config.start < guest.metadata.duration_ns:
        raise UsageError(f"start must lie within the recording of {guest.metadata.duration_ns / 1e9:.3f} s")
    source = scale.scaled(
        settled(guest, config.memory, config.seed), memory_bytes=config.memory, fit=config.fit, rest=config.rest,
        zero_share=config.zero_share, seed=config.seed,
    )  # fmt: skip
    return source, channel_of(config, costs.load(config.costs), source.shape.n_pages)


class _Run:
    """What of a run is compared."""

    def __init__(self, result: Result) -> None:
        self.figures = exact_figures(result)
        self.cost = guest_cost(result)
        self.limited = result.total("producer_sends") == 0
        self.comparable = (
            result.status == "completed" and not result.lost_pages
            and (self.limited or not result.config["open-loop"])
        )  # fmt: skip
        self.moment_ps = max(0, self.cost.ran_ns - self.cost.most_ns - ROUNDED_NS) * PS_PER_NS


def _row(
    pair: tuple[str, str],
    result: Result | str,
    run: _Run | None,
    moments: dict[int, tuple[Moment, Moment]],
    found: tuple[Hindsight, Hindsight],
) -> dict[str, Any]:
    row: dict[str, Any] = {"design": pair[0], "policy": pair[1], "status": None, "refused": None}
    empty = ("limited", "downtime_ns", "pause_ns", "stopped_ns", "end_ns", "sent_bytes", "least_here_ns", "least_ns",
             "least_bytes", "pause_ratio", "bytes_ratio", *(column.name for column in SHARES))  # fmt: skip
    row |= dict.fromkeys(empty)
    if run is None or isinstance(result, str):
        return row | {"status": "refused", "refused": str(result)}
    row |= {"status": "lost pages" if result.lost_pages else result.status, "limited": run.limited}
    if not run.comparable:
        return row
    here = moments[run.moment_ps][0 if run.limited else 1]
    least = found[0 if run.limited else 1].best
    pause = run.figures["modelled_downtime_ns"] + run.cost.most_ns
    return row | {
        "downtime_ns": run.figures["modelled_downtime_ns"],
        "pause_ns": pause,
        "stopped_ns": run.cost.ran_ns,
        "end_ns": run.figures["modelled_total_ns"],
        "sent_bytes": run.figures["sent_bytes"],
        "least_here_ns": here.downtime_ps // PS_PER_NS,
        "least_ns": least.downtime_ps // PS_PER_NS,
        "least_bytes": here.total_bytes,
        "pause_ratio": pause / max(1, here.downtime_ps // PS_PER_NS),
        "bytes_ratio": run.figures["sent_bytes"] / here.total_bytes,
        **{column.name: run.figures[column.name] for column in SHARES},
    }
