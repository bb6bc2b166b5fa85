"""Which words are not zero and which bits are set: both twins against NumPy, at every size, start and room."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import replay.jit as jit
from replay.jit import U64
from replay.kernels import decode as kernels
from replay.kernels.vector import COMPRESSES
from tests.kernels.naive import DENSITIES, SIZES, random_pages, to_words

ROOT = Path(__file__).resolve().parents[2]
vector = pytest.mark.skipif(not COMPRESSES, reason="this processor has no AVX-512 VBMI2, or nothing is compiled")
DECODERS = [kernels.decode_portable, pytest.param(kernels.decode_by_vector, marks=vector)]
LISTERS = [kernels.list_portable, pytest.param(kernels.list_by_vector, marks=vector)]
SPARE = kernels.SPARE_PAGES
CANARY = 0xDEADBEEF
EXAMPLES, LONGEST = (8, 40) if jit.DISABLED else (60, 400)


def positions(words: np.ndarray, first: int, stop: int) -> list[int]:
    bits = np.unpackbits(words[first:stop].view(np.uint8), bitorder="little")
    return (np.flatnonzero(bits) + 64 * first).tolist()


def decoded(decoder, words: np.ndarray, first: int, stop: int, room: int) -> list[int]:
    """All positions, in as many calls as a buffer of `room` pages makes necessary."""
    listed, found, before = kernels.new_list(), [], -1
    buffer = np.full(room + 8, CANARY, dtype=np.uint32)
    while first < stop:
        assert first > before
        before = first
        count, after = decoder(words, U64(first), U64(stop), listed, buffer[:room])
        found += buffer[: int(count)].tolist()
        first = int(after)
        assert (buffer[room:] == CANARY).all()
        assert first == stop or int(count) > room - SPARE
    return found


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("n_pages", SIZES)
@pytest.mark.parametrize("density", DENSITIES)
def test_positions(decoder, n_pages, density):
    words = to_words(random_pages(n_pages, density), n_pages)
    expected = positions(words, 0, words.size)
    assert decoded(decoder, words, 0, words.size, len(expected) + SPARE) == expected
    assert decoded(decoder, words, 0, words.size, SPARE) == expected


@st.composite
def bitmaps(draw) -> np.ndarray:
    """Words of several kinds, next to one another: empty, full, sparse, dense; longer than a block at times."""
    runs = draw(st.lists(st.tuples(st.sampled_from("efsd"), st.integers(1, LONGEST)), max_size=7))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    kinds = {
        "e": lambda n: np.zeros(n, dtype=np.uint64),
        "f": lambda n: np.full(n, 2**64 - 1, dtype=np.uint64),
        "s": lambda n: (
            np.left_shift(np.uint64(1), random.integers(0, 64, n, dtype=np.uint64))
            * random.integers(0, 2, n, dtype=np.uint64)
        ),
        "d": lambda n: random.integers(0, 2**64, n, dtype=np.uint64),
    }
    parts = [kinds[kind](length) for kind, length in runs]
    return np.concatenate([np.zeros(0, dtype=np.uint64), *parts])


@pytest.mark.parametrize("decoder", DECODERS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(words=bitmaps(), data=st.data())
def test_any_part_of_any_bitmap_from_any_address(decoder, words, data):
    """Words and pages start anywhere in a cache line; every word outside the part is full, which would show."""
    first = data.draw(st.integers(0, words.size))
    stop = data.draw(st.integers(first, words.size))
    shift, room = data.draw(st.integers(0, 7)), SPARE + data.draw(st.integers(0, 200))
    around = np.full(words.size + 16, 2**64 - 1, dtype=np.uint64)
    part = around[shift : shift + words.size]
    part[first:stop] = words[first:stop]
    assert decoded(decoder, part, first, stop, room) == positions(words, first, stop)


@pytest.mark.parametrize("lister", LISTERS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(words=bitmaps(), data=st.data())
def test_words_that_are_not_zero(lister, words, data):
    first = data.draw(st.integers(0, words.size))
    stop = data.draw(st.integers(first, min(words.size, first + kernels.BLOCK)))
    buffer = np.full(kernels.BLOCK + kernels.SPARE_WORDS + 4, CANARY, dtype=np.uint32)
    count = lister(words, U64(first), U64(stop), buffer[:-4])
    assert buffer[: int(count)].tolist() == (np.flatnonzero(words[first:stop]) + first).tolist()
    assert (buffer[-4:] == CANARY).all()


def test_pages_of_the_largest_guest():
    """16 TiB have 2^32 pages: the last one's number fills 32 bits. Only words at the end are looked at."""
    words = np.zeros(1 << 26, dtype=np.uint64)
    words[-1], words[-2] = U64(1 << 63 | 1), U64(1)
    last = U64(words.size)
    pages = np.zeros(SPARE + 3, dtype=np.uint32)
    for decoder in (kernels.decode_portable, kernels.decode):
        assert decoder(words, last - U64(3), last, kernels.new_list(), pages) == (3, last)
        assert pages[:3].tolist() == [2**32 - 128, 2**32 - 64, 2**32 - 1]


@pytest.mark.skipif(jit.DISABLED, reason="nothing is compiled")
def test_the_twin_is_chosen_for_the_processor_that_is_compiled_for(tmp_path):
    """One cache for two processors: each gets the twin that is for it, and both find the same."""
    code = (
        "import numpy as np; from replay.kernels import decode as d; from replay.jit import U64\n"
        "out = np.zeros(99, dtype=np.uint32)\n"
        "print(*d.decode(np.array([5, 1 << 63], dtype=np.uint64), U64(0), U64(2), d.new_list(), out), *out[:3], d.decode is d.decode_portable)"
    )
    answers = []
    for chosen in ({}, {"NUMBA_CPU_NAME": "generic"}):
        environment = os.environ | {"REPLAY_CACHE_DIR": str(tmp_path)} | chosen
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        answers.append(done.stdout.split())
    assert answers[0][:-1] == answers[1][:-1] == ["3", "2", "0", "2", "127"]
    assert answers[0][-1] == str(not COMPRESSES)
    assert answers[1][-1] == "True"
