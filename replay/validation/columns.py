"""Columns of a Parquet file as arrays, or a TraceError that names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from replay.errors import TraceError


def read_columns(path: Path, names: tuple[str, ...]) -> tuple[list[np.ndarray], dict[str, str]]:
    """The columns, and the file's key-value texts. Raises TraceError when it is damaged or a column is missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open(path, "rb") as file:
            table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise TraceError(f"{path}: not a readable Parquet file: {error}") from None
    for name in names:
        if name not in table.column_names:
            raise TraceError(f"{path}: has no column {name}; it has {', '.join(table.column_names)}")
    texts = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items() if not k.startswith(b"ARROW")}
    return [table[name].to_numpy() for name in names], texts
