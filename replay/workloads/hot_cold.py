"""hot-cold: most writes go to a small hot part of memory, the rest anywhere else.

What: `hot` of the pages receive `writes` of the writes; within each part all pages are alike. The hot pages are
scattered, or one range. How: each write draws its part, then its page. Cost: O(1) an event, no state. Bad as a picture
of popularity that falls off gradually (see zipf).

Models: the 90/10 rule of thumb for databases and heaps; precopy resends the hot part every round and the rest seldom.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from replay.chance import Array, Guest, below, scattered, shares, ticks
from replay.plugins import param


@dataclass(frozen=True, kw_only=True)
class Config:
    rate: int = param(20_000, "writes of all vCPUs together", unit="pages/s", low=1, high=1_000_000_000)
    hot: float = param(0.1, "hot pages, as a share of memory", unit="share", low=0, high=1)
    writes: float = param(0.9, "writes that go to hot pages, as a share of all", unit="share", low=0, high=1)
    scatter: bool = param(True, "hot pages lie anywhere in memory, not at its beginning")


def events(config: Config, guest: Guest, seed: int, begin_ns: int, end_ns: int) -> tuple[Array, Array, Array]:
    """Writes in [begin_ns, end_ns): t_ns uint64, page, vcpu."""
    number, t_ns = ticks(config.rate, seed, begin_ns, end_ns)
    n_hot = min(max(1, round(config.hot * guest.n_pages)), guest.n_pages)
    n_cold = max(1, guest.n_pages - n_hot)
    is_hot = shares(seed, "part", number) < config.writes
    cold = (n_hot + below(seed, "page", number, n_cold)) % np.uint64(guest.n_pages)
    page = np.where(is_hot, below(seed, "page", number, n_hot), cold)
    if config.scatter:
        page = scattered(seed, "place", page, guest.n_pages)
    return t_ns, page, below(seed, "vcpu", number, guest.n_vcpus)
