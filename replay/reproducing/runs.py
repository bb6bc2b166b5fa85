"""The replays of a scenario: which, at once on the CPUs there are, and what figure each comes to."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replay import api
from replay import config as configuration
from replay.errors import UsageError
from replay.plugins import parse
from replay.reproducing.scenario import CPU_SHARE, UNITS_NS, Options, Place, Scenario, Table
from replay.results.result import Result

if TYPE_CHECKING:
    from replay.config import RunConfig

Progress = Callable[[int, str], None]
"""Called after every replay with how many are done and what the last one was; raise from it to cancel."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell to be replayed: `place` has the row's name among all tables."""

    place: Place
    options: Options
    figure: str


def cells(scenario: Scenario, changes: Options | None = None, table: Table | None = None) -> list[Cell]:
    """Every cell with a published figure, with the options of the scenario, its column and its row, then `changes`."""
    found = []
    for part in scenario.tables if table is None else (table,):
        for row, column in part.published:
            options = scenario.options | part.columns[column] | part.rows[row] | (changes or {})
            if "trace" not in options:
                raise UsageError(f"{scenario.name}: {part.label(row)}, {column} has no trace to replay")
            found.append(Cell(place=(part.label(row), column), options=options, figure=part.figure))
    return found


class Runs:
    """Runs cells, each only once however often it is asked for, and tells of each that is done."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.done = 0
        self.provenance: dict[str, Any] = {}
        self._progress = progress
        self._known: dict[tuple[Any, ...], Result] = {}
        self._traces: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._cancelled = threading.Event()

    def all(self, wanted: list[Cell]) -> dict[Place, Result]:
        """The result of every cell. Raises what the first failing replay raises."""
        for cell in wanted:
            self._ready(cell)
        todo = {self._key(cell): cell for cell in wanted if self._key(cell) not in self._known}
        threads = max(1, min(len(todo), len(os.sched_getaffinity(0))))
        with ThreadPoolExecutor(threads) as pool:
            futures = {key: pool.submit(self._run, cell) for key, cell in todo.items()}
            try:
                for key, future in futures.items():
                    self._known[key] = future.result()
            except BaseException:
                self._cancelled.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return {cell.place: self._known[self._key(cell)] for cell in wanted}

    def _ready(self, cell: Cell) -> None:
        """Everything that can be wrong is found before the first replay, and kernels are compiled one after another."""
        from replay.migration.warm import warm

        name, config = str(cell.options["trace"]), self._config(cell)
        if name not in self._traces:
            self._traces[name] = api.open_trace(name)
        warm(parse("log", config.log), parse("design", config.design), config.formulation)

    def _run(self, cell: Cell) -> Result:
        def check(*_: int) -> None:
            if self._cancelled.is_set():
                raise KeyboardInterrupt

        result = api.run_config(self._traces[str(cell.options["trace"])], self._config(cell), progress=check)
        with self._lock:
            self.done += 1
            self.provenance = self.provenance or result.provenance
            if self._progress is not None:
                self._progress(self.done, ", ".join(cell.place))
        return result

    @staticmethod
    def _config(cell: Cell) -> RunConfig:
        return configuration.make({name: value for name, value in cell.options.items() if name != "trace"})

    def _key(self, cell: Cell) -> tuple[Any, ...]:
        return (str(cell.options["trace"]), self._config(cell))


def figure_of(result: Result, cell: Cell, unit: str) -> float:
    """The cell's figure: total time in `unit` (math.inf for a migration that was given up), or a share in percent."""
    if cell.figure == CPU_SHARE:
        return _cpu_share(result)
    return result.rows[-1]["end_ns"] / UNITS_NS[unit] if result.status == "completed" else math.inf


def _cpu_share(result: Result) -> float:
    """What throttling leaves of its time to a vCPU that writes nothing, in percent: mean over the migration."""
    rounds = result.rows
    left = sum(
        (row["end_ns"] - row["sync_begin_ns"]) * (100 - after["throttle_pct"])
        for row, after in zip(rounds, [*rounds[1:], rounds[-1]], strict=True)
    )  # a round's throttle is set at its sync, and the next sync's row has it
    return left / sum(row["end_ns"] - row["sync_begin_ns"] for row in rounds)
