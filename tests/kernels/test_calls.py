"""Ways to call kernels, and vectors: compiled or not, they do what plain Python does."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import pytest

import replay.jit as jit
from replay.jit import U0, U1, U64, Calls, call_apart, dot4, inlined, kernel
from replay.verbs import Meter, price_sending, spent_sending_ps
from replay.work import N_COUNTERS, N_SEND

compiled_only = pytest.mark.skipif(jit.DISABLED, reason="there is no machine code under NUMBA_DISABLE_JIT")


class Place(NamedTuple):
    used: np.ndarray
    spare: np.ndarray


@inlined
def bump(place: Place, by: Any) -> bool:
    place.used[0] += by
    return place.used[0] > U64(10)


@kernel
def bump_apart(place: Place, times: int) -> Any:
    large = U0
    for _ in range(times):
        if call_apart(bump, (place, U64(3))):
            large += U1
    return large


@kernel
def products(left: np.ndarray, right: np.ndarray, index: Any) -> Any:
    return dot4(left, right, index)


@kernel
def total(words: np.ndarray) -> Any:
    found = words[0] - words[0]
    for index in range(words.size):
        found += words[index]
    return found


def test_a_call_apart_does_the_same():
    place = Place(np.zeros(1, dtype=np.uint64), np.zeros(1, dtype=np.uint64))
    assert int(bump_apart(place, 6)) == 3
    assert place.used[0] == 18


@compiled_only
def test_a_call_apart_passes_what_is_used_only():
    place = Place(np.zeros(1, dtype=np.uint64), np.zeros(1, dtype=np.uint64))
    fresh = jit.numba.njit(**jit.OPTIONS)(bump_apart.py_func)
    fresh(place, 6)
    (text,) = fresh.inspect_llvm().values()
    (definition,) = re.findall(r"define internal.*apart.*", text)
    assert 1 <= definition.count("%") <= 4  # of two arrays of seven words each, and a number


@pytest.mark.parametrize("index", [0, 1, 3, 6])
def test_four_products(index):
    draw = np.random.default_rng(index)
    left, right = draw.integers(0, 1 << 64, (2, 10), dtype=np.uint64)
    expected = sum(int(a) * int(b) for a, b in zip(left[index : index + 4], right[index : index + 4], strict=True))
    assert int(products(left, right, U64(index))) == expected % (1 << 64)


def test_the_price_of_sending_is_that_of_all_its_counters():
    draw = np.random.default_rng(5)
    work, price = draw.integers(0, 1 << 30, (2, N_COUNTERS)).astype(np.uint64)
    expected = sum(int(a) * int(b) for a, b in zip(work[:N_SEND], price[:N_SEND], strict=True))
    assert int(price_sending(work, price)) == int(spent_sending_ps(Meter(work, price))) == expected
    for index in range(N_SEND):
        one = np.zeros(N_COUNTERS, dtype=np.uint64)
        one[index] = 1
        assert price_sending(one, price) == price[index]


def test_calls_look_types_up_again_when_told():
    call = Calls()
    assert [int(call(total, np.arange(n, dtype=np.uint64))) for n in (3, 5)] == [3, 10]
    call.forget()
    assert float(call(total, np.array([0.5, 0.25]))) == 0.75
