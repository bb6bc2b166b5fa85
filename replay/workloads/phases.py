"""phases: busy and quiet spells take turns, and every busy spell works on another part of memory.

What: a period of `period` begins with a busy spell of `busy` of it, in which `rate` pages a second of one range
(`working_set` of memory) are written; then `quiet` of that rate goes on in the same range. The next period moves to
another range. How: the clock runs at the busy rate throughout and quiet spells drop most of its events; a range is
drawn from the seed and the number of its period. Cost: O(1) an event, no state. Bad as a picture of phases that come
back to the same data.

Models: batch jobs, garbage collectors, compilations: what makes a migration converge in one minute and not in the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from replay.chance import Array, Guest, below, shares, ticks
from replay.plugins import param

_U = np.uint64


@dataclass(frozen=True, kw_only=True)
class Config:
    rate: int = param(20_000, "writes while busy, all vCPUs together", unit="pages/s", low=1, high=1_000_000_000)
    period: int = param(
        2_000_000_000, "from one busy spell to the next", unit="ns", low=1_000_000, high=1152921504606846976
    )
    busy: float = param(0.5, "length of a busy spell, as a share of the period", unit="share", low=0, high=1)
    quiet: float = param(0.05, "rate in quiet spells, as a share of the busy one", unit="share", low=0, high=1)
    working_set: float = param(0.1, "range that a period writes to, as a share of memory", unit="share", low=0, high=1)


def events(config: Config, guest: Guest, seed: int, begin_ns: int, end_ns: int) -> tuple[Array, Array, Array]:
    """Writes in [begin_ns, end_ns): t_ns uint64, page, vcpu."""
    number, t_ns = ticks(config.rate, seed, begin_ns, end_ns)
    in_busy = t_ns % _U(config.period) < _U(round(config.busy * config.period))
    kept = in_busy | (shares(seed, "quiet", number) < config.quiet)
    number, t_ns = number[kept], t_ns[kept]
    n_range = min(max(1, round(config.working_set * guest.n_pages)), guest.n_pages)
    first = below(seed, "range", t_ns // _U(config.period), guest.n_pages - n_range + 1)
    return t_ns, first + below(seed, "page", number, n_range), below(seed, "vcpu", number, guest.n_vcpus)
