"""The result of a sweep: a Parquet dataset partitioned by trace, written from the journals in the order of the plan.

The same plan gives the same bytes (with one pyarrow version), whoever ran it, in whatever order, however often it was
interrupted. What differs from time to time (`measured_*`, wall time, machine) is in measured.parquet, outside of it.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from replay.columns import Column
from replay.errors import ResultError
from replay.sweeping import journal, record
from replay.sweeping.journal import Entry, StoreError
from replay.sweeping.plan import Plan
from replay.sweeping.store import DATASET, MEASURED, Store, read_stamp, stamp

if TYPE_CHECKING:
    import polars as pl

KEY = b"replay.sweep"
CHUNK_RUNS = 4096
CHUNK_ROUNDS = 1 << 16


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
    try:
        for source in plan.sources:
            part = f"trace={quote(source.label, safe='')}"
            members = [run for run in plan.runs if run.source is source]
            columns = record.run_columns(plan.baselines)
            rows = (
                record.row_of(run, plan.against.get(run.index, {}), journal.read(entries[run.index]), columns)
                for run in members
            )
            _write(temporary / "runs" / part / "part-0.parquet", columns, _in_chunks(rows), about)
            for table, columns, parts in (
                ("rounds", record.ROUND_COLUMNS, record.rounds_of), ("vcpus", record.VCPU_COLUMNS, record.vcpus_of),
            ):  # fmt: skip
                held = (parts(run.index, journal.read(entries[run.index])) for run in members)
                _write(temporary / table / part / "part-0.parquet", columns, _gathered(held), about)
        _write(temporary / "points.parquet", _point_columns(plan), _in_chunks(_points(plan)), about)
        measured = ({"run": run.index} | journal.read(entries[run.index]).get("measured", {}) for run in plan.runs)
        aside = folder / f".{MEASURED}.{os.getpid()}.tmp"
        _write(aside, record.MEASURED_COLUMNS, _in_chunks(measured), about)
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
        (folder / f".{MEASURED}.{os.getpid()}.tmp").unlink(missing_ok=True)


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


def _points(plan: Plan) -> Iterator[dict[str, Any]]:
    for run, baseline, point in plan.points:
        yield {"run": run, "baseline": baseline} | {name: point.get(name) for name in plan.axes}


def _in_chunks(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, list[Any]]]:
    rows = iter(rows)
    while chunk := list(itertools.islice(rows, CHUNK_RUNS)):
        names = list(dict.fromkeys(name for row in chunk for name in row))
        yield {name: [row.get(name) for row in chunk] for name in names}


def _gathered(parts: Iterable[dict[str, list[Any]]]) -> Iterator[dict[str, list[Any]]]:
    """Rounds of whole runs together until they are a row group."""
    held: dict[str, list[Any]] = {}
    for part in parts:
        for name, values in part.items():
            held.setdefault(name, []).extend(values)
        if len(held.get("run", [])) >= CHUNK_ROUNDS:
            yield held
            held = {}
    if held:
        yield held


def _write(path: Path, columns: tuple[Column, ...], chunks: Iterable[dict[str, list[Any]]], about: str) -> None:
    """A Parquet file, a row group a chunk, synced to the disk."""
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
    schema = pa.schema(fields, metadata={KEY: about})
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for chunk in chunks:
                size = len(chunk["run"])
                arrays = [pa.array(chunk.get(f.name, [None] * size), type=f.type) for f in fields]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=max(1, size))
        file.flush()
        os.fsync(file.fileno())
