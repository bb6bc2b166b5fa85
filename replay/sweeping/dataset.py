"""The result of a sweep: a Parquet dataset partitioned by trace, written from the journals in the order of the plan.

The same plan gives the same bytes (with one pyarrow version), whoever ran it, in whatever order, however often it was
interrupted. What differs from time to time (`measured_*`, wall time, machine) is in measured.parquet, outside of it.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from replay.columns import Column
from replay.errors import ResultError
from replay.sweeping import journal, record
from replay.sweeping.journal import Entry, StoreError
from replay.sweeping.plan import Plan, PlannedRun
from replay.sweeping.store import DATASET, MEASURED, Store, read_stamp, stamp

if TYPE_CHECKING:
    import polars as pl

KEY = b"replay.sweep"
ROWS = 1 << 15
"""Rows of a row group, at least, but for the last one."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What `replay.load_sweep` returns. `about` says what the sweep is of, and with what it was made."""

    folder: Path
    about: dict[str, Any]

    @cached_property
    def runs(self) -> pl.LazyFrame:
        """One row a run: its options, what came of it, `trace`, and the run that is its baseline."""
        return self._scan("runs", record.run_columns(self.about["baselines"]))

    @cached_property
    def rounds(self) -> pl.LazyFrame:
        """One row a round, with the columns of replay.columns.ROUNDS but for measured ones, `run` and `trace`."""
        return self._scan("rounds", record.ROUND_COLUMNS)

    @cached_property
    def vcpus(self) -> pl.LazyFrame:
        """One row a vCPU of a run, with the columns of replay.columns.VCPUS: what it lost, by cause; `run`, `trace`."""
        return self._scan("vcpus", record.VCPU_COLUMNS)

    @cached_property
    def points(self) -> pl.LazyFrame:
        """One row a point of the plan: its `run`, `baseline` (a name or null), and a column of text an axis."""
        import polars as pl

        return pl.scan_parquet(self.folder / DATASET / "points.parquet")

    @cached_property
    def measured(self) -> pl.LazyFrame:
        """One row a run: `measured_*` figures, when, and on which machine."""
        import polars as pl

        return pl.scan_parquet(self.folder / MEASURED)

    def _scan(self, table: str, columns: tuple[Column, ...]) -> pl.LazyFrame:
        import polars as pl

        frame = pl.scan_parquet(
            self.folder / DATASET / table / "**" / "*.parquet",
            hive_partitioning=True, hive_schema={"trace": pl.String},
        )  # fmt: skip
        return frame.select("trace", *(column.name for column in columns)).sort("run", maintain_order=True)


def load(folder: Path) -> Sweep:
    """The sweep in a folder. Raises ResultError when there is none, or not all of its runs are there."""
    about = read_stamp(folder)
    if not (folder / DATASET / "points.parquet").exists():
        raise ResultError(
            f"{folder}: the sweep is not complete; go on with replay sweep PLAN.toml -o {folder} --resume"
        )
    return Sweep(folder=folder, about=about)


def write(store: Store, entries: dict[int, Entry]) -> None:
    """Write the dataset of a sweep of which every run is there; it replaces an older one whole. Raises StoreError."""
    folder, plan = store.folder, store.plan
    temporary = folder / f".{DATASET}.{os.getpid()}.tmp"
    about = json.dumps(stamp(plan), sort_keys=True)
    shutil.rmtree(temporary, ignore_errors=True)
    aside = folder / f".{MEASURED}.{os.getpid()}.tmp"
    try:
        with _Table(aside, record.MEASURED_COLUMNS, about) as measured:
            for source in plan.sources:
                members = [run for run in plan.runs if run.source is source]
                _write_runs(temporary, quote(source.label, safe=""), members, plan, entries, measured, about)
        with _Table(temporary / "points.parquet", _point_columns(plan), about) as points:
            for run, baseline, point in plan.points:
                told: dict[str, Any] = {"run": run, "baseline": baseline} | {
                    name: point.get(name) for name in plan.axes
                }
                points.add({name: [value] for name, value in told.items()})
        aside.replace(folder / MEASURED)
        _swap(temporary, folder / DATASET)
        journal.sync_folder(folder)
    except OSError as error:
        raise StoreError(
            f"{folder}: the dataset cannot be written: {error.strerror or error}; every run is safe: make room and "
            "go on with --resume"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        aside.unlink(missing_ok=True)


def _write_runs(
    folder: Path, label: str, members: list[PlannedRun], plan: Plan, entries: dict[int, Entry], measured: _Table,
    about: str,
) -> None:  # fmt: skip
    """The tables of one guest's runs, and their rows of the table of measured figures; each run is read once."""
    part, columns = f"trace={label}/part-0.parquet", record.run_columns(plan.baselines)
    with (
        _Table(folder / "runs" / part, columns, about) as runs,
        _Table(folder / "rounds" / part, record.ROUND_COLUMNS, about) as rounds,
        _Table(folder / "vcpus" / part, record.VCPU_COLUMNS, about) as vcpus,
    ):
        for run in members:
            kept = journal.read(entries[run.index])
            row = record.row_of(run, plan.against.get(run.index, {}), kept, columns)
            runs.add({name: [value] for name, value in row.items()})
            rounds.add(record.rounds_of(run.index, kept))
            vcpus.add(record.vcpus_of(run.index, kept))
            told: dict[str, Any] = {"run": run.index} | kept.get("measured", {})
            measured.add({column.name: [told.get(column.name)] for column in record.MEASURED_COLUMNS})


def _swap(new: Path, place: Path) -> None:
    old = place.with_name(f".{place.name}.{os.getpid()}.old.tmp")
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def _point_columns(plan: Plan) -> tuple[Column, ...]:
    return (
        record.RUN,
        Column("baseline", "String", "", "name of the baseline that asks for it; null for a point of the plan itself"),
        *(Column(name, "String", "", "value on this axis, as the plan has it") for name in plan.axes),
    )


class _Table:
    """A Parquet file that is given rows; whole runs together are a row group. Synced to the disk when it is closed."""

    def __init__(self, path: Path, columns: tuple[Column, ...], about: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {
            "Int32": pa.int32(),
            "Int64": pa.int64(),
            "Float64": pa.float64(),
            "Boolean": pa.bool_(),
            "String": pa.string(),
        }
        fields = [pa.field(c.name, kinds[c.dtype], metadata={"unit": c.unit, "meaning": c.meaning}) for c in columns]
        self._schema = pa.schema(fields, metadata={KEY: about})
        self._held: dict[str, list[Any]] = {column.name: [] for column in columns}
        self._first = columns[0].name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._writer = pq.ParquetWriter(self._file, self._schema, compression="zstd")

    def add(self, rows: dict[str, list[Any]]) -> None:
        """More rows, as columns; all columns are there."""
        for name, values in self._held.items():
            values.extend(rows[name])
        if len(self._held[self._first]) >= ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        size = len(self._held[self._first])
        arrays = [pa.array(self._held[field.name], type=field.type) for field in self._schema]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema), row_group_size=max(1, size))
        for values in self._held.values():
            values.clear()

    def __enter__(self) -> _Table:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._file:
            try:
                if kind is None and self._held[self._first]:
                    self._flush()
                self._writer.close()
                self._file.flush()
                os.fsync(self._file.fileno())
            finally:
                self._writer.is_open = False  # or it tries again, on a closed file, when it is collected
