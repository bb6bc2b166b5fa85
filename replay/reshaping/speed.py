"""Guest time made faster or slower: what is written in which order stays, when it is written is divided by a factor.

Everything that took the guest `factor` seconds takes it one. It is not how a faster guest would have behaved: a timer
would still have fired every four milliseconds.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from replay.errors import UsageError
from replay.trace.events import Array
from replay.trace.schema import TraceMetadata

_U = np.uint64


def simple(factor: Fraction) -> Fraction:
    """A factor that times can be divided by in 64-bit integers. Raises UsageError for an absurd one."""
    near = factor.limit_denominator(1_000_000)
    if not Fraction(1, 1_000_000) <= near <= 1_000_000:
        raise UsageError(f"guest time cannot run {float(factor):g} times as fast; stay within a million times")
    return near


def slowed(t_ns: Array, factor: Fraction) -> Array:
    """floor(t_ns / factor), exactly."""
    whole, rest = np.divmod(t_ns, _U(factor.numerator))
    return whole * _U(factor.denominator) + rest * _U(factor.denominator) // _U(factor.numerator)


def changes(meta: TraceMetadata, factor: Fraction) -> dict[str, Any]:
    """The fields of metadata that hold times, at `factor` times the speed. Raises UsageError where one overflows."""

    def at(t_ns: int) -> int:
        return int(t_ns / factor)

    duration = at(meta.duration_ns)
    if not 0 < duration < 1 << 63:
        raise UsageError(f"a recording of {meta.duration_ns / 1e9:g} s cannot be made {float(factor):g} times as fast")
    gap, rearms = meta.rearm_gap_ns, meta.rearm_times_ns
    return {
        "duration_ns": duration,
        "rearm_times_ns": None if rearms is None else tuple(at(t) for t in rearms),
        "rearm_gap_ns": None if gap is None else max(1, -int(-gap // factor)),
        "page_classes_at_ns": at(meta.page_classes_at_ns),
        "migration_start_ns": None if meta.migration_start_ns is None else at(meta.migration_start_ns),
    }
