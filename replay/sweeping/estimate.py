"""What a sweep would take, before it is run: some of its runs, spread over the plan, made one by one and timed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from replay import api, plugins
from replay.errors import ReplayError
from replay.sweeping.executors import cpus, free_bytes
from replay.sweeping.jobs import Guests
from replay.sweeping.plan import Plan, PlannedRun
from replay.sweeping.sources import Source
from replay.sweeping.store import WHOLE, Shard

MOST_SAMPLED = 64
PATIENCE_S, LONGEST_S = 10.0, 30.0
"""Runs are begun for so long; one that is not done after the other is cut short."""
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """seconds: of all runs with so many at once; a lower bound where a sampled run was cut short (`at_least`)."""

    runs: int
    at_once: int
    seconds: float
    at_least: bool
    sampled: int
    bytes: int


class _Enough(Exception):
    """The time for sampling is over."""


def estimate(plan: Plan, jobs: int | None = None, shard: Shard = WHOLE) -> Estimate:
    """Time and memory of a plan's runs on this machine's threads; what is compiled once is not counted."""
    mine = [run for run in plan.runs if shard.has(run.index)]
    able = [run for run in mine if run.job is not None]
    needs = sorted((run.needs_bytes for run in mine), reverse=True)
    slots, budget = jobs or cpus(), free_bytes()
    at_once = max(1, next((n for n in range(slots, 0, -1) if sum(needs[:n]) <= budget), 1))
    runs_s, opened_s, cut = _timed(list(spread(able)))
    guests = len({_guest_of(run) for run in able})
    seconds = len(able) * _mean(runs_s) + guests * _mean(opened_s)
    return Estimate(
        runs=len(mine), at_once=at_once, seconds=seconds / min(at_once, cpus()), at_least=cut, sampled=len(runs_s),
        bytes=sum(needs[:at_once]),
    )  # fmt: skip


def _mean(values: list[float]) -> float:
    return sum(values) / max(1, len(values))


def spread(able: list[PlannedRun]) -> Iterator[PlannedRun]:
    """Runs in an order in which any first few are spread over the plan, and in step with none of its axes."""
    if len(able) <= MOST_SAMPLED:
        yield from able
        return
    seen = set()
    for number in range(MOST_SAMPLED):
        index = int(len(able) * (number * _GOLDEN % 1))
        if index not in seen:
            seen.add(index)
            yield able[index]


def _guest_of(run: PlannedRun) -> Any:
    """What is decoded, or generated, once."""
    assert run.job is not None
    more = (run.job.config.memory, run.job.config.seed) if run.source.generated else ()
    return run.source.sha256, run.job.factor, more


def _timed(chosen: list[PlannedRun]) -> tuple[list[float], list[float], bool]:
    """Seconds of each run that was begun, and of each guest that was opened; whether a run was cut short."""
    from replay.migration.warm import warm

    guests, spent_s, known, cut = Guests(Source.open), 0.0, set(), False
    runs_s: list[float] = []
    opened_s: list[float] = []
    for run in chosen:
        assert run.job is not None
        config = run.job.config
        begin = time.monotonic()
        try:
            warm(plugins.parse("log", config.log), plugins.parse("design", config.design), config.formulation)
            opening = time.monotonic()
            guest = guests.get(run.job)
            begin = time.monotonic()
            if _guest_of(run) not in known:
                known.add(_guest_of(run))
                opened_s.append(begin - opening)
            api.run_config(guest, config, progress=partial(_go_on, begin + LONGEST_S - spent_s))
        except _Enough:
            cut = True
        except ReplayError:
            continue
        runs_s.append(time.monotonic() - begin)
        spent_s += runs_s[-1]
        if cut or spent_s > PATIENCE_S:
            break
    return runs_s, opened_s, cut


def _go_on(until: float, *_: int) -> None:
    if time.monotonic() > until:
        raise _Enough
