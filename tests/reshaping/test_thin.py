"""Samples against plain lists of events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from replay.errors import UsageError
from replay.reshaping.thin import sample_trace
from tests.reshaping.common import DURATION, PAGES, events_of, made


def test_a_sample_of_pages_keeps_each_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    events = sorted(zip(*(rng.integers(0, n, 4000).tolist() for n in (DURATION, PAGES, 3)), strict=True))
    trace = made(tmp_path / "in.parquet", events)
    got = sample_trace(trace, tmp_path / "out.parquet", keep=0.3, seed=4)
    kept = {p for _, p, _ in events_of(got)}
    assert events_of(got) == [event for event in events_of(trace) if event[1] in kept]
    assert 0.2 * PAGES < len(kept) < 0.4 * PAGES
    other = sample_trace(trace, tmp_path / "other.parquet", keep=0.3, seed=5)
    assert {p for _, p, _ in events_of(other)} != kept
    assert got.metadata.memory_bytes == trace.metadata.memory_bytes
    assert "sample of 0.3 of the pages" in got.metadata.limits


def test_a_sample_of_events(tmp_path: Path, monkeypatch: Any) -> None:
    rng = np.random.default_rng(2)
    events = sorted(zip(*(rng.integers(0, n, 4000).tolist() for n in (DURATION, PAGES, 3)), strict=True))
    trace = made(tmp_path / "in.parquet", events)
    got = sample_trace(trace, tmp_path / "out.parquet", keep=0.25, by="events")
    assert got.n_events == pytest.approx(1000, rel=0.1)
    rest = iter(events_of(trace))
    assert all(event in rest for event in events_of(got)), "a subsequence"
    monkeypatch.setattr("replay.reshaping.thin.WINDOW_EVENTS", 7)
    again = sample_trace(trace, tmp_path / "again.parquet", keep=0.25, by="events")
    assert again.digest == got.digest, "whatever the windows"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"keep": 0.0}, "between 0 and 1"),
        ({"keep": 1.0}, "between 0 and 1"),
        ({"keep": 0.5, "by": "vcpus"}, "there are: events, pages"),
        ({"keep": 1e-9}, "no event was left of 2"),
    ],
)
def test_samples_that_cannot_be(tmp_path: Path, options: Any, told: str) -> None:
    trace = made(tmp_path / "in.parquet", [(0, 1, 0), (900, 2, 1)])
    with pytest.raises(UsageError, match=told):
        sample_trace(trace, tmp_path / "out.parquet", **options)
