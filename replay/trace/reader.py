"""Reading traces: `open_trace(path)` for replays, `TraceReader` for streaming a file once.

A trace is checked wherever it is read; there is no unchecked way in. `Trace.decode` reads everything once
into arrays that all replays of a process share; `Trace.windows` streams with bounded memory instead.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from replay.errors import TraceError
from replay.trace import parquet
from replay.trace.ahead import ahead
from replay.trace.arrays import given_columns, minimal_metadata, zero_bitmap
from replay.trace.events import (
    BEFORE_ALL_NS,
    EVENT_BYTES,
    Array,
    Columns,
    Events,
    check,
    origin_source,
    seal,
    to_events,
)
from replay.trace.schema import METADATA_KEY, ROW_GROUP_ROWS, TraceMetadata, parse_metadata

if TYPE_CHECKING:
    from replay.trace.side_file import Mapped
    from replay.trace.unpack import Unpacker

READ_ROWS = 1 << 16
"""Rows read at once. In batches of 2^20 rows an event took three times as long: their memory is fresh each time."""
UNPACKED_EVENTS = 1 << 21
"""Files with fewer are left to pyarrow: loading the kernels that decode faster takes what they would save."""
SHARED_EVENTS = 1 << 22
"""Longer traces are streamed by their first replay: filling fresh memory takes longer than decoding into a cache."""
SHARED_PART = 4
"""A trace whose arrays would take more than one part in so many of the machine's memory is streamed by every replay."""


class RowGroup(NamedTuple):
    """Where a row group's events lie, in rows counted over the file."""

    number: int
    first_row: int
    n_rows: int


