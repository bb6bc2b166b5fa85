"""Whole `replay.run` calls on a long trace file, and what checking and reporting progress add to a replay.

The file holds 10^8 writes to a 96G guest, 90 % of them to 200,000 pages; it is replayed from its opening to its record,
as the first replay of a process does it: streamed. Wall time needs two idle cores (one decodes); beside it stands the
CPU time of all threads.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from replay import api
from replay.migration import costs
from tools.bench import peers, workloads
from tools.bench.harness import DifferentResultsError, Row, Side, compare, measured
from tools.bench.replay import EVENTS_PER_S, Guest, busy_guest

EVENTS, QUICK_EVENTS = 100_000_000, 200_000
SECONDS = 100
ROUNDS, QUICK_ROUNDS = 3, 1
PER_EVENT = (1000 / 60, 1000 / 120)  # ns, for 60 and 120 million events a second
CHECKED, PROGRESS = (2.0, 1.5), (1.02, 1.01)
OPTIONS = {
    "log": "tcg", "design": "bitmap", "memory": "96G", "max_bandwidth": "1250MiB/s", "give_up": f"{SECONDS}s",
    "at_end": "hold",
}  # fmt: skip


def measure(quick: bool) -> list[Row]:
    """Rows for the file, for checking and for progress."""
    ((name, n_pages),) = workloads.sizes(quick, ("96G",)).items()
    guest = busy_guest(n_pages, EVENTS_PER_S * (2 if quick else 120))
    return [
        *_from_file(QUICK_EVENTS if quick else EVENTS, quick),
        _option(f"busy {name}: checked, against unchecked", guest, quick, CHECKED, check=True),
        _option(f"busy {name}: with progress, against without", guest, quick, PROGRESS, progress=True),
    ]


def _from_file(count: int, quick: bool) -> list[Row]:
    samples: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory(prefix="replay-bench-") as folder:
        path = Path(folder, "long.parquet")
        share = 200_000 / workloads.PAGES["96G"]
        api.generate(
            f"hot-cold:rate={count // SECONDS},hot={share:.6f}", path, memory="96G", duration=f"{SECONDS}s"
        )
        api.run("idle-1g", **OPTIONS | {"give_up": "1s"})  # loads the kernels
        for _ in range(QUICK_ROUNDS if quick else ROUNDS):
            wall, cpu = time.perf_counter_ns(), time.process_time_ns()
            result = api.run(path, **OPTIONS)
            spent = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
            applied = sum(row["guest_writes"] for row in result.rows)
            if applied < count // 2 or result.lost_pages:
                raise DifferentResultsError(f"replay.run applied {applied} of {count} events")
            for side, ns in zip(samples, spent, strict=True):
                side.append(ns / applied)
    label = f"replay.run, {count:.0e} events from Parquet, 96G".replace("e+0", "e")
    return [
        measured(f"{label}: wall", samples[0], None, unit="ns/event", target=PER_EVENT, of_ratio=False),
        measured(f"{label}: CPU", samples[1], None, unit="ns/event"),
    ]


def _option(what: str, guest: Guest, quick: bool, target: tuple[float, float], **more: bool) -> Row:
    """The same migration with and without something that must not change its result."""
    found: list[Any] = []
    table: costs.Costs = peers.page_price_only()
    reports: list[tuple[int, ...]] = []

    def side(check: bool, progress: bool) -> Side:
        def run(machine: Any) -> None:
            outcome = machine.run((lambda *state: reports.append(state)) if progress else None)
            found[:] = [[row["dirty_pages"] for row in outcome.rounds], int(machine.now)]

        prepare: Callable[[], Any] = lambda: peers.build(guest, table, peers.LAYERS, check=check)  # noqa: E731
        return Side(run=run, prepare=prepare, result=lambda: list(found))

    ours = side(more.get("check", False), more.get("progress", False))
    return compare(what, ours, side(False, False), unit="ms", quick=quick, target=target)
