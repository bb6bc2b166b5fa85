"""XBZRLE: pages that are sent again go as what has changed in them, if their last content is still in a cache.

What: from the end of the first pass over memory on (after the second sync, when the sender comes to a page of a lower
word than the one before, or finds none), each page with content is looked up in a direct-mapped cache of pages (slot =
page number modulo slots). A page that is there and was not written since it was last read is the same: nothing is sent,
and it does not count as a page towards the look at the clock. One that was written goes as a delta of 11 bytes and its
encoding, or as a whole page when the encoding does not fit (overflow). A page that is not there is a miss: it goes
whole, and takes the slot unless the slot was used in this round or the one before (an entry lives for two syncs).
Nothing enters the cache while the guest is stopped. A page of zeros is remembered too, and counts as no miss.

A whole page comes out of the cache, which may change, so it is copied into the stream's buffer: from then on until
the guest stops, flushes come every 32,768 bytes, not every 32 pages (windows of 6,032,898 bytes at 60 MB/s were
measured, and come out to the byte).

The trace says which pages are the same: those that were written between a sync and their being read, and not again.
What it can not say is how a written page compares with its last content: the share of deltas that fit, and their mean
size, are parameters. The share is not drawn but spread evenly: of a share of 3/4, three fit and the fourth does not.
Their defaults, 1 and 14 bytes, are what two migrations showed of a guest that changes 8 bytes a page (0 overflows in
19,429 pages): the best case. 0 is the worst one.

Cost: O(1) a page; 8 bytes a slot each for pages and ages. What is the same depends on what the guest has written by
then, so from the second sync on the sender is stepped page by page, and what the target has is kept track of even in a
run that is not checked.
Source: QEMU 10.0 migration/ram.c, page_cache.c and xbzrle.c by their described behaviour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from replay.jit import U0, U1, U64, kernel
from replay.migration.link import HEADER_BYTES, NORMAL_BYTES, PAGE_BYTES, put_buffered, put_normal, put_zeros
from replay.work import NORMAL_PAGES, XBZRLE_MISSES, XBZRLE_OVERFLOWS, XBZRLE_PAGES, XBZRLE_SAME, ZERO_PAGES

if TYPE_CHECKING:
    from replay.migration.precopy import Precopy

STARTED, SYNCS, STOPPED, CREDIT_PPM, SHARE_PPM, DELTA_BYTES, LAST_WORD = 0, 1, 2, 3, 4, 5, 6
N_REGISTERS = 7
DELTA_HEADER_BYTES = 3
LIFETIME_SYNCS = 2
DEFAULT_CACHE_BYTES = 64 << 20
MEASURED_DELTA_BYTES = 14
_MILLION, _LIFETIME = U64(1_000_000), U64(LIFETIME_SYNCS)


class Cache(NamedTuple):
    """What the cache holds, not the contents themselves."""

    page: np.ndarray  # uint64 (n_slots,)  page in the slot, plus 1; 0: none
    sync: np.ndarray  # uint64 (n_slots,)  dirty-sync-count when the slot was last used
    registers: np.ndarray  # uint64 (7,)  STARTED, STOPPED (0 or 1); SYNCS so far; CREDIT_PPM, SHARE_PPM; DELTA_BYTES;
    #                        LAST_WORD the word of the last page sent


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`delta_bytes`: mean length of an encoding, without the 11 bytes before it."""

    cache_bytes: int
    share_ppm: int
    delta_bytes: int


def new_cache(settings: Settings | None = None) -> Cache:
    """An empty cache, not started; without settings, one that never is."""
    registers = np.zeros(N_REGISTERS, dtype=np.uint64)
    slots = 1
    if settings is not None:
        slots = settings.cache_bytes // PAGE_BYTES
        registers[SHARE_PPM], registers[DELTA_BYTES] = settings.share_ppm, settings.delta_bytes
    return Cache(np.zeros(slots, dtype=np.uint64), np.zeros(slots, dtype=np.uint64), registers)


@kernel
def _remember(cache: Cache, page: Any) -> None:
    """The page takes its slot, unless another one used it lately."""
    slot, now = page & U64(cache.page.size - 1), cache.registers[SYNCS]
    held = cache.page[slot]
    if held != U0 and held != page + U1 and cache.sync[slot] + _LIFETIME > now:
        return
    cache.page[slot], cache.sync[slot] = page + U1, now


