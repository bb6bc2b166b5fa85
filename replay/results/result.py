"""A replay's result: the per-round record, the summary, the configuration and where it all came from.

A result file is one Parquet file: the rounds are its rows, everything else is one JSON object in its metadata, and each
column carries its unit and meaning (columns.py) as field metadata.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replay.columns import ROUNDS, VCPUS
from replay.errors import ResultError

if TYPE_CHECKING:
    import polars as pl

_KEY = b"replay.result"
FORMAT_VERSION = 3


@dataclass(frozen=True, kw_only=True)
class Result:
    """What `replay.run` returns. `summary` has the names of `query-migrate`; `rows` is the record as plain dicts.

    `unsafe` is why the design, with its parameters, can lose pages; None when it claims to be safe.
    """

    status: str
    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    lost_pages: int | None
    redundant_pages: int | None
    unsafe: str | None
    guest: dict[str, Any]
    config: dict[str, Any]
    provenance: dict[str, Any]

    @cached_property
    def rounds(self) -> pl.DataFrame:
        """One row a round, with the columns of replay.columns.ROUNDS."""
        import polars as pl

        return pl.DataFrame(self.rows, schema={column.name: getattr(pl, column.dtype) for column in ROUNDS})

    @cached_property
    def vcpus(self) -> pl.DataFrame:
        """One row a vCPU, with the columns of replay.columns.VCPUS: what it lost, by cause."""
        import polars as pl

        return pl.DataFrame(self.guest["vcpus"], schema={column.name: getattr(pl, column.dtype) for column in VCPUS})

    def total(self, column: str) -> int:
        """Sum of a column over the rounds."""
        return sum(row[column] or 0 for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """The object that `replay run --json` prints."""
        return {
            **self.summary,
            "lost_pages": self.lost_pages,
            "redundant_pages": self.redundant_pages,
            "unsafe": self.unsafe,
            "guest": self.guest,
            "rounds": self.rows,
            "config": self.config,
            "provenance": self.provenance,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a result file; a temporary name is renamed, so that there is never half a file. Raises ResultError."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        target = Path(path)
        fields = [
            pa.field(c.name, _ARROW[c.dtype](pa), metadata={"unit": c.unit, "meaning": c.meaning}) for c in ROUNDS
        ]
        rest = {key: value for key, value in self.as_dict().items() if key != "rounds"}
        document = json.dumps({"version": FORMAT_VERSION, **rest}, sort_keys=True)
        table = pa.Table.from_pylist(self.rows, schema=pa.schema(fields, metadata={_KEY: document}))
        temporary = ""
        try:
            descriptor, temporary = tempfile.mkstemp(
                dir=target.parent or Path(), prefix=f".{target.name}.", suffix=".tmp"
            )
            os.close(descriptor)
            pq.write_table(table, temporary, compression="zstd")
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
        except OSError as error:
            if temporary:
                Path(temporary).unlink(missing_ok=True)
            raise ResultError(f"{target}: cannot be written: {error.strerror or error}") from error

    @classmethod
    def load(cls, path: Path) -> Result:
        """Read a result file. Raises ResultError when it is missing, damaged or something else."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                table = file.read()
                document = json.loads((file.schema_arrow.metadata or {})[_KEY])
        except (OSError, pa.ArrowException) as error:
            raise ResultError(f"{path}: not a readable result file: {error}") from error
        except (KeyError, ValueError) as error:
            raise ResultError(f"{path}: a Parquet file, but not a result written by replay") from error
        if document.get("version") != FORMAT_VERSION:
            raise ResultError(
                f"{path}: result format version {document.get('version')}, this program reads {FORMAT_VERSION}; "
                "run the replay again, or read it with the version that wrote it"
            )
        own = ("version", "lost_pages", "redundant_pages", "unsafe", "guest", "config", "provenance")
        return cls(
            status=document["status"],
            summary={key: value for key, value in document.items() if key not in own},
            rows=table.to_pylist(),
            lost_pages=document["lost_pages"],
            redundant_pages=document["redundant_pages"],
            unsafe=document["unsafe"],
            guest=document["guest"],
            config=document["config"],
            provenance=document["provenance"],
        )


_ARROW: dict[str, Any] = {
    "Int32": lambda pa: pa.int32(),
    "Int64": lambda pa: pa.int64(),
    "String": lambda pa: pa.string(),
}
