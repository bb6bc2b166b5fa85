"""Slices, samples, merges and scales against plain lists of events, and what they say of themselves."""

from __future__ import annotations

import dataclasses
import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay.errors import TraceError, UsageError
from replay.migration import scale as replayed
from replay.reshaping import history, sizes, streams
from replay.reshaping.cut import slice_trace
from replay.reshaping.join import merge_traces
from replay.reshaping.ranges import Cut
from replay.reshaping.scale import scale_trace
from replay.reshaping.thin import sample_trace
from replay.trace.events import Events, origin_source
from replay.trace.operations import validate
from replay.trace.reader import Trace, open_trace
from replay.trace.schema import PageRun, RamBlock, TraceMetadata
from replay.trace.writer import write_trace

PAGES, DURATION = 200, 1000
EventList = list[tuple[int, int, int]]

slow_ok = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
lists = st.lists(
    st.tuples(st.integers(0, DURATION), st.integers(0, PAGES - 1), st.integers(0, 2)), min_size=1, max_size=120
).map(sorted)


def metadata(**changes: Any) -> TraceMetadata:
    values: dict[str, Any] = {
        "title": "a test", "guest": "none", "workload": "none", "memory_bytes": PAGES * 4096, "n_vcpus": 3,
        "ram_blocks": (RamBlock("low", 0, 120), RamBlock("high", 120, 80)), "duration_ns": DURATION, "clock": "virtual",
        "capture": "made up", "limits": "none", "licence": "CC0-1.0", "rearm_times_ns": (0, 300, 600),
        "page_classes": (PageRun(0, 50, "data"), PageRun(50, 150, "zero")), "page_classes_at_ns": 0,
        "provenance": {"made_by": "tests", "made_from": "nothing", "made_at": "2026-01-01", "tool": "pytest"},
    }  # fmt: skip
    return TraceMetadata(**(values | changes))


def made(path: Path, events: EventList, **changes: Any) -> Trace:
    t_ns, page, vcpu = ([event[i] for event in events] for i in range(3))
    write_trace(path, metadata(**changes), t_ns, page, vcpu)
    return open_trace(path)


def events_of(trace: Trace) -> EventList:
    t_ns, page, origin = trace.decode()
    assert not origin_source(origin).any()
    return list(zip(t_ns.tolist(), page.tolist(), origin.tolist(), strict=True))


def zero_of(trace: Trace) -> list[bool]:
    bits = np.unpackbits(trace.zero_pages().view(np.uint8), bitorder="little")[: trace.metadata.n_pages]
    return bits.astype(bool).tolist()


@slow_ok
@given(
    events=lists, span=st.tuples(st.integers(0, DURATION - 1), st.integers(1, DURATION)), pages=st.booleans(),
    keep=st.tuples(st.booleans(), st.booleans()), window=st.sampled_from([3, 1 << 19]),
)  # fmt: skip
def test_slices(
    tmp_path: Path, monkeypatch: Any, events: EventList, span: tuple[int, int], pages: bool, keep: Any, window: int
) -> None:
    begin, end = span[0], min(DURATION, span[0] + span[1])
    ranges = [(150, 180), (10, 60)] if pages else None
    number = {page: i for i, page in enumerate([*range(10, 60), *range(150, 180)])} if pages else {}
    inside = [
        (t, p, v) for t, p, v in events if begin <= t and (t < end or end == DURATION) and (not pages or p in number)
    ]
    trace = made(tmp_path / "in.parquet", events)
    monkeypatch.setattr("replay.reshaping.cut.WINDOW_EVENTS", window)
    out = tmp_path / "out.parquet"
    out.unlink(missing_ok=True)

    def cut() -> Trace:
        return slice_trace(trace, out, from_ns=begin, to_ns=end, pages=ranges, keep_times=keep[0], keep_pages=keep[1])

    if not inside:
        with pytest.raises(UsageError, match="no event in this slice"):
            cut()
        assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]
        return
    got = cut()
    shift = 0 if keep[0] else begin
    assert events_of(got) == [(t - shift, p if keep[1] or not pages else number[p], v) for t, p, v in inside]
    assert validate(out) == []
    meta = got.metadata
    assert meta.duration_ns == end - shift
    assert meta.rearm_times_ns == tuple(t - shift for t in (0, 300, 600) if begin <= t <= end)
    assert meta.n_pages == (80 if pages and not keep[1] else PAGES)
    written_before = {p for t, p, _ in events if t < begin}
    zero = [p >= 50 and p not in written_before for p in range(PAGES)]
    assert zero_of(got) == ([zero[p] for p in number] if pages and not keep[1] else zero)


