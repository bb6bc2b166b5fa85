"""Writing traces: sorted within a bound, checked, stamped, and never half there.

Rows go to a temporary file beside the target, which is synced and renamed over it at the end: a killed
writer leaves the old file, or none. The same events, metadata and provenance give the same bytes (with one
pyarrow version).

Encodings: t_ns and page are DELTA_BINARY_PACKED without compression, vcpu and source dictionaries. This was
the smallest on harvested traces and within 20 % of the smallest on store traces, needs no codec, and
decodes fast (replay/trace/unpack.py); traces/README.md has the measurements.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from replay.errors import TraceError, UsageError
from replay.trace.arrays import given_columns
from replay.trace.events import (
    BEFORE_ALL_NS,
    Array,
    Columns,
    Events,
    first_fault,
    origin_source,
    origin_vcpu,
    range_faults,
)
from replay.trace.schema import (
    METADATA_KEY,
    ROW_GROUP_ROWS,
    SOURCE_NAMES,
    VERSION_KEY,
    TraceMetadata,
    largest_gap,
)
from replay.version import __version__

Progress = Callable[[int, int], None]
"""Called after every window with (guest time written, duration), both ns; raise from it to cancel."""

_NAMES = ("t_ns", "page", "vcpu", "source")


class TraceWriter:
    """Writes one trace file; a context manager, and the file exists only after it was left without an error.

    path: the file to make or replace. metadata: checked again when closing, and `writer.metadata` may be
    replaced until then (a recording's re-arm times are known late). extend: lengthen duration_ns to the
    last event where it is shorter, instead of refusing. reorder_ns: by how much an event may be earlier
    than one appended before it; memory grows with the events in that span. sources: whether to write the
    column `source`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        metadata: TraceMetadata,
        *,
        reorder_ns: int = 0,
        sources: bool = False,
        extend: bool = False,
        row_group_rows: int = ROW_GROUP_ROWS,
    ) -> None:
        if reorder_ns < 0 or row_group_rows < 1:
            raise UsageError("TraceWriter: reorder_ns must be at least 0 and row_group_rows at least 1")
        self.path = Path(path)
        self.metadata = metadata
        self.n_events = 0
        self._reorder_ns = reorder_ns
        self._sources = sources
        self._extend = extend
        self._row_group_rows = row_group_rows
        self._latest_ns = BEFORE_ALL_NS
        self._waiting: Columns | None = None  # events that a later append may still precede
        self._sorted: list[Columns] = []
        self._n_sorted = 0
        self._last_ns = 0
        self._temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        self._open()

    def _open(self) -> None:
        names = _NAMES if self._sources else _NAMES[:3]
        types = {"t_ns": pa.int64(), "page": pa.uint32(), "vcpu": pa.uint16(), "source": pa.string()}
        self._schema = pa.schema([pa.field(name, types[name], nullable=False) for name in names])
        try:
            self._file = self._temporary.open("xb")
        except OSError as error:
            raise TraceError(f"{self.path}: cannot be written: {error.strerror or error}") from None
        self._parquet = pq.ParquetWriter(
            self._file,
            self._schema,
            compression="NONE",
            use_dictionary=[name for name in names if name not in ("t_ns", "page")],
            column_encoding={"t_ns": "DELTA_BINARY_PACKED", "page": "DELTA_BINARY_PACKED"},
            write_statistics=False,
        )

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def append(self, t_ns: Any, page: Any, vcpu: Any = 0, source: Any = None) -> None:
        """Add a batch: t_ns and page arrays of n, vcpu and source (names or codes) arrays of n or one value.

        Raises TraceError naming the offending event, counted from 0 in the order of appending.
        """
        try:
            columns = given_columns(t_ns, page, vcpu, source)
        except TraceError as error:
            raise TraceError(f"{self.path}: batch from event {self.n_events} on: {error}") from None
        if not len(columns.t_ns):
            return
        self._check_batch(columns)
        columns = _joined([self._waiting, columns]) if self._waiting is not None else columns
        order = np.argsort(columns.t_ns, kind="stable")
        columns = _taken(columns, order)
        ready = int(np.searchsorted(columns.t_ns, self._latest_ns - self._reorder_ns, side="right"))
        self._waiting = _taken(columns, slice(ready, None))
        self._queue(_taken(columns, slice(0, ready)))

    def append_windows(self, windows: Iterable[Events], progress: Progress | None = None) -> None:
        """Add decoded events, window by window; those without events are passed over. Raises TraceError as `append`."""
        for window in windows:
            if not window.t_ns.size:
                continue
            source = origin_source(window.origin) if self._sources else None
            self.append(window.t_ns, window.page, origin_vcpu(window.origin), source)
            if progress is not None:
                progress(int(window.t_ns[-1]), self.metadata.duration_ns)

    def _check_batch(self, columns: Columns) -> None:
        latest = np.maximum.accumulate(np.maximum(columns.t_ns, self._latest_ns))
        late = np.flatnonzero(latest - columns.t_ns > self._reorder_ns)
        if len(late):
            row = int(late[0])
            t_ns = columns.t_ns[row]
            raise TraceError(
                f"{self.path}: event {self.n_events + row}: t_ns {t_ns} is {latest[row] - t_ns} ns earlier "
                f"than an event before it; reorder_ns allows {self._reorder_ns}"
            )
        if not self._sources and columns.source.any():
            raise TraceError(f"{self.path}: events have a source; open the writer with sources=True")
        if found := first_fault(range_faults(columns, self.metadata)):
            raise TraceError(f"{self.path}: event {self.n_events + found[1]}: {found[2]}")
        self._latest_ns = int(latest[-1])
        self.n_events += len(latest)

    def _queue(self, columns: Columns) -> None:
        self._sorted.append(columns)
        self._n_sorted += len(columns.t_ns)
        if self._n_sorted >= self._row_group_rows:
            self._write(whole_groups_only=True)

    def _write(self, whole_groups_only: bool) -> None:
        columns = _joined(self._sorted)
        n, step = len(columns.t_ns), self._row_group_rows
        end = n - n % step if whole_groups_only else n
        for row in range(0, end, step):
            part = _taken(columns, slice(row, min(row + step, end)))
            arrays = [pa.array(part.t_ns), pa.array(part.page), pa.array(part.vcpu)]
            if self._sources:
                indices = pa.array(part.source.astype(np.int8))
                arrays.append(pa.DictionaryArray.from_arrays(indices, list(SOURCE_NAMES)).cast(pa.string()))
            self._last_ns = int(part.t_ns[-1])
            self._guarded(lambda arrays=arrays: self._parquet.write_batch(
                pa.record_batch(arrays, schema=self._schema), row_group_size=step
            ))  # fmt: skip
        self._sorted = [_taken(columns, slice(end, None))]
        self._n_sorted = n - end

    def _guarded(self, action: Any) -> None:
        try:
            action()
        except OSError as error:
            raise TraceError(f"{self.path}: cannot be written: {error.strerror or error}") from None

    def close(self) -> TraceMetadata:
        """Write what is left, sync, rename into place; returns the metadata as stored. Raises TraceError."""
        try:
            if not self.n_events:
                raise TraceError(f"{self.path}: no events were written; a trace holds at least one")
            if self._waiting is not None:
                self._queue(self._waiting)
            self._write(whole_groups_only=False)
            metadata = stamped(self.metadata, self._last_ns if self._extend else 0)
            if self._last_ns > metadata.duration_ns:
                raise TraceError(
                    f"{self.path}: the last event is at {self._last_ns} ns, "
                    f"after the end of the recording (duration_ns {metadata.duration_ns})"
                )
            self._parquet.add_key_value_metadata(
                {METADATA_KEY: metadata.to_json(), VERSION_KEY: str(metadata.format_version)}
            )
            self._guarded(self._finish)
            self.metadata = metadata
        except BaseException:
            self.abandon()
            raise
        return self.metadata

    def _finish(self) -> None:
        self._parquet.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self.path)

    def abandon(self) -> None:
        """Remove the temporary file; the target stays as it was."""
        with contextlib.suppress(Exception):  # it would write its footer when collected, to a closed file
            self._parquet.close()
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def write_trace(
    path: str | os.PathLike[str],
    metadata: TraceMetadata,
    t_ns: Any,
    page: Any,
    vcpu: Any = 0,
    source: Any = None,
) -> TraceMetadata:
    """Write arrays as one trace file (see TraceWriter.append); times may be in any order."""
    times = np.asarray(t_ns)
    span = int(times.max()) - min(int(times.min()), 0) if times.size else 0
    with TraceWriter(path, metadata, reorder_ns=span, sources=source is not None) as writer:
        writer.append(times, page, vcpu, source)
    return writer.metadata