class TraceReader:
    """A trace file, read front to back as often as wanted; holds no file open in between.

    Opening reads the footer only. Raises TraceError: not Parquet, truncated, missing or mistyped column,
    missing or faulty metadata, no events.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with parquet.opened(self.path) as file, parquet.explaining(self.path):
            text = parquet.metadata_text(file)
            if text is None:
                raise TraceError(f"{self.path}: has no trace metadata (key {METADATA_KEY!r}); see traces/README.md")
            for _, message in parquet.column_faults(file):
                raise TraceError(f"{self.path}: {message}")
            try:
                self.metadata = parse_metadata(text)
            except TraceError as error:
                raise TraceError(f"{self.path}: {error}") from None
            sizes = parquet.row_group_rows(file)
            self.has_sources = "source" in file.schema_arrow.names
        self.n_events = sum(sizes)
        if self.n_events < 1:
            raise TraceError(f"{self.path}: holds no events")
        starts = itertools.accumulate(sizes, initial=0)
        self.row_groups = [RowGroup(*part) for part in zip(range(len(sizes)), starts, sizes, strict=False)]

    def batches(self, max_events: int = READ_ROWS) -> Iterator[Events]:
        """Checked events in order, at most max_events at a time."""
        last_t_ns = BEFORE_ALL_NS
        with parquet.opened(self.path) as file:
            unpack = self._unpacker()
            for group in range(len(self.row_groups)):
                row = 0
                for columns, passed in self._columns(file, group, max_events, last_t_ns, unpack):
                    if not passed:
                        check(columns, self.metadata, last_t_ns, str(self.path), group, row)
                    row += len(columns.t_ns)
                    last_t_ns = int(columns.t_ns[-1])
                    yield to_events(columns)

    def _unpacker(self) -> Unpacker | None:
        """What decodes faster than pyarrow, in a process that has loaded numba for something else."""
        jit = sys.modules.get("replay.jit")
        if self.n_events < UNPACKED_EVENTS or jit is None or jit.DISABLED or jit.CACHE_FOLDER is None:
            return None
        from replay.trace.unpack import Unpacker

        return Unpacker(self.path, self.metadata)

    def _columns(
        self, file: Any, group: int, max_events: int, last_t_ns: int, unpacker: Unpacker | None
    ) -> Iterator[tuple[Columns, bool]]:
        """A row group in batches, and whether each is known to pass its checks."""
        done = 0
        if unpacker is not None:
            try:
                for columns, passed in unpacker.batches(file, group, max_events, last_t_ns):
                    yield columns, passed
                    done += len(columns.t_ns)
                return
            except unpacker.unknown:
                pass  # pyarrow reads it, or says what is wrong with it
        for columns in parquet.batches(file, self.path, group, max_events):
            known = min(done, len(columns.t_ns))
            done -= known
            if known < len(columns.t_ns):
                yield columns.after(known), False


class Trace:
    """A trace as replays use it: metadata and events, from a file (`open_trace`) or arrays
    (`from_arrays`)."""

    def __init__(self, path: Path, metadata: TraceMetadata, reader: TraceReader | None, events: Events | None) -> None:
        self.path = path
        self.metadata = metadata
        self._reader = reader
        self._events = events
        self._digest: str | None = None
        self._side: Mapped | None = None
        self._replayed = False
        self._lock = threading.Lock()
        self.n_events: int = reader.n_events if reader is not None else len(events.t_ns)  # type: ignore[union-attr]

    def __repr__(self) -> str:
        return f"<Trace {self.path} {self.n_events} events, {self.metadata.n_pages} pages>"

    @classmethod
    def from_arrays(
        cls,
        t_ns: Any,
        page: Any,
        vcpu: Any = 0,
        source: Any = None,
        *,
        metadata: TraceMetadata | None = None,
        memory_bytes: int | None = None,
        n_vcpus: int | None = None,
        duration_ns: int | None = None,
        zero: Any = None,
    ) -> Trace:
        """A trace in memory, checked like a file.

        t_ns, page: arrays of n; vcpu, source (names or codes): arrays of n or one value. Without metadata,
        a minimal one is made: memory_bytes is required then, n_vcpus defaults to the highest vCPU plus one,
        duration_ns to the last time plus one, zero is an optional (n_pages,) boolean array. Raises
        TraceError.
        """
        columns = given_columns(t_ns, page, vcpu, source)
        if not len(columns.t_ns):
            raise TraceError("from_arrays: holds no events")
        if metadata is None:
            if memory_bytes is None:
                raise TraceError("from_arrays: needs metadata or memory_bytes")
            end = int(columns.t_ns[-1]) + 1
            metadata = minimal_metadata(
                memory_bytes, n_vcpus or int(columns.vcpu.max()) + 1, duration_ns or max(end, 1), zero
            )
        check(columns, metadata, BEFORE_ALL_NS, "from_arrays")
        return cls(Path("memory"), metadata, None, to_events(columns))

    @property
    def from_file(self) -> bool:
        """Whether the events come from a file (and not from arrays)."""
        return self._reader is not None

    @property
    def has_sources(self) -> bool:
        """Whether something else than vCPUs may write: a file has the column `source`."""
        if self._reader is not None:
            return self._reader.has_sources
        assert self._events is not None
        return bool(origin_source(self._events.origin).any())

    @property
    def digest(self) -> str:
        """sha256 (hex) of the file's bytes; of metadata and arrays for a trace in memory."""
        with self._lock:
            if self._digest is None:
                self._digest = self._compute_digest()
            return self._digest

    def _compute_digest(self) -> str:
        if self._reader is not None:
            try:
                with self.path.open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise TraceError(f"{self.path}: cannot be read: {error.strerror or error}") from None
            if self._side is not None and self._side.digest != found:
                raise TraceError(
                    f"{self.path}: was changed without changing its size or time; its decoded events, "
                    f"{self._side.path}, are of what it was: delete them (replay trace decode --remove)"
                )
            return found
        assert self._events is not None
        digest = hashlib.sha256(self.metadata.to_json().encode())
        for array in self._events:
            digest.update(array.data)
        return digest.hexdigest()

    def decode(self) -> Events:
        """All events as shared read-only arrays, 14 bytes an event; read and checked once, or mapped from
        a side file (replay.trace.side_file).

        Raises TraceError at the first faulty row, or when the arrays would not fit into this machine's
        memory.
        """
        with self._lock:
            if self._events is None:
                self._events = self._mapped() or self._decode()
            return self._events

    def _mapped(self) -> Events | None:
        """The events in the trace's side file, which other processes share; None where it has none."""
        from replay.trace import side_file

        assert self._reader is not None
        self._side = side_file.mapped(self._reader)
        return None if self._side is None else self._side.events

    def _decode(self) -> Events:
        assert self._reader is not None
        n = self.n_events
        if n * EVENT_BYTES > memory_bytes():
            raise TraceError(f"{self.path}: {n} events need {n * EVENT_BYTES} bytes of memory; stream them instead")
        t_ns, page, origin = np.empty(n, np.uint64), np.empty(n, np.uint32), np.empty(n, np.uint16)
        row = 0
        for part in self._reader.batches():
            end = row + len(part.t_ns)
            t_ns[row:end], page[row:end], origin[row:end] = part
            row = end
        return Events(seal(t_ns), seal(page), seal(origin))

    def windows(self, max_events: int = ROW_GROUP_ROWS, start_ns: int = 0) -> Iterator[Events]:
        """Events at or after start_ns in order, at most max_events at a time, with bounded memory.

        Concatenated they equal decode() from start_ns on. What is before it is read and
        checked as well: Parquet's statistics, which could skip it, crash pyarrow when they are damaged.
        Raises TraceError at the first faulty row.
        """
        if max_events < 1:
            raise TraceError(f"windows: max_events must be at least 1, not {max_events}")
        for part in self._parts(max_events):
            first = int(np.searchsorted(part.t_ns, np.uint64(max(start_ns, 0))))
            for row in range(first, len(part.t_ns), max_events):
                yield Events(*(array[row : row + max_events] for array in part))

    def _parts(self, max_events: int) -> Iterator[Events]:
        if self._events is not None:
            return iter([self._events])
        assert self._reader is not None
        # Batches below a few thousand rows cost more in calls than in rows: read larger ones and slice them.
        return self._reader.batches(min(max(max_events, 1 << 14), READ_ROWS))

    def for_replay(self, start_ns: int) -> Iterator[Events]:
        """All events from start_ns on, for one replay: the arrays that all replays share, as one window, or a stream.

        A long trace is streamed the first time, decoded by a thread that is a few windows ahead; whoever replays it
        again decodes it for good, where it fits. A replay that ends early has not checked what it did not read.
        """
        with self._lock:
            first, self._replayed = not self._replayed, True
            large = self.n_events * EVENT_BYTES * SHARED_PART > memory_bytes()
            streams = self._events is None and self.n_events > SHARED_EVENTS and (first or large)
            if streams:
                self._events = self._mapped()
                streams = self._events is None
        if streams:
            return ahead(self.windows(READ_ROWS, start_ns), lambda: self.digest)
        events = self.decode()
        at = int(np.searchsorted(events.t_ns, np.uint64(start_ns)))
        return iter([Events(*(array[at:] for array in events))])

    def row_groups(self) -> list[RowGroup]:
        """The file's row groups; a trace in memory is one."""
        if self._reader is not None:
            return list(self._reader.row_groups)
        return [RowGroup(0, 0, self.n_events)]

    def zero_pages(self) -> Array:
        """Bitmap (ceil(n_pages / 64),) uint64: bit p % 64 of word p // 64 is set where page p starts as zero.

        All clear (every page counts as data) when the trace does not know.
        """
        return seal(zero_bitmap(self.metadata.page_classes or (), self.metadata.n_pages))


def memory_bytes() -> int:
    """Of this machine, in all."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def open_trace(path: str | os.PathLike[str]) -> Trace:
    """The trace in a file: metadata read and checked, events not yet. Raises TraceError."""
    reader = TraceReader(path)
    return Trace(reader.path, reader.metadata, reader, None)
