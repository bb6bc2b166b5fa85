"""Periodicity of a rate: the lag at which a series of event counts resembles itself most.

The autocorrelation of the counts, with their straight trend removed, by the fast Fourier transform. A period is a local
maximum of at least STRENGTH behind a dip to less than half of it, at a lag of at least SHORTEST bins and at most a
third of the series, so that three periods were seen; of several, the shortest that comes close to the highest: others
are its multiples. Cost: O(bins log bins). Bad at periods that drift, and at two at once: it names one.
"""

from __future__ import annotations

import numpy as np

from replay.trace.events import Array

BINS = 4096
LEAST_BIN_NS = 1_000_000
SHORTEST, STRENGTH, NEAR = 4, 0.3, 0.85


def bin_ns(duration_ns: int) -> int:
    """Length of the bins that a recording's rate is looked at in: 1 ms, or 1 / 4096 of it where that is longer."""
    return max(LEAST_BIN_NS, -(-duration_ns // BINS))


def find(counts: Array, length_ns: int) -> tuple[int, float] | None:
    """Period (ns) and strength (the autocorrelation there, 0 to 1) of counts in bins of length_ns; None: none found."""
    n = counts.size
    if n < 4 * SHORTEST:
        return None
    x = counts.astype(np.float64)
    at = np.arange(n) - (n - 1) / 2
    x = x - x.mean() - at * (at @ x) / (at @ at)
    power = np.abs(np.fft.rfft(x, 2 * n)) ** 2
    if power[1:].max(initial=0) <= 0:
        return None
    correlation = np.fft.irfft(power)[:n]
    if correlation[0] <= 1e-9 * max(1.0, float(counts.mean()) ** 2) * n:
        return None
    correlation = correlation / correlation[0] * n / (n - np.arange(n))  # fewer pairs at longer lags
    middle = correlation[SHORTEST : n // 3]
    peaks = np.flatnonzero((middle[1:-1] >= middle[:-2]) & (middle[1:-1] > middle[2:])) + 1 + SHORTEST
    dips = np.minimum.accumulate(correlation[: n // 3])
    peaks = peaks[(correlation[peaks] >= STRENGTH) & (dips[peaks] < correlation[peaks] / 2)]
    if not peaks.size:
        return None
    best = float(correlation[peaks].max())
    lag = int(peaks[correlation[peaks] >= NEAR * best][0])
    return lag * length_ns, min(1.0, float(correlation[lag]))
