"""sequential: every vCPU writes its own part of memory front to back, and over again.

What: memory is cut into as many equal parts as there are vCPUs; they take turns, each one page further than its last.
How: the number of an event says whose turn it is and where that vCPU has got to. Cost: O(1) an event, no state. Bad as
a picture of anything that reuses memory: no page is written twice before all were written once.

Models: memset and memcpy loops, zeroing of fresh memory, and the "sequential" stress of migration tests (guestperf).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from replay.chance import Array, Guest, ticks
from replay.plugins import param

_U = np.uint64


@dataclass(frozen=True, kw_only=True)
class Config:
    rate: int = param(20_000, "writes of all vCPUs together", unit="pages/s", low=1, high=1_000_000_000)


def events(config: Config, guest: Guest, seed: int, begin_ns: int, end_ns: int) -> tuple[Array, Array, Array]:
    """Writes in [begin_ns, end_ns): t_ns uint64, page, vcpu."""
    number, t_ns = ticks(config.rate, seed, begin_ns, end_ns)
    vcpu, turn = number % _U(guest.n_vcpus), number // _U(guest.n_vcpus)
    edges = np.arange(guest.n_vcpus + 1, dtype=np.uint64) * _U(guest.n_pages) // _U(guest.n_vcpus)
    first = np.minimum(edges[:-1], _U(guest.n_pages - 1))
    length = np.maximum(edges[1:] - edges[:-1], _U(1))
    return t_ns, first[vcpu] + turn % length[vcpu], vcpu
