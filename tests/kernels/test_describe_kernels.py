"""The kernels that describe traces, against twins of lists and sets."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.describing.reuse import Reuse, bucket_edges
from replay.kernels import describe

U = np.uint64


def naive_distances(pages: list[int]) -> tuple[list[int], int]:
    stack: list[int] = []
    found = []
    for page in pages:
        if page in stack:
            found.append(stack[::-1].index(page))
            stack.remove(page)
        stack.append(page)
    return found, len(stack)


def naive_extents(pages: set[int]) -> Counter[int]:
    lengths: Counter[int] = Counter()
    for page in sorted(pages):
        if page - 1 not in pages:
            length = 1
            while page + length in pages:
                length += 1
            lengths[length] += 1
    return lengths


def naive_runs(pages: list[int], vcpus: list[int]) -> tuple[Counter[int], dict[int, int]]:
    under_way: dict[int, tuple[int, int]] = {}
    lengths: Counter[int] = Counter()
    for page, vcpu in zip(pages, vcpus, strict=True):
        last, length = under_way.get(vcpu, (None, 0))
        if last == page:
            continue
        if last is not None and page != last + 1:
            lengths[length] += 1
            length = 0
        under_way[vcpu] = (page, length + 1)
    return lengths, {vcpu: length for vcpu, (_, length) in under_way.items()}


@pytest.mark.parametrize("x", [0, 1, 2, 3, 4, 5, 7, 8, 9, 100, 4095, 4096, 4097, 2**40 + 5, 2**63, 2**64 - 1])
def test_a_bucket_holds_its_number(x: int) -> None:
    at = int(describe.bucket(U(x)))
    low, high = bucket_edges()[at]
    assert low <= x < high
    assert 0 <= at < describe.BUCKETS


def test_buckets_leave_no_gap() -> None:
    edges = bucket_edges()
    assert all(a[1] == b[0] for a, b in itertools.pairwise(edges))
    assert (edges[0][0], edges[-1][1]) == (0, 2**64)


@settings(max_examples=80, deadline=None)
@given(
    pages=st.lists(st.integers(0, 40), min_size=1, max_size=400),
    spread=st.sampled_from([1, 37, 1000]),
    cut=st.integers(1, 50),
    capacity=st.sampled_from([512, 1024]),
)
def test_reuse_distances_whatever_the_cut_and_however_often_compacted(
    pages: list[int], spread: int, cut: int, capacity: int
) -> None:
    pages = [page * spread for page in pages] * 3
    told = Reuse(41_000, capacity)
    t_ns = np.cumsum(np.arange(len(pages)) % 7).astype(U)
    for row in range(0, len(pages), cut):
        told.add(t_ns[row : row + cut], np.array(pages[row : row + cut], np.uint32))
    expected, distinct = naive_distances(pages)
    assert told.first_writes == distinct
    assert told.distances.tolist() == histogram(expected)
    last: dict[int, int] = {}
    times = []
    for t, page in zip(t_ns.tolist(), pages, strict=True):
        times += [t - last[page]] if page in last else []
        last[page] = t
    assert told.times.tolist() == histogram(times)
    assert told.popularity().tolist() == sorted(Counter(pages).values(), reverse=True)


def histogram(values: list[int]) -> list[int]:
    counts = [0] * describe.BUCKETS
    for value in values:
        counts[next(i for i, (low, high) in enumerate(bucket_edges()) if low <= value < high)] += 1
    return counts


def test_a_batch_that_fills_the_line_exactly() -> None:
    told = Reuse(4096, 512)
    for _ in range(4):
        told.add(np.arange(256, dtype=U), np.arange(256, dtype=np.uint32))
    assert told.distances.tolist() == histogram([255] * 768)


def test_a_line_that_is_too_short_grows() -> None:
    rng = np.random.default_rng(3)
    pages = np.concatenate([rng.permutation(3000), rng.integers(0, 3000, 3000)]).astype(np.uint32)
    told = Reuse(4096, 512)
    told.add(np.arange(pages.size, dtype=U), pages)
    expected, _ = naive_distances(pages.tolist())
    assert told.distances.tolist() == histogram(expected)


@settings(max_examples=80, deadline=None)
@given(pages=st.sets(st.integers(0, 1023) | st.integers(60, 70) | st.integers(0, 511)), full=st.booleans())
def test_extents(pages: set[int], full: bool) -> None:
    pages |= set(range(128, 700)) if full else set()
    words, counts = np.zeros(16, U), np.zeros(65, U)
    given_pages = np.array([*pages, *pages], np.uint32)
    assert int(describe.mark_pages(given_pages, 0, given_pages.size, words)) == len(pages)
    expected = naive_extents(pages)
    assert int(describe.take_extents(words, counts)) == sum(expected.values())
    clipped: Counter[int] = Counter()
    for length, count in expected.items():
        clipped[min(length, 64)] += count
    assert {length: int(count) for length, count in enumerate(counts) if count} == dict(clipped)
    assert not words.any()


@settings(max_examples=80, deadline=None)
@given(
    events=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2)), min_size=1, max_size=200), cut=st.integers(1, 30)
)
def test_runs(events: list[tuple[int, int]], cut: int) -> None:
    pages, vcpus = ([event[i] for event in events] for i in (0, 1))
    last, length, counts = np.full(3, -1, np.int64), np.zeros(3, U), np.zeros(5, U)
    for row in range(0, len(pages), cut):
        part = slice(row, row + cut)
        describe.count_runs(np.array(pages[part], np.uint32), np.array(vcpus[part], np.uint16), last, length, counts)
    finished, under_way = naive_runs(pages, vcpus)
    clipped: Counter[int] = Counter()
    for run, count in finished.items():
        clipped[min(run, 4)] += count
    assert {run: int(count) for run, count in enumerate(counts) if count} == dict(clipped)
    assert {vcpu: int(run) for vcpu, run in enumerate(length) if last[vcpu] >= 0} == under_way


@settings(max_examples=60, deadline=None)
@given(
    events=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 50)), min_size=1, max_size=100),
    place=st.tuples(st.integers(0, 40), st.integers(1, 60), st.integers(0, 30), st.integers(1, 40)),
    shape=st.tuples(st.integers(1, 7), st.integers(1, 9)),
)
def test_cells(events: Any, place: tuple[int, int, int, int], shape: tuple[int, int]) -> None:
    begin, span, low, pages = place
    cells = np.zeros(shape, U)
    t_ns, page = (np.array([event[i] for event in events]) for i in (0, 1))
    inside = describe.count_cells(t_ns.astype(U), page.astype(np.uint32), U(begin), U(span), U(low), U(pages), cells)
    expected = np.zeros(shape, int)
    for t, number in events:
        if begin <= t < begin + span and low <= number < low + pages:
            expected[(number - low) * shape[0] // pages, (t - begin) * shape[1] // span] += 1
    assert (cells == expected).all()
    assert int(inside) == expected.sum()
