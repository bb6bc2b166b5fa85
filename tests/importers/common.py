"""Import a text or bytes, and hold the result against what must be true of every import."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import replay
from replay.errors import TraceError, UsageError
from replay.trace.operations import validate

SAMPLES = Path(__file__).parent / "samples"


def sample(name: str) -> bytes:
    return gzip.decompress((SAMPLES / f"{name}.gz").read_bytes())


def adds_up(counts: dict[str, Any]) -> bool:
    """Every line read is an event, of no use, or dropped for a reason; nothing is counted below zero."""
    parts = [*counts["dropped"].values(), *counts["other"].values()]
    return counts["read"] == counts["events"] + sum(parts) and min([0, *parts, *counts["lost"].values()]) == 0


def rows(path: Path) -> list[tuple[int, int, int]]:
    """(t_ns, page, vcpu) as pyarrow alone reads them."""
    table = pq.read_table(path)
    return list(zip(*(table.column(name).to_pylist() for name in ("t_ns", "page", "vcpu")), strict=True))


def do(
    kind: str, data: bytes | str | list[Path], folder: Path, *, suffix: str = "", **options: Any
) -> replay.api.Imported:
    """Import, and check the file, the books, and that what the trace says of itself agrees with them."""
    if isinstance(data, list):
        files = data
    else:
        files = [folder / f"input{suffix}"]
        files[0].write_bytes(data.encode() if isinstance(data, str) else data)
    output = folder / "out.parquet"
    output.unlink(missing_ok=True)
    done = replay.import_trace(kind, files, output, **options)
    assert adds_up(done.counts), done.counts
    if done.trace is not None:
        assert validate(output) == []
        assert done.trace.n_events == done.counts["events"] == len(rows(output))
        assert done.trace.metadata.provenance["import"]["read"] == done.counts["read"]
    assert [path.name for path in folder.glob("out.parquet*")] == ["out.parquet"]
    return done


def survives(kind: str, data: bytes, folder: Path, **options: Any) -> dict[str, Any] | None:
    """Import what may be rubbish: a refusal in words that leaves no file, or a valid trace; returns its counts."""
    counts, said = None, ""
    try:
        counts = do(kind, data, folder, **options).counts
    except (TraceError, UsageError) as error:
        said = str(error)
    assert (counts is None) == bool(said)
    assert counts is not None or not list(folder.glob("out.parquet*"))
    return counts
