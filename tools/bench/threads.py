"""Two replays at once in two threads (ours) against one after the other (theirs). Wall times: needs two idle cores."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from replay.migration import costs
from replay.migration.precopy import Precopy
from tools.bench import workloads
from tools.bench.harness import DifferentResultsError, Row, measured
from tools.bench.replay import EVENTS_PER_S, TARGETS, Guest, build, busy_guest

TARGET = (1 / 1.6, 1 / 1.8)
SECONDS, QUICK_SECONDS = 60, 2
ROUNDS, QUICK_ROUNDS = 7, 3


def measure(quick: bool) -> list[Row]:
    """A row for each formulation of a busy guest."""
    ((name, n_pages),) = workloads.sizes(quick, ("96G",)).items()
    guest = busy_guest(n_pages, EVENTS_PER_S * (QUICK_SECONDS if quick else SECONDS))
    return [_measure(f"two threads, busy {name}: {way}", guest, way, quick) for way in TARGETS]


def _measure(what: str, guest: Guest, formulation: str, quick: bool) -> Row:
    table = costs.load(costs.DEFAULT)
    samples: tuple[list[float], list[float]] = ([], [])
    with ThreadPoolExecutor(2) as pool:
        ways: list[Callable[[list[Precopy]], list[str]]] = [
            lambda machines: list(pool.map(_outcome, machines)),
            lambda machines: [_outcome(machine) for machine in machines],
        ]
        found = set()
        for turn in range(1 + (QUICK_ROUNDS if quick else ROUNDS)):  # the first one warms up
            for way in (0, 1) if turn % 2 else (1, 0):
                machines = [build(guest, table, formulation) for _ in range(2)]
                begin = time.perf_counter()
                found.update(ways[way](machines))
                if turn:
                    samples[way].append((time.perf_counter() - begin) * 1e3)
    if len(found) != 1:
        raise DifferentResultsError(f"{what}: {sorted(found)}")
    return measured(what, *samples, unit="ms", target=TARGET)


def _outcome(machine: Precopy) -> str:
    """What must be the same in every run."""
    outcome = machine.run()
    return f"{int(machine.now)} ps, {len(outcome.rounds)} rounds, {outcome.redundant_pages} redundant pages"
