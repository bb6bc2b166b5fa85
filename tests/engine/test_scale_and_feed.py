"""A recorded guest in more memory, against a plain list of what should happen; and safety of every pair at scale."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import replay
from replay.errors import UsageError
from replay.migration import scale
from replay.plugins import names
from replay.trace.reader import Trace

MIB = 1 << 20


def small_trace(n_pages: int = 300, events: int = 400, seed: int = 2) -> Trace:
    generator = np.random.default_rng(seed)
    t_ns = np.sort(generator.integers(0, 50_000_000, events)).astype(np.uint64)
    zero = generator.random(n_pages) < 0.5
    return Trace.from_arrays(
        t_ns,
        generator.integers(0, n_pages, events).astype(np.uint32),
        generator.integers(0, 2, events),
        memory_bytes=n_pages * 4096,
        n_vcpus=2,
        duration_ns=50_000_000,
        zero=zero,
    )


def bits_of(words: np.ndarray, n_pages: int) -> np.ndarray:
    return np.unpackbits(words.view(np.uint8), bitorder="little")[:n_pages].astype(bool)


def events_of(source: scale.Plain | scale.Tiled, start_ns: int = 0) -> list[tuple[int, int, int]]:
    return [
        event
        for w in source.windows(start_ns)
        for event in zip(w.t_ns.tolist(), w.page.tolist(), w.origin.tolist(), strict=True)
    ]


@pytest.mark.parametrize("rest", ["zero", "data"])
def test_embedding_keeps_the_pages_and_states_the_rest(rest):
    trace = small_trace()
    source = scale.scaled(trace, memory_bytes=1000 * 4096, fit="embed", rest=rest, zero_share=None, seed=1)
    assert source.shape.n_pages == 1000
    assert events_of(source) == list(zip(*(column.tolist() for column in trace.decode()), strict=True))
    zero = bits_of(source.zero_pages(), 1000)
    assert (zero[:300] == bits_of(trace.zero_pages(), 300)).all()
    assert (zero[300:] == (rest == "zero")).all()


def test_tiling_plays_every_copy_from_its_own_phase():
    trace = small_trace()
    source = scale.scaled(trace, memory_bytes=1000 * 4096, fit="tile", rest="data", zero_share=None, seed=7)
    t_ns, page, origin = (column.tolist() for column in trace.decode())
    expected = [
        ((t - phase) % trace.metadata.duration_ns, copy, index, p + copy * 300, v)
        for copy, phase in enumerate(source.phases_ns.tolist())
        for index, (t, p, v) in enumerate(zip(t_ns, page, origin, strict=True))
    ]
    got = events_of(source)
    assert sorted(got) == sorted((t, p, v) for t, _, _, p, v in expected)
    assert [t for t, _, _ in got] == sorted(t for t, _, _ in got)
    assert source.copies == 3
    zero = bits_of(source.zero_pages(), 1000)
    assert (zero[300:600] == bits_of(trace.zero_pages(), 300)).all()
    assert not zero[900:].any()
    assert (
        scale.scaled(trace, memory_bytes=1000 * 4096, fit="tile", rest="data", zero_share=None, seed=8).phases_ns
        != source.phases_ns
    ).any()


def test_small_windows_tile_the_same(monkeypatch):
    def make():
        return scale.scaled(small_trace(), memory_bytes=1000 * 4096, fit="tile", rest="data", zero_share=None, seed=7)

    whole = events_of(make())
    monkeypatch.setattr(scale, "WINDOW_EVENTS", 50)
    assert events_of(make()) == whole
    assert len(list(make().windows(0))) > 10


def test_a_share_of_zero_pages_is_seeded():
    def pick(share: float, seed: int):
        source = scale.scaled(
            small_trace(), memory_bytes=400 * MIB, fit="embed", rest="zero", zero_share=share, seed=seed
        )
        return source.zero_pages()

    quarter = pick(0.25, 1)
    assert (quarter == pick(0.25, 1)).all()
    assert (quarter != pick(0.25, 2)).any()
    assert bits_of(quarter, 102_400).mean() == pytest.approx(0.25, abs=0.01)
    assert not pick(0.0, 1).any()
    assert bits_of(pick(1.0, 1), 102_400).all()


@pytest.mark.parametrize(
    ("memory", "told"),
    [(1 * MIB, "less than the recorded"), (4097, "whole number of pages"), (17 << 40, "more pages than a uint32")],
)
def test_memory_that_does_not_fit(memory, told):
    with pytest.raises(UsageError, match=told):
        scale.scaled(small_trace(), memory_bytes=memory, fit="embed", rest="zero", zero_share=None, seed=1)


def test_other_page_sizes_are_refused():
    meta = small_trace().metadata
    large = dataclasses.replace(meta, page_size=65536, memory_bytes=meta.n_pages * 65536)
    events = small_trace().decode()
    trace = Trace.from_arrays(events.t_ns, events.page, events.origin, metadata=large)
    with pytest.raises(UsageError, match="pages of 65536 bytes"):
        replay.run(trace)


@pytest.mark.parametrize("fit", ["embed", "tile", "stretch"])
@pytest.mark.parametrize("log", names("log"))
@pytest.mark.parametrize("design", names("design"))
def test_threads_do_not_change_a_result(fit, log, design):
    trace = small_trace()
    options = {"log": log, "design": design, "memory": 3 * MIB, "fit": fit, "max_bandwidth": "20MB/s", "give_up": "3s"}

    def rows():
        result = replay.run(trace, **options)
        assert result.lost_pages == 0
        return [{k: v for k, v in row.items() if not k.startswith("measured_")} for row in result.rows]

    alone = rows()
    with ThreadPoolExecutor(4) as pool:
        assert all(other == alone for other in pool.map(lambda _: rows(), range(8)))


def test_the_config_in_a_result_repeats_it():
    trace = small_trace()
    first = replay.run(
        trace, log="kvm-ring:256,pml=off", design="double-ring:64", memory="2M", give_up="2s", zero_share=0.3
    )
    again = replay.run(trace, **{name.replace("-", "_"): value for name, value in first.config.items()})
    assert again.summary == first.summary
    assert again.config == first.config
    assert dataclasses.replace(again, rows=[], provenance={}, guest={}) == dataclasses.replace(
        first, rows=[], provenance={}, guest={}
    )