def stamped(metadata: TraceMetadata, last_ns: int) -> TraceMetadata:
    """The metadata with tool and made_at in the provenance where missing, lasting at least to last_ns."""
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat()
    provenance = {"tool": f"dirtyreplay {__version__}", "made_at": now, **metadata.provenance}
    return dataclasses.replace(_lasting(metadata, last_ns), provenance=provenance)


def _lasting(metadata: TraceMetadata, last_ns: int) -> TraceMetadata:
    if metadata.duration_ns >= last_ns:
        return metadata
    gap = metadata.rearm_gap_ns
    if gap is not None and metadata.rearm_times_ns is not None:
        gap = max(gap, largest_gap(metadata.rearm_times_ns, last_ns))
    return dataclasses.replace(metadata, duration_ns=last_ns, rearm_gap_ns=gap)


def _joined(parts: list[Columns]) -> Columns:
    t_ns, page, vcpu, source, _ = (list(column) for column in zip(*parts, strict=True))
    return Columns(np.concatenate(t_ns), np.concatenate(page), np.concatenate(vcpu), np.concatenate(source), {})


def _taken(columns: Columns, which: Array | slice) -> Columns:
    t_ns, page, vcpu, source, _ = columns
    return Columns(t_ns[which], page[which], vcpu[which], source[which], {})
