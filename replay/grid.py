"""Grids of replays: every design in every cell of two or three axes, run by threads over replays.

Guests are decoded (or generated) once for each memory and dirty rate and shared by all replays of it, as in sweeps
(replay.sweeping.jobs); kernels release the interpreter's lock, so threads are enough. A replay that several cells ask
for (a design without rings along an axis of ring sizes) runs once. Results do not depend on how many threads there are;
a measured figure is taken with one, and with every design stepping page by page, so that designs of both formulations
are measured doing the same.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from replay import api, axes, plugins
from replay.analysis import phase as analysis
from replay.analysis.compare import exact_figures
from replay.analysis.phase_map import Phase
from replay.axes import Axis, Setting
from replay.config import make
from replay.errors import UsageError
from replay.sweeping.jobs import Guests, Job, by_guest, rate_of, run_job, stream

if TYPE_CHECKING:
    from replay.results.result import Result
    from replay.synthesis.synthetic import Synthetic
    from replay.trace.reader import Trace

GRID = "the grid's guest"
Progress = Callable[[int, int], None]
"""Called after every replay with (replays done, replays in all); raise from it to cancel."""


def phase(
    trace: Trace | Synthetic | str | os.PathLike[str],
    *,
    x: str = "memory",
    y: str = axes.DIRTY_RATE,
    facet: str | None = None,
    designs: list[str] | None = None,
    figure: str = "total-time",
    tie: float | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Phase:
    """Which design wins in which cell. See replay.axes for the axes and replay.analysis.phase for the figures.

    designs: spellings of the candidates (default: every design that claims to be safe). tie: the share up to which a
    difference is none. options: those of `replay.run`. Raises UsageError before the first replay.
    """
    compared = analysis.figure_of(figure)
    candidates = list(designs or safe_designs())
    if len(set(candidates)) < 2 or len(set(candidates)) < len(candidates):
        raise UsageError("phase compares designs: give two or more different ones")
    if tie is not None and not 0 <= tie < 1:
        raise UsageError(f"a tie is a share from 0 up to 1, not {tie}")
    opened = api.open_trace(trace) if isinstance(trace, str | os.PathLike) else trace
    if compared.measured:
        options.setdefault("formulation", "stepping")
        threads = 1
    plan = _plan(opened, {"x": x, "y": y, "facet": facet}, candidates, options)
    results = _run(opened, plan, threads, progress)
    rows = [_row(plan, key, results[plan.settings[key]]) for key in plan.settings]
    return _evaluated(opened, rows, plan, compared, tie, results)


def safe_designs() -> list[str]:
    """The designs that claim to lose no page, with their parameters as they come."""
    return [name for name in plugins.names("design") if plugins.parse("design", name).unsafe is None]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is to be run: for each (facet, y, x, candidate) the index of its job."""

    axes: dict[str, Axis]
    candidates: list[str]
    jobs: list[Job]
    settings: dict[tuple[int, int, int, str], int]


def _plan(opened: Any, given: dict[str, str | None], candidates: list[str], options: dict[str, Any]) -> _Plan:
    base = make({key: value for key, value in options.items() if value is not None})
    for name in candidates:
        plugins.parse("design", name)
    told = {key: value for key, value in options.items() if key not in ("log", "design")}
    meta, rate = opened.metadata, rate_of(opened)
    made = {
        key: axes.make(text, log=base.log, designs=candidates, memory_bytes=meta.memory_bytes, base_rate=rate)
        for key, text in given.items()
        if text is not None
    }
    if len({axis.name for axis in made.values()}) < len(made):
        raise UsageError("an axis is given twice; x, y and facet must differ")
    jobs: dict[Job, int] = {}
    settings: dict[tuple[int, int, int, str], int] = {}
    sizes = [range(len(made[key].values)) if key in made else range(1) for key in ("facet", "y", "x")]
    for facet, y, x in itertools.product(*sizes):
        for name in candidates:
            setting = Setting(log=base.log, design=name, options=told)
            for key, index in (("facet", facet), ("y", y), ("x", x)):
                if key in made:
                    setting = made[key].apply(setting, made[key].values[index])
            job = Job(guest=GRID, factor=setting.factor, config=setting.config())
            settings[facet, y, x, name] = jobs.setdefault(job, len(jobs))
    return _Plan(axes=made, candidates=candidates, jobs=list(jobs), settings=settings)


def _run(opened: Any, plan: _Plan, threads: int | None, progress: Progress | None) -> list[Result]:
    """The result of every job. Jobs of one guest run one after the other, so that few guests are in memory."""
    from replay.migration.warm import warm

    for job in plan.jobs:
        config = job.config
        warm(plugins.parse("log", config.log), plugins.parse("design", config.design), config.formulation)
    guests = Guests({GRID: opened}.__getitem__)
    cancelled = threading.Event()
    results: dict[Job, Result] = {}
    threads = threads or len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads) as pool:
        work: Any = partial(run_job, guests, cancelled=cancelled)
        try:
            for job, future in stream(by_guest(plan.jobs), partial(pool.submit, work), slots=threads):
                results[job] = future.result()
                if progress is not None:
                    progress(len(results), len(plan.jobs))
        except BaseException:
            cancelled.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [results[job] for job in plan.jobs]


def _row(plan: _Plan, key: tuple[int, int, int, str], result: Result) -> dict[str, Any]:
    """A row of the frame."""
    row: dict[str, Any] = {}
    for name, index in zip(("facet", "y", "x"), key[:3], strict=True):
        axis = plan.axes.get(name)
        row[f"{name}_index"] = index
        row[name] = None if axis is None else axis.values[index]
        row[f"{name}_place"] = None if axis is None or axis.places is None else axis.places[index]
    return row | {"candidate": key[3]} | exact_figures(result)


def _evaluated(
    opened: Any,
    rows: list[dict[str, Any]],
    plan: _Plan,
    figure: analysis.PhaseFigure,
    tie: float | None,
    results: list[Result],
) -> Phase:
    import polars as pl

    frame = pl.DataFrame(rows, infer_schema_length=None).with_columns(
        pl.col("x_place", "y_place").cast(pl.Float64), pl.col("unsafe").cast(pl.String)
    )
    won = analysis.cells(frame, figure, tie)
    first = results[0]
    moved = {axis.name for axis in plan.axes.values()} | {"design"}
    provenance = {key: value for key, value in first.provenance.items() if key not in ("design", "log")}
    provenance |= {
        "trace": {"name": opened.path.name, "title": opened.metadata.title},
        "candidates": plan.candidates,
        "tie": figure.tie if tie is None else tie,
        "replays": len(results),
        "options": {key: value for key, value in first.config.items() if key not in moved},
    }
    return Phase(
        figure=figure,
        axes=plan.axes,
        frame=frame,
        cells=won,
        crossovers=analysis.crossovers(frame, won, figure),
        provenance=provenance,
    )
