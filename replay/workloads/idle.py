"""idle: a guest at rest. Timers and daemons write to the same few pages over and over.

What: `pages` pages, scattered over memory, are written at `rate`; nine writes of ten go to the third of them that
timers use. How: each write draws its page and its vCPU anew. Cost: O(1) an event, no state. Bad as a picture of a guest
with a desktop or a monitoring agent: those wake in bursts.

Models: the shipped recording idle-1g (a Linux guest after boot): 4,087 writes a second to 162 pages, of which 50 take
92 %; it knows only the first write to a page in every millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from replay.chance import Array, Guest, below, scattered, shares, ticks
from replay.plugins import param

TIMER_WRITES = 0.9


@dataclass(frozen=True, kw_only=True)
class Config:
    rate: int = param(4000, "writes of all vCPUs together", unit="pages/s", low=1, high=1_000_000_000)
    pages: int = param(160, "pages that are ever written", unit="pages", low=1, high=4294967296)


def events(config: Config, guest: Guest, seed: int, begin_ns: int, end_ns: int) -> tuple[Array, Array, Array]:
    """Writes in [begin_ns, end_ns): t_ns uint64, page, vcpu."""
    number, t_ns = ticks(config.rate, seed, begin_ns, end_ns)
    n_pages = min(config.pages, guest.n_pages)
    n_timers = max(1, n_pages // 3)
    of_timer = shares(seed, "timer", number) < TIMER_WRITES
    rank = np.where(of_timer, below(seed, "page", number, n_timers), below(seed, "page", number, n_pages))
    return t_ns, scattered(seed, "place", rank, guest.n_pages), below(seed, "vcpu", number, guest.n_vcpus)
