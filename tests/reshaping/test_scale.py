"""Other speeds and other memory sizes, against plain lists of events and against the replay."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.errors import UsageError
from replay.migration import scale as replayed
from replay.reshaping import sizes
from replay.reshaping.scale import scale_trace
from replay.trace.operations import validate
from tests.reshaping.common import DURATION, PAGES, EventList, events_of, lists, made, slow_ok, zero_of


@slow_ok
@given(events=lists, factor=st.fractions(Fraction(1, 50), 50, max_denominator=60))
def test_guest_time(tmp_path: Path, events: EventList, factor: Fraction) -> None:
    trace = made(tmp_path / "in.parquet", events)
    got = scale_trace(trace, tmp_path / "out.parquet", speed_up=factor)
    assert events_of(got) == [(int(t / factor), p, v) for t, p, v in events]
    assert got.metadata.duration_ns == int(DURATION / factor)
    assert got.metadata.rearm_times_ns == tuple(int(t / factor) for t in (0, 300, 600))
    assert validate(got.path) == []


@pytest.mark.parametrize("fit", sizes.FITS)
@pytest.mark.parametrize("n_pages", [200, 201, 263, 640, 1000])
@pytest.mark.parametrize("rest", ["zero", "data"])
@pytest.mark.parametrize("window", [64, 1 << 20])
def test_a_resized_file_replays_as_the_replay_resizes_it(
    tmp_path: Path, monkeypatch: Any, fit: str, n_pages: int, rest: str, window: int
) -> None:
    """`replay trace scale` and `replay run --memory --fit` are one formulation: same events, same zero pages."""
    rng = np.random.default_rng(n_pages)
    events = sorted(zip(*(rng.integers(0, n, 600).tolist() for n in (DURATION, 90, 3)), strict=True))
    events = [(t, p + 3 if p < 40 else p + 105, v) for t, p, v in events]
    trace = made(tmp_path / "in.parquet", events)
    for name in ("TOTAL_WINDOW_EVENTS", "LEAST_WINDOW_EVENTS"):
        monkeypatch.setattr(f"replay.reshaping.scale.{name}", window)
    got = scale_trace(trace, tmp_path / "out.parquet", memory_bytes=n_pages * 4096, fit=fit, rest=rest, seed=3)
    source = replayed.scaled(trace, memory_bytes=n_pages * 4096, fit=fit, rest=rest, zero_share=None, seed=3)
    expected = [
        event
        for w in source.windows(0)
        for event in zip(w.t_ns.tolist(), w.page.tolist(), w.origin.tolist(), strict=True)
    ]
    assert events_of(got) == expected
    bits = np.unpackbits(source.zero_pages().view(np.uint8), bitorder="little")
    assert zero_of(got) == bits[:n_pages].astype(bool).tolist()
    assert not bits[n_pages:].any()
    assert validate(got.path) == []
    assert got.metadata.n_pages == n_pages


@settings(max_examples=150, deadline=None)
@given(written=st.sets(st.integers(0, PAGES - 1), min_size=1) | st.just(set(range(PAGES))), n_pages=st.integers(1, 900))
def test_a_stretch_keeps_extents_whole_and_apart(written: set[int], n_pages: int) -> None:
    pages = np.array(sorted(written))
    if len(written) > n_pages:
        with pytest.raises(UsageError, match="that the recorded guest wrote"):
            sizes.Stretch(pages, PAGES, n_pages, 4096)
        return
    stretch = sizes.Stretch(pages, PAGES, n_pages, 4096)
    placed = stretch.place(pages).tolist()
    assert all(a < b for a, b in itertools.pairwise(placed))
    assert placed[0] >= 0
    assert placed[-1] < n_pages
    steps = list(zip(np.diff(pages).tolist(), np.diff(placed).tolist(), strict=True))
    assert all(new == 1 for old, new in steps if old == 1), "extents stay whole"
    gaps = sum(old > 1 for old, _ in steps) + (pages[0] > 0) + (pages[-1] < PAGES - 1)
    if n_pages - len(written) >= gaps:
        assert all(new > 1 for old, new in steps if old > 1), "and apart"
    assert n_pages < PAGES or all(new >= old for old, new in steps), "a larger guest has no smaller gap"
    assert stretch.edges(pages).tolist() == placed
    edges = stretch.edges(np.arange(PAGES)).tolist()
    assert edges == sorted(edges)


def test_stretched_zero_pages_by_hand() -> None:
    own = sizes.packed(np.array([0, 1, 1, 0, 0, 1], np.uint8))  # pages 3 and 4 are written
    larger = sizes.Stretch(np.array([3, 4]), 6, 10, 4096)
    assert larger.place(np.array([3, 4])).tolist() == [7, 8]
    assert flags(larger.zero_bits(own, True), 10) == [0, 1, 1, 1, 1, 1, 1, 0, 0, 1]
    assert flags(larger.zero_bits(own, False), 10) == [0, 1, 1, 0, 0, 0, 0, 0, 0, 1]
    smaller = sizes.Stretch(np.array([3, 4]), 6, 4, 4096)
    assert flags(smaller.zero_bits(own, True), 4) == [0, 0, 0, 1]


def flags(bits: Any, n: int) -> list[int]:
    return np.unpackbits(bits.view(np.uint8), bitorder="little")[:n].tolist()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "say what to scale"),
        ({"speed_up": Fraction(10**7)}, "within a million times"),
        ({"speed_up": Fraction(10**5)}, "cannot be made 100000 times as fast"),
        ({"memory_bytes": 4097}, "whole number of pages"),
        ({"memory_bytes": 17 << 40}, "more pages than a uint32"),
        ({"memory_bytes": 4096}, "less than the recorded"),
        ({"memory_bytes": 4096, "fit": "tile"}, "less than one copy"),
        ({"memory_bytes": 4096, "fit": "stretch"}, "that the recorded guest wrote"),
        ({"memory_bytes": 1 << 32, "fit": "tile"}, "copies of the recorded guest are more than"),
        ({"memory_bytes": 1 << 20, "fit": "strech"}, "Did you mean 'stretch'"),
        ({"memory_bytes": 1 << 20, "rest": "ones"}, "there are: data, zero"),
    ],
)
def test_scales_that_cannot_be(tmp_path: Path, options: Any, told: str) -> None:
    trace = made(tmp_path / "in.parquet", [(0, 1, 0), (900, 2, 1)])
    with pytest.raises(UsageError, match=told):
        scale_trace(trace, tmp_path / "out.parquet", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]
