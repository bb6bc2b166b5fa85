"""Queues against deques, and both ways to walk a bitmap against a sorted set."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.jit import NONE, U64
from replay.kernels import layers, memory, ring
from replay.work import FIND_CALLS, FIND_WORDS, N_COUNTERS, REFIND_CALLS
from tests.kernels.naive import DENSITIES, SIZES, random_pages, to_pages, to_words


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from([1, 2, 8, 64]),
    steps=st.lists(st.integers(0, 400), max_size=200),
    start=st.integers(0, 2**64 - 1),
)
def test_a_queue_is_a_bounded_deque(size, steps, start):
    """Two queues share one array; counters run freely, also over the end of uint64."""
    slots, ends = memory.pages(2 * size), np.full(4, start, dtype=np.uint64)
    twins = [deque(), deque()]
    for step in steps:
        queue, page = step % 2, step
        twin = twins[queue]
        if step % 5 < 3:
            assert ring.push(slots, ends, U64(queue), U64(size), U64(page)) == (len(twin) < size)
            if len(twin) < size:
                twin.append(page)
        elif step % 5 == 3 and twin:
            assert ring.entry(slots, U64(queue), U64(size), ends[2 * queue]) == twin.popleft()
            ring.advance(ends, U64(queue), U64(1))
        elif step % 97 == 4:
            ring.empty(ends, U64(queue))
            twin.clear()
        assert [int(ring.used(ends, U64(q))) for q in (0, 1)] == [len(t) for t in twins]


@pytest.mark.parametrize("n_pages", SIZES)
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("start", [0, 1, 64, 5000])
def test_walking_by_page_and_by_word_is_the_same_walk(n_pages, density, start):
    if n_pages > 5000 and density == 1.0:
        n_pages = 4097 + 64
    pages = random_pages(n_pages, density)
    start = min(start, n_pages)
    expected = sorted(page for page in pages if page >= start) + sorted(page for page in pages if page < start)
    walked, work = {}, {}
    for how in ("page", "word"):
        l3, at = to_words(pages, n_pages), layers.walk(n_pages, True)
        at[layers.CURSOR], at[layers.PENDING] = start, len(pages)
        counts = work[how] = np.zeros(N_COUNTERS, dtype=np.uint64)
        walked[how] = _by_page(l3, at, counts) if how == "page" else _by_word(l3, at, counts)
        assert not to_pages(l3)
        assert at[layers.PENDING] == 0
        assert at[layers.CURSOR] == 0
    assert walked["page"] == walked["word"] == expected
    assert work["page"].tolist() == work["word"].tolist()
    assert work["page"][REFIND_CALLS] == len(pages)
    assert work["page"][FIND_CALLS] >= len(pages) + 2
    n_words = -(-n_pages // 64)
    assert n_words <= work["page"][FIND_WORDS] <= 3 * n_words + len(pages)


def _by_page(l3, at, work):
    found = []
    while (page := layers.pop_around(l3, at, work)) != NONE:
        found.append(int(page))
    return found


def _by_word(l3, at, work):
    """Words in two bites, to test that a part of one may be taken."""
    found = []
    while True:
        word, bits = layers.peek_around(l3, at, work)
        if bits == 0:
            return found
        bits = int(bits)
        low = bits & -bits
        layers.take_word(l3, at, word, U64(low), work)
        if bits != low:
            layers.take_word(l3, at, word, U64(bits ^ low), work)
        found += [int(word) * 64 + bit for bit in range(64) if bits >> bit & 1]
