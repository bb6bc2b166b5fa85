"""A plan of a sweep: a TOML file that says which replays to run. Paths in it are as on the command line.

    [sweep]
    traces = ["redis-1g", "captures/*.parquet", "zipf:rate=20000", "s3://bucket/guest.parquet"]
    repeats = 3                      # each with a seed of its own (default: 1)
    starts = 4                       # migrations begin at so many moments, spread evenly over the trace

    [base]                           # options of every replay, by the names of `replay run`
    max-bandwidth = "1250MiB/s"

    [axes]                           # every combination of these; names as in `replay phase`, and design
    design = ["bitmap", "double-ring:1024"]
    memory = ["8G", "96G"]
    "log.entries" = [1024, 4096]

    [[zip]]                          # axes that move together: first with first, second with second
    max-bandwidth = ["1Gbit/s", "10Gbit/s"]
    downtime-limit = ["300ms", "100ms"]

    [[run]]                          # one more point, on every trace
    design = "ring-only:4096"
    memory = "96G"

    [baselines.today]                # for every point, the same with these changed
    design = "bitmap"

Replays that come to the same are run once, wherever they are asked for. The order of runs is that of the file.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

from replay import axes, toml_file
from replay.axes import Setting
from replay.config import RunConfig
from replay.errors import UsageError, unknown_name
from replay.sweeping import sources
from replay.sweeping.jobs import EVENT_BYTES, PAGE_BYTES, RUN_BYTES, Job
from replay.sweeping.sources import Source

TABLES = ("sweep", "base", "axes", "zip", "run", "baselines")
_FIRST = ("log", "design", "policy", "costs")
MAX_REPEATS = 10_000
Point = dict[str, str]
"""Axis names and values as they are written in the plan."""


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A run of a sweep. `job` is None where its settings exclude each other; `error` then says how."""

    index: int
    key: str
    source: Source
    job: Job | None
    error: str | None
    setting: Setting

    @property
    def needs_bytes(self) -> int:
        """Memory of it while it runs, at most; a decoded guest is shared, but counted to each of its runs."""
        memory = self.job.config.memory if self.job is not None else None
        pages = self.source.n_pages if memory is None else memory // 4096
        return RUN_BYTES + EVENT_BYTES * self.source.n_events + PAGE_BYTES * pages


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep that can be run. `points`: (run, baseline or None, axis values); several may ask for one run.

    `against`: for each run, the runs of its baselines by name.
    """

    name: str
    sources: list[Source]
    runs: list[PlannedRun]
    points: list[tuple[int, str | None, Point]]
    against: dict[int, dict[str, int]]
    axes: list[str]
    baselines: list[str]

    @cached_property
    def digest(self) -> str:
        """What the plan comes to: sha256 of its runs and points."""
        told = hashlib.sha256(json.dumps([self.axes, self.baselines]).encode())
        for run in self.runs:
            told.update(f"{run.index} {run.key} {run.source.label} {self.against.get(run.index)}\n".encode())
        for point in self.points:
            told.update(json.dumps(point).encode())
        return told.hexdigest()


def read(path: str | Path, fetched: Path) -> Plan:
    """The plan in a TOML file. Raises UsageError naming what is wrong with it, and TraceError for its traces."""
    told = toml_file.read(path)
    try:
        return make(told, fetched, name=Path(path).stem)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def make(told: dict[str, Any], fetched: Path, name: str = "sweep") -> Plan:
    """The plan in a dict of the form that the file has. Raises UsageError and TraceError."""
    for table in told:
        if table not in TABLES:
            raise unknown_name("table of a plan:", table, TABLES)
    head = _table(told, "sweep", ("traces", "repeats", "starts"))
    given = [head["traces"]] if isinstance(head.get("traces"), str) else head.get("traces", [])
    if not isinstance(given, list) or not given or not all(isinstance(text, str) for text in given):
        raise UsageError("[sweep] must have traces = [...]: paths, globs, names, workloads or URLs")
    found = sources.find(given, fetched)
    grid = _Grid(told, _count(head, "repeats"), _count(head, "starts"))
    return grid.planned(name, found)


def _table(told: dict[str, Any], name: str, known: tuple[str, ...] = ()) -> dict[str, Any]:
    table = told.get(name, {})
    if not isinstance(table, dict):
        raise UsageError(f"{name} must be a table [{name}]")
    for key in table:
        if known and key not in known:
            raise unknown_name(f"key of [{name}]:", key, known)
    return table


def _count(head: dict[str, Any], name: str) -> int | None:
    value = head.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_REPEATS):
        raise UsageError(f"[sweep] {name} is a whole number from 1 to {MAX_REPEATS}, not {value!r}")
    return value


def _text(where: str, value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if not isinstance(value, str | int | float) or (isinstance(value, str) and not value.strip()):
        raise UsageError(f"{where}: {value!r} is neither a text nor a number")
    return str(value).strip()


def _point(where: str, table: Any) -> Point:
    if not isinstance(table, dict) or not table:
        raise UsageError(f"{where} must be a table with at least one setting")
    return {key: _text(f"{where} {key}", value) for key, value in table.items()}


def _values(where: str, values: Any) -> list[str]:
    if not isinstance(values, list) or not values:
        raise UsageError(f"{where} must be a list of values: [...]")
    texts = [_text(where, value) for value in values]
    if len(set(texts)) < len(texts):
        raise UsageError(f"{where}: a value is given twice")
    return texts


class _Grid:
    """The points of a plan, before they meet the traces."""

    def __init__(self, told: dict[str, Any], repeats: int | None, starts: int | None) -> None:
        self.base = _point("[base]", told["base"]) if told.get("base") else {}
        dimensions = [
            [{name: text} for text in _values(f"[axes] {name}", values)]
            for name, values in _table(told, "axes").items()
        ]
        dimensions += [_zipped(number, table) for number, table in enumerate(_list(told, "zip"), 1)]
        self.points = [_merged(parts) for parts in itertools.product(*dimensions)] if dimensions else []
        self.points += [_point(f"[[run]] {number}", table) for number, table in enumerate(_list(told, "run"), 1)]
        self.points = self.points or [{}]
        self.baselines = {
            name: _point(f"[baselines.{name}]", table) for name, table in _table(told, "baselines").items()
        }
        self.repeats, self.starts = repeats, starts
        self.names = list(dict.fromkeys(name for point in self.points for name in point))
        for name, spread in (("seed", repeats), ("start", starts)):
            if spread is not None and any(name in point for point in [*self.points, *self.baselines.values()]):
                raise UsageError(f"{name} is an axis already: leave out {'repeats' if name == 'seed' else 'starts'}")
            if spread is not None:
                self.names.append(name)

    def _used(self, kind: str) -> list[str]:
        """Every spelling of a kind of plug-in that the plan has."""
        everywhere = [self.base, *self.points, *self.baselines.values()]
        default = getattr(RunConfig(), kind)
        return [text for text in dict.fromkeys([default, *(p[kind] for p in everywhere if kind in p)]) if text]

    def planned(self, name: str, found: list[Source]) -> Plan:
        """The plan of these points on these guests."""
        owned = {kind: [text for text in self._used(kind) if text != "none"] for kind in _FIRST}
        builder = _Builder(owned)
        for source in found:
            for point in self._spread(source):
                run = builder.add(source, self.base | point, None, point)
                for baseline, changes in self.baselines.items():
                    builder.against.setdefault(run, {})[baseline] = builder.add(
                        source, self.base | point | changes, baseline, point | changes
                    )
        builder.check()
        return Plan(
            name=name, sources=found, runs=builder.runs, points=builder.points, against=builder.against,
            axes=self.names, baselines=list(self.baselines),
        )  # fmt: skip

    def _spread(self, source: Source) -> Iterator[Point]:
        """The points on one guest, at each start and with each seed."""
        first_seed = int(self.base["seed"]) if self.base.get("seed", "").isdigit() else 1
        seeds = [{}] if self.repeats is None else [{"seed": str(first_seed + n)} for n in range(self.repeats)]
        begin = [{}] if self.starts is None else [
            {"start": f"{source.duration_ns * n // self.starts}ns"} for n in range(self.starts)
        ]  # fmt: skip
        for point, start, seed in itertools.product(self.points, begin, seeds):
            yield {**point, **start, **seed}


def _list(told: dict[str, Any], name: str) -> list[Any]:
    tables = told.get(name, [])
    if not isinstance(tables, list):
        raise UsageError(f"{name} must be written [[{name}]]")
    return tables


def _zipped(number: int, table: Any) -> list[Point]:
    where = f"[[zip]] {number}"
    if not isinstance(table, dict) or not table:
        raise UsageError(f"{where} must be a table with at least one axis")
    columns = {}
    for name, values in table.items():
        if not isinstance(values, list) or not values:
            raise UsageError(f"{where} {name} must be a list of values: [...]")
        columns[name] = [_text(f"{where} {name}", value) for value in values]
    if len({len(values) for values in columns.values()}) > 1:
        raise UsageError(f"{where}: axes that move together must have equally many values")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _merged(parts: tuple[Point, ...]) -> Point:
    point: Point = {}
    for part in parts:
        for name in part:
            if name in point:
                raise UsageError(f"axis {name} is given twice")
        point |= part
    return point


class _Builder:
    """Runs as they are asked for, each once."""

    def __init__(self, owned: axes.Owned) -> None:
        self.runs: list[PlannedRun] = []
        self.points: list[tuple[int, str | None, Point]] = []
        self.against: dict[int, dict[str, int]] = {}
        self._owned = owned
        self._plain = Setting(log=RunConfig().log, design=RunConfig().design, options={})
        self._axes: dict[tuple[str, Fraction], axes.Axis] = {}
        self._by_key: dict[str, int] = {}
        self._asked: set[tuple[int, str | None, str]] = set()
        self._files: dict[str, str] = {}

    def add(self, source: Source, point: Point, baseline: str | None, shown: Point) -> int:
        """The index of the run that a point asks for."""
        setting = self._plain
        for name in sorted(point, key=lambda name: name not in _FIRST):
            setting = self._axis(name, source.base_rate).apply(setting, point[name])
        job, error = None, None
        try:
            job = Job(guest=source, factor=setting.factor, config=setting.config())
        except UsageError as refused:
            error = str(refused)
        key = self._key(source, setting, job)
        index = self._by_key.setdefault(key, len(self.runs))
        if index == len(self.runs):
            run = PlannedRun(index=index, key=key, source=source, job=job, error=error, setting=setting)
            self.runs.append(run)
        asked = (index, baseline, json.dumps(shown))
        if asked not in self._asked:
            self._asked.add(asked)
            self.points.append((index, baseline, shown))
        return index

    def _axis(self, name: str, rate: Fraction) -> axes.Axis:
        if (name, rate) not in self._axes:
            self._axes[name, rate] = axes.unvalued(name, self._owned, rate)
        return self._axes[name, rate]

    def _key(self, source: Source, setting: Setting, job: Job | None) -> str:
        """What a run is, in 32 hex digits: guest, dirty rate, options, and the content of files that these name."""
        if job is None:
            options: dict[str, Any] = {"log": setting.log, "design": setting.design, **setting.options}
        else:
            options = job.config.as_dict()
            if not (source.generated or job.config.fit == "tile" or job.config.zero_share is not None):
                del options["seed"]  # nothing of such a replay is random
        named = [str(options.get(kind, "")).partition(":")[0] for kind in _FIRST]
        files = [self._digest(path) for path in named if path.endswith((".py", ".toml"))]
        told = json.dumps([source.sha256, str(setting.factor), options, files], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:32]

    def _digest(self, path: str) -> str:
        if path not in self._files:
            try:
                self._files[path] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            except OSError as error:
                raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
        return self._files[path]

    def check(self) -> None:
        """Raises UsageError where a value makes no sense in any of its combinations."""
        from replay.migration import costs

        for table in {run.job.config.costs for run in self.runs if run.job is not None}:
            costs.load(table)
        fine: set[tuple[str, str]] = set()
        for index, _, point in self.points:
            if self.runs[index].job is not None:
                fine |= set(point.items()) | {("", "")}
        for index, _, point in self.points:
            if self.runs[index].job is None and (not fine or any(item not in fine for item in point.items())):
                raise UsageError(str(self.runs[index].error))
