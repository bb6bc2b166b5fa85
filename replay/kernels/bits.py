"""Arithmetic on one 64-bit word.

Written as plain integer operations: LLVM recognises the popcount idiom and emits POPCNT (VPOPCNTQ in loops), and the
same source runs as Python under NUMBA_DISABLE_JIT=1. Counting trailing zeros is the popcount of the mask below the
lowest set bit.
"""

from __future__ import annotations

from typing import Any

from replay.jit import DISABLED, U1, U64, kernel

_M1, _M2, _M4, _H01 = (
    U64(0x5555555555555555), U64(0x3333333333333333), U64(0x0F0F0F0F0F0F0F0F), U64(0x0101010101010101),
)  # fmt: skip
_S2, _S4, _S56 = U64(2), U64(4), U64(56)


@kernel
def popcount(x: Any) -> Any:
    """Number of set bits of a uint64."""
    x = x - ((x >> U1) & _M1)
    x = (x & _M2) + ((x >> _S2) & _M2)
    x = (x + (x >> _S4)) & _M4
    return (x * _H01) >> _S56


@kernel
def popcount_below(low: Any) -> Any:
    """Index of the only set bit of `low` (a power of two)."""
    return popcount(low - U1)


@kernel
def lowest(x: Any) -> Any:
    """Index of the lowest set bit of a uint64 that is not zero."""
    return popcount(~x & (x - U1))


@kernel
def highest_plus_one(x: Any) -> Any:
    """One more than the index of the highest set bit; 0 for 0."""
    x |= x >> U1
    x |= x >> _S2
    x |= x >> _S4
    x |= x >> U64(8)
    x |= x >> U64(16)
    x |= x >> U64(32)
    return popcount(x)


if DISABLED:  # Python's own big integers are exact and fast enough; keep NumPy's scalar type for the callers

    def popcount(x: Any) -> Any:
        """Number of set bits of a uint64."""
        return U64(int(x).bit_count())
