"""file-cache: files stream through the page cache, each into a run of pages, beside metadata.

What: `metadata` of the writes hit the few pages of inodes, journals and the free list again and again; all others write
files, one at a time for each vCPU, front to back, into runs of pages somewhere in memory. How: metadata writes are
spread evenly; each vCPU's other writes are cut into blocks of `largest` pages; a block holds one file of that length,
or two of half of it, or four ..., each kind as likely, and each file draws its place. Cost: O(1) an event, no state.
Bad as a picture of reads: those fill the cache too, by DMA, which a log of vCPU writes never sees (give such a part
source=dma).

Models: package installation, compilation, log rotation and copying of trees: churn, long runs, hardly any rewriting.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from replay.chance import Array, Guest, below, scattered, ticks
from replay.plugins import param

METADATA_PAGES = 64
SHARE_UNITS = 1 << 16
_U = np.uint64


@dataclass(frozen=True, kw_only=True)
class Config:
    rate: int = param(20_000, "writes of all vCPUs together", unit="pages/s", low=1, high=1_000_000_000)
    largest: int = param(1024, "length of the longest file", unit="pages", low=1, high=16777216, power_of_two=True)
    metadata: float = param(0.1, "writes that are metadata, as a share of all", unit="share", low=0, high=1)


def events(config: Config, guest: Guest, seed: int, begin_ns: int, end_ns: int) -> tuple[Array, Array, Array]:
    """Writes in [begin_ns, end_ns): t_ns uint64, page, vcpu."""
    number, t_ns = ticks(config.rate, seed, begin_ns, end_ns)
    vcpu, turn = number % _U(guest.n_vcpus), number // _U(guest.n_vcpus)
    share = _U(round(config.metadata * SHARE_UNITS))
    before = turn * share // _U(SHARE_UNITS)
    is_metadata = (turn + _U(1)) * share // _U(SHARE_UNITS) > before
    written = turn - before
    largest = _U(config.largest)
    block = (written // largest) * _U(guest.n_vcpus) + vcpu
    length = largest >> below(seed, "length", block, config.largest.bit_length())
    within = written % largest
    place = below(seed, "place", block * largest + within // length, guest.n_pages)
    data = (place + within % length) % _U(guest.n_pages)
    slot = below(seed, "slot", number, min(METADATA_PAGES, guest.n_pages))
    return t_ns, np.where(is_metadata, scattered(seed, "tables", slot, guest.n_pages), data), vcpu
