"""zipf: the k-th most popular page is written with a probability proportional to 1 / k^skew.

What: popularity by Zipf's law over all of memory, popular pages scattered or side by side. How: a draw is looked up in
the exact cumulative weights of the first 65536 ranks; what falls beyond them is inverted in closed form, with the sum
over ranks k of k^-skew replaced by the integral from k - 1/2 to k + 1/2 (relative error below 1e-10 there). Cost:
O(log 65536) an event and half a megabyte, whatever the size of memory. Bad as a picture of what is popular only for a
while: popularity never moves (see phases).

Models: key-value stores and caches; 0.99 is the skew of the YCSB benchmark.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from replay.chance import Array, Guest, below, exp, log, scattered, shares, ticks
from replay.plugins import param

HEAD_RANKS = 1 << 16
FLAT = 1e-9  # an exponent this close to 0 is integrated as a logarithm


@dataclass(frozen=True, kw_only=True)
class Config:
    rate: int = param(20_000, "writes of all vCPUs together", unit="pages/s", low=1, high=1_000_000_000)
    skew: float = param(0.99, "exponent of the law; 0: all pages alike", low=0, high=8)
    scatter: bool = param(True, "popular pages lie anywhere in memory, not at its beginning")


def events(config: Config, guest: Guest, seed: int, begin_ns: int, end_ns: int) -> tuple[Array, Array, Array]:
    """Writes in [begin_ns, end_ns): t_ns uint64, page, vcpu."""
    number, t_ns = ticks(config.rate, seed, begin_ns, end_ns)
    page = _ranks(shares(seed, "page", number), guest.n_pages, config.skew)
    if config.scatter:
        page = scattered(seed, "place", page, guest.n_pages)
    return t_ns, page, below(seed, "vcpu", number, guest.n_vcpus)


def _ranks(draw: Array, n_pages: int, skew: float) -> Array:
    """Ranks from 0 of draws from [0, 1)."""
    head, head_mass, tail_mass = _weights(n_pages, skew)
    mass = draw * (head_mass + tail_mass)
    rank = np.minimum(np.searchsorted(head, mass, side="right"), n_pages - 1).astype(np.uint64)
    beyond = np.flatnonzero(mass >= head_mass)
    if tail_mass > 0 and beyond.size:
        rest, power = mass[beyond] - head_mass, 1 - skew
        logs = _edge_logs(n_pages)
        if abs(power) < FLAT:
            place = exp(logs[0] + rest)
        else:
            low, high = exp(power * logs)
            place = exp(log((low + power * rest).clip(min(low, high), max(low, high))) / power)
        ranks = np.rint(place).clip(HEAD_RANKS + 1, n_pages)  # ranks from 1 in these formulas
        rank[beyond] = ranks.astype(np.uint64) - np.uint64(1)
    return rank


@lru_cache(maxsize=8)
def _weights(n_pages: int, skew: float) -> tuple[Array, float, float]:
    """Cumulative weights of the first ranks, their sum, and the sum of all others."""
    rank = np.arange(1, min(n_pages, HEAD_RANKS) + 1, dtype=np.float64)
    head = np.cumsum(exp(-skew * log(rank)))
    if n_pages <= HEAD_RANKS:
        return head, float(head[-1]), 0.0
    logs, power = _edge_logs(n_pages), 1 - skew
    edges = logs if abs(power) < FLAT else exp(power * logs) / power
    return head, float(head[-1]), float(edges[1] - edges[0])


def _edge_logs(n_pages: int) -> Array:
    """Logarithms of where the integral begins and ends."""
    return log(np.array([HEAD_RANKS + 0.5, n_pages + 0.5]))
