"""uniform: every page is as likely to be written next as any other.

What and how: each write draws its page from all of memory and its vCPU from all vCPUs, independently. Cost: O(1) an
event, no state. Bad as a picture of programs, which reuse what they wrote: this is the worst case for anything that
lives on locality (summaries, coalesced re-protection, neighbouring words).

Models: hash tables much larger than the caches, and the "random" stress of migration tests.
"""

from __future__ import annotations

from dataclasses import dataclass

from replay.chance import Array, Guest, below, ticks
from replay.plugins import param


@dataclass(frozen=True, kw_only=True)
class Config:
    rate: int = param(20_000, "writes of all vCPUs together", unit="pages/s", low=1, high=1_000_000_000)


def events(config: Config, guest: Guest, seed: int, begin_ns: int, end_ns: int) -> tuple[Array, Array, Array]:
    """Writes in [begin_ns, end_ns): t_ns uint64, page, vcpu."""
    number, t_ns = ticks(config.rate, seed, begin_ns, end_ns)
    return t_ns, below(seed, "page", number, guest.n_pages), below(seed, "vcpu", number, guest.n_vcpus)
