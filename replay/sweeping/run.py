"""Running a plan: whatever is missing, as many at once as fit, each kept as soon as it is done; then the dataset."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replay.analysis.phase import PhaseFigure
from replay.errors import ReplayError, UsageError
from replay.sweeping import dataset, record
from replay.sweeping import store as stores
from replay.sweeping.executors import Pool, open_pool
from replay.sweeping.jobs import Job, by_guest, stream
from replay.sweeping.plan import Plan, PlannedRun
from replay.sweeping.store import WHOLE, Shard, Store

TRIES = 3
"""How often a run is given to an executor that loses it."""


@dataclass(kw_only=True)
class Standing:
    """How far a sweep is. `best`: the least figure of a safe run that completed, and which run that is."""

    total: int
    done: int = 0
    failed: int = 0
    best: tuple[int, PlannedRun] | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a sweep came to. `found`: runs that were there already; `complete`: whether the dataset is written."""

    folder: Path
    total: int
    found: int
    ran: int
    failed: dict[int, str] = field(default_factory=dict)
    complete: bool
    seconds: float


Progress = Callable[[Standing], None]
"""Called before the first run and after every one; raise from it to stop."""


def sweep(
    plan: Plan,
    folder: Path,
    *,
    figure: PhaseFigure,
    executor: Executor | str | None = None,
    jobs: int | None = None,
    shard: Shard = WHOLE,
    resume: bool = False,
    fail_fast: bool = False,
    merge: Sequence[Path] = (),
    progress: Progress | None = None,
) -> Report:
    """Run what is missing of a plan. Raises UsageError and StoreError; with fail_fast ReplayError at the first failure.

    merge: folders of sweeps whose runs are taken over. KeyboardInterrupt stops it: what was finished is kept.
    """
    begin = time.monotonic()
    with stores.opened(folder, plan, shard=shard, resume=resume) as store:
        for other in merge:
            store.adopt(other)
        there = {index for index, entry in store.entries().items() if entry.final}
        mine = [run for run in plan.runs if shard.has(run.index)]
        missing = [run for run in mine if run.index not in there]
        runner = _Runner(store, figure, fail_fast, Standing(total=len(mine), done=len(mine) - len(missing)), progress)
        runner.run(missing, executor, jobs)
        complete = _finish(store)
    return Report(
        folder=folder, total=len(mine), found=len(mine) - len(missing), ran=len(missing), failed=runner.failed,
        complete=complete, seconds=time.monotonic() - begin,
    )  # fmt: skip


def _finish(store: Store) -> bool:
    """Write the dataset when every run of every shard is there; whether it is."""
    with ExitStack() as stack:
        stores.lock(stack, store.folder, "lock-dataset", patient=True)
        entries = store.entries()
        if len(entries) < len(store.plan.runs):
            return False
        dataset.write(store, entries)
        return True


class _Runner:
    """Gives runs to a pool and takes what they come to."""

    def __init__(
        self, store: Store, figure: PhaseFigure, fail_fast: bool, standing: Standing, progress: Progress | None
    ) -> None:
        if figure.measured:
            raise UsageError(f"{figure.name} is measured; runs of a sweep disturb each other: take a modelled figure")
        self._store, self._figure, self._fail_fast, self._standing = store, figure, fail_fast, standing
        self._progress = progress
        about = stores.stamp(store.plan)
        self._program = [about["replay"], about["sources"]]
        self._lost: dict[Job, int] = {}
        self.failed: dict[int, str] = {}

    def run(self, missing: list[PlannedRun], given: Executor | str | None, jobs: int | None) -> None:
        """All of them."""
        self._report()
        for run in missing:
            if run.job is None:
                self._keep(run, {"failed": str(run.error), "final": True})
        runs = {run.job: run for run in missing if run.job is not None}
        if not runs:
            return
        self._pool = open_pool(given, jobs)
        try:
            self._feed(runs, given, jobs)
        except BaseException:
            self._pool.cancelled.set()
            raise
        finally:
            self._pool.stop()
            record.forget()

    def _feed(self, runs: dict[Job, PlannedRun], given: Executor | str | None, jobs: int | None) -> None:
        def submit(job: Job) -> Any:
            try:
                return self._pool.submit(job)
            except BrokenExecutor:
                self._renew(given, jobs)
                return self._pool.submit(job)

        def needs(job: Job) -> int:
            return runs[job].needs_bytes

        work = stream(by_guest(runs), submit, slots=self._pool.slots, needs=needs, budget=self._pool.budget)
        try:
            for job, future in work:
                error = future.exception()
                if error is None:
                    self._keep(runs[job], self._checked(future.result()))
                elif not isinstance(error, Exception):
                    raise error
                elif self._lost.setdefault(job, 0) + 1 < TRIES:
                    self._lost[job] += 1
                    work.send(job)
                else:
                    self._keep(runs[job], {"failed": f"its worker was lost {TRIES} times: {error}", "final": False})
        finally:
            work.close()

    def _renew(self, given: Executor | str | None, jobs: int | None) -> None:
        """Another pool in place of one that broke. Raises ReplayError for one that is not ours to replace."""
        if isinstance(given, Executor):
            raise ReplayError("the executor is broken; what was finished is kept: go on with another and resume=True")
        broken: Pool = self._pool
        self._pool = open_pool(given, jobs)
        broken.stop()

    def _checked(self, kept: dict[str, Any]) -> dict[str, Any]:
        program = kept.pop("program", self._program)
        if program != self._program:
            raise ReplayError(
                f"a worker has replay {program[0]} (sources {program[1]}), not {self._program[0]} ({self._program[1]}) "
                "as here; install the same on all"
            )
        return kept

    def _keep(self, run: PlannedRun, kept: dict[str, Any]) -> None:
        self._store.keep(run.index, kept)
        standing, row = self._standing, kept.get("row", {})
        standing.done += 1
        value = row.get(self._figure.column)
        if "failed" in kept:
            standing.failed += 1
            self.failed[run.index] = kept["failed"]
            if self._fail_fast:
                raise ReplayError(f"run {run.index}, {describe(run)}, failed: {kept['failed']}")
        elif row["status"] == "completed" and not row["lost_pages"] and not row["unsafe"] and value is not None:
            held = standing.best
            standing.best = (value, run) if held is None or (value, run.index) < (held[0], held[1].index) else held
        self._report()

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self._standing)


def describe(run: PlannedRun) -> str:
    """A run in a few words."""
    return f"{run.setting.design} on {run.setting.log}, {run.source.label}"
