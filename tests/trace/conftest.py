"""Makers of small traces, right and wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from replay.trace.schema import TraceMetadata, whole_memory

N_PAGES = 1000
MakeFile = Callable[..., Path]


def _metadata(**changes: Any) -> TraceMetadata:
    memory = changes.setdefault("memory_bytes", N_PAGES * 4096)
    values: dict[str, Any] = {
        "title": "a test",
        "guest": "none",
        "workload": "none",
        "ram_blocks": whole_memory(memory),
        "n_vcpus": 4,
        "duration_ns": 1_000_000,
        "clock": "virtual",
        "capture": "made up",
        "limits": "none",
        "provenance": {"made_by": "tests", "made_from": "nothing", "made_at": "2026-01-01", "tool": "pytest"},
        "licence": "CC0-1.0",
    }
    return TraceMetadata(**(values | changes))


@pytest.fixture(scope="session")
def make_metadata() -> Callable[..., TraceMetadata]:
    """Valid metadata of 1000 pages, 4 vCPUs, 1 ms, with the given fields changed."""
    return _metadata


@pytest.fixture
def make_file(tmp_path: Path) -> MakeFile:
    """A Parquet file made by pyarrow alone, right unless columns or metadata are replaced.

    A column given as None, and a metadata field given as ..., is left out.
    """

    def make(
        columns: dict[str, Any] | None = None, metadata: Any = None, raw: Any = None, rows: int = 100
    ) -> Path:
        arrays = {
            "t_ns": pa.array([0, 10, 10, 20, 30], pa.int64()),
            "page": pa.array([1, 2, 999, 1, 0], pa.uint32()),
            "vcpu": pa.array([0, 1, 2, 3, 0], pa.uint16()),
        } | (columns or {})
        table = pa.table({name: array for name, array in arrays.items() if array is not None})
        plain = _metadata().to_plain() | (metadata or {})
        plain = {name: value for name, value in plain.items() if value is not ...}
        text = json.dumps(plain) if raw is None else raw
        if raw is not False:
            table = table.replace_schema_metadata({"replay.trace": text})
        path = tmp_path / "file.parquet"
        pq.write_table(table, path, row_group_size=rows)
        return path

    return make