def test_blocks_of_a_slice() -> None:
    cut = Cut(((10, 60), (100, 140)))
    blocks = cut.blocks((RamBlock("low", 0, 120), RamBlock("high", 120, 80)))
    assert blocks == (RamBlock("low#0", 0, 50), RamBlock("low#1", 50, 20), RamBlock("high", 70, 20))


def test_a_slice_says_what_it_lacks(tmp_path: Path) -> None:
    trace = made(tmp_path / "in.parquet", [(5, 60, 0), (350, 1, 0), (700, 2, 1)], migration_start_ns=200)
    got = slice_trace(trace, tmp_path / "a.parquet", from_ns=100, to_ns=800)
    assert (
        "up to t = 200 ns pages that were written since the re-arm before the slice are missing" in got.metadata.limits
    )
    assert (got.metadata.rearm_times_ns, got.metadata.rearm_gap_ns) == ((200, 500), 300)
    assert got.metadata.migration_start_ns == 100
    late = slice_trace(trace, tmp_path / "b.parquet", from_ns=300)
    assert late.metadata.migration_start_ns is None
    assert "sliced" not in late.metadata.limits, "it begins at a re-arm: nothing is missing"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"from_ns": 1000}, "not a part of a recording of 1"),
        ({"to_ns": 1001}, "not a part"),
        ({"from_ns": 500, "to_ns": 500}, "not a part"),
        ({"from_ns": -1}, "not a part"),
        ({}, "say what to keep"),
        ({"pages": [(0, 50), (49, 60)]}, "0-50 and 49-60 overlap"),
        ({"pages": [(5, 5)]}, "not a range"),
        ({"pages": [(0, 201)]}, "not a range of the trace's 200 pages"),
        ({"pages": [(150, 200)]}, "no event in this slice"),
    ],
)
def test_cuts_that_cannot_be(tmp_path: Path, options: Any, told: str) -> None:
    trace = made(tmp_path / "in.parquet", [(0, 1, 0), (900, 2, 1)])
    with pytest.raises(UsageError, match=told):
        slice_trace(trace, tmp_path / "out.parquet", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_the_output_may_not_be_an_input(tmp_path: Path) -> None:
    trace = made(tmp_path / "in.parquet", [(0, 1, 0), (900, 2, 1)])
    before = trace.path.read_bytes()
    (tmp_path / "link.parquet").symlink_to(trace.path)
    for out in (trace.path, tmp_path / "link.parquet"):
        for reshape in (
            lambda out: slice_trace(trace, out, to_ns=5),
            lambda out: sample_trace(trace, out, keep=0.5),
            lambda out: merge_traces([trace, trace], out),
            lambda out: scale_trace(trace, out, speed_up=Fraction(2)),
        ):
            with pytest.raises(UsageError, match="is the input"):
                reshape(out)
    assert trace.path.read_bytes() == before


def test_a_damaged_trace_leaves_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    events = sorted(zip(*(rng.integers(0, n, 5000).tolist() for n in (DURATION, PAGES, 3)), strict=True))
    path = made(tmp_path / "in.parquet", events).path
    data = bytearray(path.read_bytes())
    data[1000:3000] = bytes(2000)
    path.write_bytes(data)
    trace = open_trace(path)
    out = tmp_path / "out.parquet"
    for reshape in (
        lambda: slice_trace(trace, out, from_ns=1),
        lambda: sample_trace(trace, out, keep=0.5, by="events"),
        lambda: merge_traces([trace, trace], out),
        lambda: scale_trace(trace, out, memory_bytes=PAGES * 8192, fit="stretch"),
        lambda: scale_trace(trace, out, memory_bytes=PAGES * 8192, fit="tile"),
    ):
        with pytest.raises(TraceError, match="in.parquet"):
            reshape()
        assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


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


@slow_ok
@given(parts=st.lists(st.lists(st.integers(0, 12), max_size=20).map(sorted), min_size=1, max_size=4), cut=st.data())
def test_streams_are_joined_in_time_and_stream_order(parts: list[list[int]], cut: Any) -> None:
    def stream(index: int, times: list[int]) -> Any:
        row = 0
        while row < len(times):
            size = cut.draw(st.integers(0, 5))
            t = np.array(times[row : row + size], np.uint64)
            yield Events(t, np.arange(row, row + t.size, dtype=np.uint32), np.full(t.size, index, np.uint16))
            row += size

    got = [
        (t, i, r)
        for window in streams.joined([stream(index, times) for index, times in enumerate(parts)])
        for t, r, i in zip(*(column.tolist() for column in window), strict=True)
    ]
    assert got == sorted((t, i, r) for i, times in enumerate(parts) for r, t in enumerate(times))


def test_merged_guests_stand_side_by_side(tmp_path: Path) -> None:
    a = made(tmp_path / "a.parquet", [(0, 1, 0), (500, 199, 2)])
    b = made(tmp_path / "b.parquet", [(0, 1, 1), (400, 0, 0)], duration_ns=700, page_classes=None, licence="MIT")
    got = merge_traces([a, b], tmp_path / "out.parquet")
    assert events_of(got) == [(0, 1, 0), (0, 201, 4), (400, 200, 3), (500, 199, 2)]
    meta = got.metadata
    assert (meta.n_pages, meta.n_vcpus, meta.duration_ns) == (400, 6, 1000)
    assert [block.name for block in meta.ram_blocks] == ["1/low", "1/high", "2/low", "2/high"]
    assert zero_of(got) == zero_of(a) + [False] * 200
    assert "recording 2 is quiet from 0.000 s on" in meta.limits
    assert meta.licence == "CC0-1.0 AND MIT"
    assert validate(got.path) == []


def test_merged_vcpus_share_their_memory(tmp_path: Path) -> None:
    a, b = (made(tmp_path / f"{n}.parquet", [(5, 1, v), (9, 7, 0)]) for n, v in (("a", 0), ("b", 1)))
    got = merge_traces([a, b], tmp_path / "out.parquet", of="vcpus")
    assert events_of(got) == [(5, 1, 0), (5, 1, 4), (9, 7, 0), (9, 7, 3)]
    assert (got.metadata.n_pages, got.metadata.n_vcpus) == (PAGES, 6)
    assert got.metadata.rearm_times_ns == (0, 300, 600)
    assert zero_of(got) == zero_of(a)


def test_merges_that_cannot_be(tmp_path: Path) -> None:
    a = made(tmp_path / "a.parquet", [(0, 1, 0)])
    other = made(tmp_path / "b.parquet", [(0, 1, 0)], ram_blocks=(RamBlock("ram", 0, PAGES),))
    out = tmp_path / "out.parquet"
    large = dataclasses.replace(metadata(), page_size=8192, memory_bytes=PAGES * 8192)
    eight = Trace.from_arrays([0], [1], metadata=large)
    for traces, of, told in (
        ([a], "guests", "two or more"),
        ([a, other], "vcpus", "RAM blocks of these traces differ"),
        ([a, a], "hosts", "there are: guests, vcpus"),
        ([a, eight], "guests", "pages of 4096, 8192 bytes"),
        ([a] * 2731, "guests", "8193 vCPUs in all"),
    ):
        with pytest.raises(UsageError, match=told):
            merge_traces(traces, out, of=of)
    assert not out.exists()


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


def test_sources_survive(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    write_trace(path, metadata(), [0, 5, 9], [1, 2, 3], [0, 0, 1], ["vcpu", "dma", "vcpu"])
    trace = open_trace(path)
    for got in (
        slice_trace(trace, tmp_path / "a.parquet", from_ns=1),
        scale_trace(trace, tmp_path / "b.parquet", speed_up=Fraction(1, 2)),
        merge_traces([trace, trace], tmp_path / "c.parquet"),
    ):
        assert 2 in origin_source(got.decode().origin)