@kernel
def turn_to(cache: Cache, word: Any) -> bool:
    """The sender comes to a page of this word; whether pages are compared by now."""
    registers = cache.registers
    if registers[SYNCS] > U1 and word < registers[LAST_WORD]:
        registers[STARTED] = U1
    registers[LAST_WORD] = word
    return registers[STARTED] != U0


@kernel
def find_none(cache: Cache) -> None:
    """The sender has searched all memory and found no page."""
    if cache.registers[SYNCS] > U1:
        cache.registers[STARTED] = U1


@kernel
def put_compared(cache: Cache, stream: np.ndarray, page: Any, zero: bool, written: bool, work: np.ndarray) -> bool:
    """Put a page that may be in the cache; whether it counts as one sent. `written`: since it was last read."""
    registers = cache.registers
    if zero:
        _remember(cache, page)
        put_zeros(stream, U1, work)
        work[ZERO_PAGES] += U1
        return True
    slot = page & U64(cache.page.size - 1)
    if cache.page[slot] != page + U1:
        work[XBZRLE_MISSES] += U1
        if registers[STOPPED] == U0:
            _remember(cache, page)
    else:
        cache.sync[slot] = registers[SYNCS]
        work[XBZRLE_PAGES] += U1
        if not written:
            work[XBZRLE_SAME] += U1
            return False
        registers[CREDIT_PPM] += registers[SHARE_PPM]
        if registers[CREDIT_PPM] >= _MILLION:
            registers[CREDIT_PPM] -= _MILLION
            put_buffered(stream, U64(HEADER_BYTES + DELTA_HEADER_BYTES) + registers[DELTA_BYTES], work)
            return True
        work[XBZRLE_OVERFLOWS] += U1
    if registers[STOPPED] == U0:
        put_buffered(stream, U64(NORMAL_BYTES), work)
    else:
        put_normal(stream, work)
    work[NORMAL_PAGES] += U1
    return True


class Encoder:
    """The cache of one migration and what `query-migrate` says of it."""

    def __init__(self, settings: Settings):
        self.settings, self.cache = settings, new_cache(settings)
        self.miss_rate = self.encoding_rate = 0.0
        self._before = (0, 0, 0, 0)

    def at_sync(self, syncs: int, running: bool) -> None:
        """Sync number `syncs` is done."""
        registers = self.cache.registers
        registers[SYNCS], registers[STOPPED] = syncs, not running

    def end_period(self, machine: Precopy) -> None:
        """The rates of a period that a sync ends, as dirty-pages-rate."""
        misses, pages, sent_bytes = machine.sent(XBZRLE_MISSES), machine.sent(XBZRLE_PAGES), self.sent_bytes(machine)
        sent = machine.sent(NORMAL_PAGES) + machine.sent(ZERO_PAGES) + self.deltas(machine)
        now = (misses, pages, sent_bytes, sent)
        grown_misses, grown_pages, grown_bytes, grown_sent = (
            new - old for new, old in zip(now, self._before, strict=True)
        )
        if grown_sent:
            self.miss_rate = grown_misses / grown_sent
            self.encoding_rate = grown_pages * PAGE_BYTES / grown_bytes if grown_pages and grown_bytes else 0.0
            self._before = now

    def deltas(self, machine: Precopy) -> int:
        """Pages sent as deltas."""
        return machine.sent(XBZRLE_PAGES) - machine.sent(XBZRLE_SAME) - machine.sent(XBZRLE_OVERFLOWS)

    def sent_bytes(self, machine: Precopy) -> int:
        """Bytes of deltas without the page headers, and of pages whose delta did not fit."""
        size = DELTA_HEADER_BYTES + self.settings.delta_bytes
        return self.deltas(machine) * size + machine.sent(XBZRLE_OVERFLOWS) * PAGE_BYTES

    def transferred(self, machine: Precopy) -> int:
        """Bytes of deltas on the wire."""
        return self.deltas(machine) * (HEADER_BYTES + DELTA_HEADER_BYTES + self.settings.delta_bytes)

    def summary(self, machine: Precopy) -> dict[str, Any]:
        """`xbzrle-cache` of `query-migrate`."""
        return {
            "cache-size": self.settings.cache_bytes,
            "bytes": self.sent_bytes(machine),
            "pages": machine.sent(XBZRLE_PAGES),
            "cache-miss": machine.sent(XBZRLE_MISSES),
            "cache-miss-rate": self.miss_rate,
            "encoding-rate": self.encoding_rate,
            "overflow": machine.sent(XBZRLE_OVERFLOWS),
        }
