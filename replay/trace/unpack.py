"""Decodes what TraceWriter writes, several times as fast as pyarrow does, and leaves everything else to it.

*What.* Row groups whose columns are plain Parquet without compression: t_ns and page as DELTA_BINARY_PACKED, vcpu as
indices of a dictionary, no nulls, no source. That is what TraceWriter writes; other encodings, and whatever looks
damaged, raise `Unknown`, and the reader asks pyarrow, which also knows what to say about the damage.

*How.* Each column of a row group is read into a buffer, and the kernels of pages.py take the values out of it; `sound`
looks at all of them once more while they are in the cache.

*When not.* A process that does not use numba already would wait longer for it than for pyarrow.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from replay.jit import U0, U64
from replay.trace import parquet
from replay.trace.events import BEFORE_ALL_NS, Array, Columns, seal
from replay.trace.pages import (
    BROKEN,
    COUNT,
    CURSOR,
    DICTIONARY,
    ENCODING,
    END,
    KIND,
    LEFT,
    NOWHERE,
    PLAIN,
    POSITION,
    SLACK,
    read_header,
    sound,
    summed,
    take_delta,
    take_indexed,
)  # fmt: skip
from replay.trace.schema import TraceMetadata

_MOST_BYTES = 1 << 24  # of a column in a row group: TraceWriter's have 8 MiB at most
_NAMES = ("t_ns", "page", "vcpu")


class Unknown(Exception):
    """Something that only pyarrow reads, or damage that only it can explain."""


class _Column:
    """A column of a row group, in memory."""

    def __init__(self, file: io.FileIO, chunk: Any, buffer: Array) -> None:
        self._indexed = bool(chunk.has_dictionary_page)
        begin, n_bytes = chunk.data_page_offset, chunk.total_compressed_size
        if self._indexed:
            begin = min(begin, chunk.dictionary_page_offset)
        if begin < 0 or not 0 < n_bytes <= _MOST_BYTES:
            raise Unknown("a column of another size")
        self._data = buffer if buffer.size >= n_bytes + SLACK else np.empty(n_bytes + SLACK, np.uint8)
        file.seek(begin)
        if file.readinto(self._data[:n_bytes].data) != n_bytes:
            raise Unknown("a file that ends early")
        self._size = U64(n_bytes)
        self._at = np.zeros(CURSOR, np.uint64)
        self._table = self._dictionary() if self._indexed else np.empty(0, np.uint16)

    @property
    def buffer(self) -> Array:
        """The memory, for the next row group."""
        return self._data

    def take(self, out: Array) -> None:
        """As many values as `out` takes. Raises Unknown."""
        if self._indexed:
            take_indexed(self._data, self._size, self._at, self._table, out, U64(out.size))
        else:
            take_delta(self._data, self._size, self._at, out, U64(out.size))
        if self._at[BROKEN]:
            raise Unknown("a page that is damaged, or of another encoding")

    def finish(self) -> None:
        """Raise Unknown when there is more."""
        if self._at[LEFT] or self._at[END] != self._size:
            raise Unknown("more values than rows")

    def _dictionary(self) -> Array:
        """What the indices mean, padded to a power of two."""
        read_header(self._data, self._size, self._at)
        begin, end = int(self._at[POSITION]), int(self._at[END])
        kind = self._at[KIND], self._at[ENCODING], 4 * int(self._at[COUNT])
        if self._at[BROKEN] or kind != (DICTIONARY, PLAIN, end - begin) or not 0 < end - begin <= 1 << 18:
            raise Unknown("another dictionary")
        values = self._data[begin:end].copy().view(np.uint32)
        if values.max() >= NOWHERE:
            raise Unknown("no vCPUs")
        table = np.full(max(2, 1 << int(values.size - 1).bit_length()), NOWHERE)
        table[: values.size] = values
        return table


class Unpacker:
    """Reads a trace file, row group after row group."""

    unknown = Unknown

    def __init__(self, path: Path, metadata: TraceMetadata) -> None:
        self._path, self._limits = path, (U64(metadata.duration_ns), U64(metadata.n_pages), U64(metadata.n_vcpus))
        self._buffers = [np.empty(0, np.uint8) for _ in _NAMES]

    def batches(self, file: Any, group: int, max_rows: int, last_t_ns: int) -> Iterator[tuple[Columns, bool]]:
        """The row group of the open Parquet file in batches, and whether each passes the checks; which it fails,
        `check` says. last_t_ns: the time before. Raises `unknown`, at once or later.
        """
        try:
            told = file.metadata.row_group(group)
            columns = self._opened(told, file.schema)
        except parquet.BROKEN as error:
            raise Unknown("a damaged footer") from error
        for row in range(0, told.num_rows, max_rows):
            n = min(max_rows, told.num_rows - row)
            t_ns, page, vcpu = arrays = np.empty(n, np.uint64), np.empty(n, np.uint32), np.empty(n, np.uint16)
            for column, array in zip(columns, arrays, strict=True):
                column.take(array)
            if row + n == told.num_rows:
                for column in columns:
                    column.finish()
            first = U0 if last_t_ns == BEFORE_ALL_NS else U64(last_t_ns)
            passed = bool(sound(t_ns, page, vcpu, first, *self._limits))
            last_t_ns = int(t_ns[-1])
            yield Columns(t_ns.view(np.int64), page, vcpu, np.zeros(1, np.uint8), {}), passed

    def _opened(self, told: Any, schema: Any) -> list[_Column]:
        chunks = {chunk.path_in_schema: chunk for chunk in map(told.column, range(told.num_columns))}
        if any(
            schema.column(at).max_definition_level or schema.column(at).max_repetition_level
            for at in range(len(chunks))
        ):
            raise Unknown("columns that may hold nulls or lists")
        wanted = [chunks[name] for name in _NAMES]
        kinds = [(chunk.physical_type, chunk.compression, bool(chunk.has_dictionary_page)) for chunk in wanted]
        plain = "UNCOMPRESSED"
        if kinds != [("INT64", plain, False), ("INT32", plain, False), ("INT32", plain, True)] or "source" in chunks:
            raise Unknown("another type, compression or encoding than TraceWriter's")
        with io.FileIO(self._path) as file:
            columns = [_Column(file, chunk, buffer) for chunk, buffer in zip(wanted, self._buffers, strict=True)]
        self._buffers = [column.buffer for column in columns]
        return columns


def compile_ahead() -> None:
    """Compile every kernel here for the arrays that it is called with."""
    data, at, none = np.zeros(1 + SLACK, np.uint8), np.zeros(CURSOR, np.uint64), U0
    read_header(data, none, at)
    for kind in (np.uint64, np.uint32):
        take_delta(data, none, at, np.empty(0, kind), none)
    vcpu = np.empty(0, np.uint16)
    take_indexed(data, none, at, vcpu, vcpu, none)
    shared = [seal(np.empty(0, kind)) for kind in (np.uint64, np.uint32, np.uint16)]
    summed(*shared, U0, U0, U0, np.zeros(3, np.uint64))
    sound(np.empty(0, np.uint64), np.empty(0, np.uint32), vcpu, U0, U0, U0, U0)
