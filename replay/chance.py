"""Reproducible chance for generated guests: a draw is a function of the seed, a purpose and the number of the event.

Nothing is drawn in sequence, so that any span of time can be generated on its own and cutting it into windows changes
nothing. Draws are SplitMix64 (Steele, Lea, Flood 2014; finaliser of Stafford): integer arithmetic only. What needs
logarithms uses `log` and `exp` below, made of IEEE additions, multiplications and divisions, which round the same way
on every machine; a mathematical library's do not.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

NS_PER_S = 1_000_000_000
_U = np.uint64
_GAMMA = _U(0x9E37_79B9_7F4A_7C15)
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # their sum is ln 2 to 2^-100
_LOG_TERMS, _EXP_TERMS = 11, 14


class Guest(NamedTuple):
    """The guest that a workload writes to: pages and vCPUs are numbered from 0."""

    n_pages: int
    n_vcpus: int


def ticks(rate: int, seed: int, begin_ns: int, end_ns: int) -> tuple[Array, Array]:
    """Numbers and times (uint64) of the events of a clock of `rate` events a second within [begin_ns, end_ns).

    Event n falls somewhere into [n, n + 1) / rate seconds, so that every second holds exactly `rate` of them and times
    never decrease.
    """
    first, last = begin_ns * rate // NS_PER_S, -(-end_ns * rate // NS_PER_S)
    number = np.arange(first, last, dtype=np.uint64)
    second, within = number // _U(rate), number % _U(rate)
    jitter_ns = below(seed, "time", number, NS_PER_S)
    t_ns = second * _U(NS_PER_S) + (within * _U(NS_PER_S) + jitter_ns) // _U(rate)
    low, high = np.searchsorted(t_ns, np.array([begin_ns, end_ns], dtype=np.uint64)).tolist()
    return number[low:high], t_ns[low:high]


def words(seed: int, purpose: str, number: Array) -> Array:
    """One 64-bit draw for each number; draws of different purposes are independent."""
    key = int.from_bytes(hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=8).digest(), "little")
    z = (number + _U(1)) * _GAMMA + _U(key)
    z = (z ^ (z >> _U(30))) * _U(0xBF58_476D_1CE4_E5B9)
    z = (z ^ (z >> _U(27))) * _U(0x94D0_49BB_1331_11EB)
    drawn: Array = z ^ (z >> _U(31))
    return drawn


def below(seed: int, purpose: str, number: Array, bound: int) -> Array:
    """Draws from 0 to bound - 1 (uint64); bound is at most 2^32."""
    return ((words(seed, purpose, number) >> _U(32)) * _U(bound)) >> _U(32)


def shares(seed: int, purpose: str, number: Array) -> Array:
    """Draws from [0, 1) (float64, 53 bits)."""
    return (words(seed, purpose, number) >> _U(11)) * 2.0**-53


def scattered(seed: int, purpose: str, rank: Array, n: int) -> Array:
    """A seeded permutation of 0..n-1: ranks next to one another lie far apart."""
    key = words(seed, purpose, np.arange(2, dtype=np.uint64)).tolist()
    factor = key[0] % n | 1
    while math.gcd(factor, n) != 1:
        factor += 1
    return (rank * _U(factor % n) + _U(key[1] % n)) % _U(n)


def log(x: Array) -> Array:
    """Natural logarithm of positive numbers, the same bits on every machine."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < 0.7071067811865476
    mantissa, exponent = np.where(low, mantissa * 2, mantissa), exponent - low
    z = (mantissa - 1) / (mantissa + 1)
    square, total = z * z, np.zeros_like(z)
    for term in range(_LOG_TERMS, -1, -1):
        total = total * square + 1.0 / (2 * term + 1)
    return exponent * _LN2_HIGH + (2 * z * total + exponent * _LN2_LOW)


def exp(x: Array) -> Array:
    """e to the x for moderate x, the same bits on every machine."""
    whole = np.rint(x / (_LN2_HIGH + _LN2_LOW))
    rest = (x - whole * _LN2_HIGH) - whole * _LN2_LOW
    total = np.ones_like(rest)
    for term in range(_EXP_TERMS, 0, -1):
        total = 1.0 + total * rest / term
    return np.ldexp(total, whole.astype(np.int64))
