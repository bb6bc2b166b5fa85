"""Settings of one guest tried from many moments: probes, bisection, and the order in which settings are searched."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replay import axes
from replay.analysis.compare import exact_figures
from replay.analysis.guest_cost import guest_cost, lost
from replay.answers.advice import Found, Probe
from replay.answers.trials import Trials
from replay.columns import SHARES
from replay.config import RunConfig
from replay.errors import UsageError
from replay.units import NS_PER_MS

if TYPE_CHECKING:
    from replay.results.result import Result

LEAST_BANDWIDTH, MOST_BANDWIDTH = 1_000_000, 100_000_000_000
BESIDE = (0.5, 0.8, 0.93, 1.1, 1.35, 2.0, 4.0)
"""Where a result is probed beside the path of the bisection, in multiples of it."""
RING_SIZES = (1024, 4096, 16384, 65536)
"""Tried for the rings of the kernel and for the queue of a design."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a migration must keep besides completing in time (give-up). max_downtime_ns: of the modelled downtime, None:
    QEMU's own limit is enough; max_slowdown: share of the guest's time that it may lose without a policy."""

    max_downtime_ns: int | None
    max_slowdown: float

    def kept(self, result: Result, config: RunConfig) -> bool:
        """Whether a replay completed in time, within the limits, lost nothing and could not have."""
        if result.status != "completed" or result.lost_pages or result.unsafe or _total_ns(result) > config.give_up:
            return False
        if self.max_downtime_ns is not None and _downtime_ns(result) > self.max_downtime_ns:
            return False
        return bool(config.policy) or guest_cost(result).share <= self.max_slowdown


def _total_ns(result: Result) -> int:
    return int(result.rows[-1]["end_ns"])


def _downtime_ns(result: Result) -> int:
    """To the ns, but for postcopy, whose record goes on behind it."""
    if result.rows[-1]["cause"] == "postcopy":
        return int(result.summary["downtime"]) * NS_PER_MS
    return int(exact_figures(result)["modelled_downtime_ns"])


def means(results: list[Result]) -> dict[str, float | None]:
    """Means over the replays that completed: total_ns, downtime_ns, sent_bytes, stall_ns (sum over vCPUs), slowed
    (share of the time by which the guest was delayed before it was stopped); None where none did. And of all replays
    columns.SHARES: what vCPUs lost until the end, by cause, faults included."""
    done = [result for result in results if result.status == "completed"]
    told: dict[str, list[Any]] = {
        "total_ns": [_total_ns(result) for result in done],
        "downtime_ns": [_downtime_ns(result) for result in done],
        "sent_bytes": [result.total("sent_bytes") for result in done],
        "stall_ns": [result.total("modelled_stall_ns") for result in done],
        "slowed": [guest_cost(result).share for result in done],
    }
    shares = [lost(result.guest["vcpus"]) for result in results]
    told |= {column.name: [row[column.name] for row in shares] for column in SHARES}
    return {name: sum(values) / len(values) if values else None for name, values in told.items()}


def bisect(enough: Callable[[int], bool], low: int, high: int, step: float) -> tuple[int, int]:
    """(not enough, enough) from such a pair, at most `step` apart (or 1), in geometric steps. 0 < low < high."""
    while high > low * (1 + step) and high - low > 1:
        middle = max(low + 1, min(high - 1, round((low * high) ** 0.5)))
        low, high = (low, middle) if enough(middle) else (middle, high)
    return low, high


class Search:
    """Probes of settings of one guest."""

    def __init__(
        self, trials: Trials, base: RunConfig, starts: list[int], wanted: float, step: float, limits: Limits
    ) -> None:
        self.trials, self.base, self.starts, self.step, self.limits = trials, base, starts, step, limits
        self.needed = max(1, -int(-wanted * len(starts) // 1))
        self._known: dict[tuple[RunConfig, bool], Probe] = {}

    @property
    def probes(self) -> int:
        """Settings that were probed."""
        return len({config for config, _ in self._known})

    def at(self, config: RunConfig, bandwidth: int) -> RunConfig:
        """The setting on a network of that bandwidth; only limited to it where the wire is given."""
        return dataclasses.replace(config, max_bandwidth=bandwidth, link=self.base.link or bandwidth)

    def probe(self, config: RunConfig, *, whole: bool = False) -> Probe:
        """The setting from every moment; unless `whole`, given up once it cannot be enough any more."""
        for told in (True, whole):
            if (config, told) in self._known:
                return self._known[config, told]
        kept = failed = 0
        results: list[tuple[int, Result]] = []
        running = self.trials.results(dataclasses.replace(config, start=start) for start in self.starts)
        for number, result in running:
            results.append((number, result))
            fine = self.limits.kept(result, config)
            kept, failed = kept + fine, failed + (not fine)
            if not whole and failed > len(self.starts) - self.needed:
                break
        running.close()
        full = whole or kept >= self.needed
        done = [result for _, result in sorted(results, key=lambda numbered: numbered[0])]
        probe = Probe(
            enough=kept >= self.needed, kept=kept if full else None, starts=len(self.starts),
            completed=sum(result.status == "completed" for result in done) if full else 0,
            figures=means(done) if full else {},
        )  # fmt: skip
        self._known[config, full] = probe
        return probe

    def least(self, config: RunConfig, name: str, below: int | None) -> Found:
        """The least bandwidth of a setting, if it is less than `below` by more than the tolerance."""
        low, high = 0, below
        try:
            if below is not None:
                first = int(below / (1 + self.step))
                if not self.probe(self.at(config, first)).enough:
                    return Found(name=name, config=config, bandwidth=None, more_than=first, probe=None, beside=[])
                high = first
            else:
                low, high = self._bracket(config)
            if high is None:
                return Found(name=name, config=config, bandwidth=None, more_than=low, probe=None, beside=[])
            if not low:
                low, high = self._below(config, high)
            if low:
                low, high = bisect(lambda value: self.probe(self.at(config, value)).enough, low, high, self.step)
        except UsageError as refused:
            return Found(
                name=name, config=config, bandwidth=None, more_than=0, probe=None, beside=[], refused=str(refused)
            )
        probe = self.probe(self.at(config, high), whole=True)
        return Found(name=name, config=config, bandwidth=high, more_than=low, probe=probe, beside=[])

    def _bracket(self, config: RunConfig) -> tuple[int, int | None]:
        """(not enough, enough) around the least bandwidth, beginning from the one there is."""
        value = self.base.max_bandwidth or self.base.link
        low = 0
        while not self.probe(self.at(config, value)).enough:
            if value >= MOST_BANDWIDTH:
                return value, None
            low, value = value, min(MOST_BANDWIDTH, value * 4)
        return low, value

    def _below(self, config: RunConfig, high: int) -> tuple[int, int]:
        """(not enough, enough) below what is enough; (0, the least that is tried) where that is enough."""
        while high > LEAST_BANDWIDTH:
            value = max(LEAST_BANDWIDTH, high // 2)
            if not self.probe(self.at(config, value)).enough:
                return value, high
            high = value
        return 0, high

    def settings(self, names: list[str], slowing: list[str]) -> list[Found]:
        """Designs, then rings of the best, then policies."""
        found: list[Found] = []

        def consider(config: RunConfig, name: str) -> None:
            calm = [entry.bandwidth for entry in found if entry.bandwidth is not None and not entry.config.policy]
            slow = [entry.bandwidth for entry in found if entry.bandwidth is not None]
            known = slow if config.policy else calm
            found.append(self.least(config, name, min(known, default=None)))

        for name in names:
            consider(dataclasses.replace(self.base, design=name, policy=""), name)
        best = min((e for e in found if e.bandwidth is not None), key=lambda e: e.bandwidth or 0, default=found[0])
        for config, name in self._rings(best.config):
            consider(config, name)
        best = min((e for e in found if e.bandwidth is not None), key=lambda e: e.bandwidth or 0, default=found[0])
        for policy in slowing:
            consider(dataclasses.replace(best.config, policy=policy), f"{best.name}, {policy}")
        return found

    def _rings(self, config: RunConfig) -> list[tuple[RunConfig, str]]:
        """The setting with other sizes of the kernel's rings and of the design's queue."""
        found = []
        for changed in axes.rings_of(config.log, config.design, RING_SIZES):
            log, design = changed.get("log", config.log), changed.get("design", config.design)
            found.append((dataclasses.replace(config, log=log, design=design), f"{design} on {log}"))
        return found

    def checked(self, found: Found) -> Found:
        """The same, probed beside the path."""
        assert found.bandwidth is not None
        beside = []
        for factor in BESIDE:
            value = int(found.bandwidth * factor)
            if LEAST_BANDWIDTH <= value <= MOST_BANDWIDTH and not found.more_than < value < found.bandwidth:
                beside.append((value, self.probe(self.at(found.config, value)).enough))
        return dataclasses.replace(found, beside=beside)
