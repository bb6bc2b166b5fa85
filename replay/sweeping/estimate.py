"""What a sweep would take, before it is run: a few of its runs, spread over the plan, made and timed."""

from __future__ import annotations

import time
from dataclasses import dataclass

from replay import api, plugins
from replay.errors import ReplayError
from replay.sweeping.executors import cpus, free_bytes
from replay.sweeping.jobs import Guests
from replay.sweeping.plan import Plan, PlannedRun
from replay.sweeping.sources import Source
from replay.sweeping.store import WHOLE, Shard

SAMPLED = 5
PATIENCE_S = 10.0


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
    """Time and memory of a plan's runs on this machine's threads."""
    mine = [run for run in plan.runs if shard.has(run.index)]
    able = [run for run in mine if run.job is not None]
    needs = sorted((run.needs_bytes for run in mine), reverse=True)
    slots, budget = jobs or cpus(), free_bytes()
    at_once = max(1, next((n for n in range(slots, 0, -1) if sum(needs[:n]) <= budget), 1))
    chosen = [able[len(able) * n // SAMPLED] for n in range(SAMPLED)] if len(able) > SAMPLED else able
    times, cut = _timed(chosen)
    mean = sum(times) / max(1, len(times))
    parallel = min(at_once, cpus())
    return Estimate(
        runs=len(mine), at_once=at_once, seconds=mean * len(able) / parallel, at_least=cut, sampled=len(times),
        bytes=sum(needs[:at_once]),
    )  # fmt: skip


def _timed(chosen: list[PlannedRun]) -> tuple[list[float], bool]:
    """Seconds of each that was begun, and whether one was cut short."""
    from replay.migration.warm import warm

    guests, end, times, cut = Guests(Source.open), time.monotonic() + PATIENCE_S, [], False
    for run in chosen:
        assert run.job is not None
        config = run.job.config
        warm(plugins.parse("log", config.log), plugins.parse("design", config.design), config.formulation)
        begin = end

        def go_on(*_: int) -> None:
            if time.monotonic() > end:
                raise _Enough

        try:
            guest = guests.get(run.job)
            begin = time.monotonic()
            api.run_config(guest, config, progress=go_on)
        except _Enough:
            cut = True
        except ReplayError:
            continue
        times.append(time.monotonic() - begin)
        if time.monotonic() > end:
            break
    return times, cut
