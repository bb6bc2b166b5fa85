"""Opening a trace's Parquet file and turning its batches into numpy columns.

Whatever a damaged file makes pyarrow raise becomes a TraceError here. Batches are read through a small
buffer, so that memory stays bounded even when a file has one enormous row group.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from replay.errors import TraceError
from replay.trace.events import Array, Columns
from replay.trace.schema import COLUMN_TYPES, METADATA_KEY, OPTIONAL_COLUMNS, SOURCE_CODES

BUFFER_BYTES = 1 << 20
MAGIC = b"PAR1"

BROKEN = (
    pa.ArrowException,
    OSError,
    ValueError,
    OverflowError,
    IndexError,
    KeyError,
    TypeError,
    NotImplementedError,
)
"""All that pyarrow was seen to raise on damaged files; it has no common base for them."""


@contextlib.contextmanager
def explaining(path: Path | str, kind: str = "Parquet") -> Iterator[None]:
    """Turns what pyarrow raises on a damaged file into a TraceError."""
    try:
        yield
    except MemoryError:
        raise TraceError(f"{path}: damaged, or too large: asks for more memory than there is") from None
    except BROKEN as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise TraceError(f"{path}: damaged {kind} data: {reason[0]}") from None


def check_readable(path: Path) -> None:
    """Raise TraceError when the path is no file that starts and ends as Parquet does."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
            size = file.seek(0, 2)
            file.seek(max(size - 4, 0))
            tail = file.read(4)
    except FileNotFoundError:
        raise TraceError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise TraceError(f"{path}: is a directory, not a trace file") from None
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not size:
        raise TraceError(f"{path}: is an empty file (0 bytes)")
    if head != MAGIC:
        raise TraceError(f"{path}: not a Parquet file; traces are Parquet files (see traces/README.md)")
    if tail != MAGIC or size < 12:
        raise TraceError(f"{path}: truncated: the end of a Parquet file is missing; copy or record it again")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """The open Parquet file, closed at the end. Errors as check_readable and explaining raise them."""
    check_readable(path)
    with explaining(path):
        file = pq.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False)
    try:
        yield file
    finally:
        file.close()


def metadata_text(file: pq.ParquetFile) -> bytes | None:
    """The trace metadata as stored, None when the file has none."""
    stored = file.metadata.metadata or {}
    return stored.get(METADATA_KEY.encode())


def column_faults(file: pq.ParquetFile) -> list[tuple[str, str]]:
    """(kind, sentence) for every missing, doubled or mistyped column."""
    faults = []
    schema = file.schema_arrow
    for name, types in COLUMN_TYPES.items():
        indices = schema.get_all_field_indices(name)
        if not indices and name not in OPTIONAL_COLUMNS:
            have = ", ".join(schema.names[:8]) + (" ..." if len(schema.names) > 8 else "") or "none"
            faults.append(("missing column", f"column {name!r} is missing (columns: {have})"))
        elif len(indices) > 1:
            faults.append(("wrong type", f"column {name!r} is there {len(indices)} times"))
        elif indices and (found := _type_name(schema.field(indices[0]).type)) not in types:
            faults.append(("wrong type", f"column {name!r} has type {found}, expected {' or '.join(types)}"))
    return faults


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind) and str(kind.value_type) in ("string", "large_string"):
        return "dictionary of string"
    return str(kind)


def row_group_rows(file: pq.ParquetFile) -> list[int]:
    """Rows of each row group as the footer states them. A negative number is a ValueError: damage."""
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    if min(sizes, default=0) < 0:
        raise ValueError("a row group has a negative number of rows")
    return sizes


def batches(file: pq.ParquetFile, path: Path, group: int, max_rows: int) -> Iterator[Columns]:
    """The row group in batches of at most max_rows rows, in order. Raises TraceError where data are
    damaged."""
    names = [name for name in COLUMN_TYPES if name in file.schema_arrow.names]
    expected = file.metadata.row_group(group).num_rows
    rows = 0
    with explaining(path):
        for batch in file.iter_batches(max_rows, [group], names, use_threads=False):
            columns = _columns(batch)
            rows += len(columns.t_ns)
            if rows > expected:
                break
            yield columns
    if rows != expected:
        raise TraceError(f"{path}: row group {group}: has other than the {expected} rows that the file's footer states")


def _columns(batch: pa.RecordBatch) -> Columns:
    masks: dict[str, Array] = {}
    arrays: dict[str, Array] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if column.null_count:
            masks[name] = column.is_null().to_numpy(zero_copy_only=False)
        if name == "source":
            arrays[name] = _source(column)
        else:
            column = column.fill_null(0) if column.null_count else column
            arrays[name] = column.to_numpy()
    source = arrays.get("source", np.zeros(1, np.uint8))
    return Columns(arrays["t_ns"], arrays["page"], arrays["vcpu"], source, masks)


def _source(column: pa.Array) -> Array:
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    names = column.dictionary.to_pylist() or [None]
    codes = np.array([SOURCE_CODES.get(name, 255) for name in names], np.uint8)
    indices = column.indices
    return np.where(indices.is_null(), 0, codes[indices.fill_null(0).to_numpy()]).astype(np.uint8)
