"""What a reshaped trace says of where it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from replay.reshaping import history
from replay.reshaping.cut import slice_trace
from replay.reshaping.join import merge_traces
from replay.reshaping.thin import sample_trace
from tests.reshaping.common import DURATION, PAGES, made


def test_the_history_reaches_back_to_the_recording(tmp_path: Path) -> None:
    a = made(tmp_path / "a.parquet", [(t, t % PAGES, 0) for t in range(0, DURATION, 3)])
    b = slice_trace(a, tmp_path / "b.parquet", from_ns=100, to_ns=900)
    c = sample_trace(b, tmp_path / "c.parquet", keep=0.5)
    d = merge_traces([c, a], tmp_path / "d.parquet")
    assert history.steps(a.metadata.provenance) == []
    told = history.steps(d.metadata.provenance)
    assert [step.split()[0] for step in told] == ["[c.parquet]", "[c.parquet]", "merge"]
    assert f"slice from=100ns to=900ns of a.parquet (sha256 {a.digest[:12]})" in told[0]
    assert d.metadata.provenance["source_digest"] == f"sha256 {c.digest}, sha256 {a.digest}"
    first = d.metadata.provenance["sources"][0]["provenance"]["sources"][0]
    assert first["digest"] == f"sha256 {b.digest}"
    assert first["provenance"]["sources"][0]["provenance"] == a.metadata.provenance
    assert d.metadata.provenance["made_at"] == "2026-01-01", "when it was recorded"
    again = sample_trace(b, tmp_path / "again.parquet", keep=0.5)
    assert again.digest == c.digest, "the same operation, the same bytes"


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"operation": 5},
        {"operation": {}, "sources": 5},
        {"operation": {"name": "x"}, "sources": [5, {}]},
        None,
        "x",
    ],
)
def test_a_provenance_of_somebody_else_is_no_history(found: Any) -> None:
    assert len(history.steps(found)) <= 1


def test_a_history_without_end_is_cut() -> None:
    found: dict[str, Any] = {}
    for _ in range(3000):
        found = {"operation": {"name": "slice"}, "sources": [{"name": "x", "digest": "y", "provenance": found}]}
    assert len(history.steps(found)) == history.DEEPEST
