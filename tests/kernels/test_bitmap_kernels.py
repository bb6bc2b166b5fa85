"""Is the arithmetic right? Every bitmap kernel against its naive twin, over the boundary sizes."""

from __future__ import annotations

import numpy as np
import pytest

from replay.jit import U64
from replay.kernels import bitmap, bits, memory
from tests.kernels.naive import DENSITIES, SIZES, random_pages, to_pages, to_words

WORDS = [0, 1, 2, 3, 1 << 63, (1 << 63) | 1, (1 << 64) - 1, 0xF0F0, 0x8000_0000_0000_0001, 0x0123_4567_89AB_CDEF]


@pytest.mark.parametrize("word", WORDS)
def test_words(word):
    ones = [bit for bit in range(64) if word >> bit & 1]
    assert bits.popcount(U64(word)) == len(ones)
    assert bits.highest_plus_one(U64(word)) == (ones[-1] + 1 if ones else 0)
    if ones:
        assert bits.lowest(U64(word)) == ones[0]
        assert bits.popcount_below(U64(1 << ones[0])) == ones[0]


@pytest.mark.parametrize("n_pages", SIZES)
@pytest.mark.parametrize("density", DENSITIES)
def test_find_next_from_every_interesting_offset(n_pages, density):
    pages = random_pages(n_pages, density)
    words = to_words(pages, n_pages)
    offsets = (
        {0, 1, 62, 63, 64, 65, n_pages - 1, n_pages, n_pages + 1}
        | set(list(pages)[:20])
        | {page + 1 for page in list(pages)[:20]}
    )
    for offset in offsets:
        expected = min((page for page in pages if page >= offset), default=n_pages)
        assert bitmap.find_next(words, U64(n_pages), U64(offset)) == (expected if offset < n_pages else n_pages)


@pytest.mark.parametrize("n_pages", SIZES)
@pytest.mark.parametrize("density", DENSITIES)
def test_next_touched(n_pages, density):
    pages = random_pages(n_pages, density)
    words = to_words(pages, n_pages)
    stop = -(-n_pages // 64)
    touched = {page // 64 for page in pages}
    for index in range(0, stop + 1, max(1, stop // 17)):
        expected = min((word for word in touched if word >= index), default=stop)
        assert bitmap.next_touched(words, U64(index), U64(stop)) == expected


@pytest.mark.parametrize("n_pages", SIZES)
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("target_density", [0.0, 0.3, 1.0])
def test_merge_and_fold(n_pages, density, target_density):
    source, target = random_pages(n_pages, density), random_pages(n_pages, target_density, seed=1)
    n_words = U64(-(-n_pages // 64))
    touched = len({page // 64 for page in source})
    left, right = to_words(source, n_pages), to_words(target, n_pages)
    assert tuple(bitmap.merge(left, right, n_words)) == (touched, len(source), len(source - target))
    assert not left.any()
    assert to_pages(right) == source | target
    for keep in (True, False):
        left, right = to_words(source, n_pages), to_words(target, n_pages)
        assert tuple(bitmap.fold(left, right, n_words, keep)) == (touched, len(source))
        assert to_pages(left) == (source if keep else set())
        assert to_pages(right) == source | target


@pytest.mark.parametrize("n_pages", SIZES)
def test_single_bits_and_counts(n_pages):
    pages = random_pages(n_pages, 0.4)
    words = to_words(pages, n_pages)
    assert bitmap.count_set(words) == len(pages)
    for page in range(0, n_pages, max(1, n_pages // 50)):
        assert bitmap.test_and_set(words, U64(page)) == (page in pages)
        assert bitmap.test_and_clear(words, U64(page))
        assert not bitmap.test_and_clear(words, U64(page))
        pages.discard(page)
    assert to_pages(words) == pages


@pytest.mark.parametrize("n_pages", SIZES)
def test_memory_is_what_it_says(n_pages):
    n_words = max(8, -(-n_pages // 512) * 8)
    assert to_pages(memory.ones_up_to(n_pages, n_words)) == set(range(n_pages))
    assert memory.words(5, 7).tolist() == [7] * 5
    assert memory.words(3).dtype == np.uint64
