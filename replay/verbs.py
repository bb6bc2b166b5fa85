"""The seam: what a dirty log and a design must be able to do. One engine loop calls these and knows no plug-in.

A dirty log owns the kernel's side: what the hypervisor records of a write (L0), when it records again (re-arm), and,
under KVM, the bitmap of each memory slot (L1, `KVMSlot.dirty_bmap`). A design owns the VMM's side: the RAMList bitmap
(L2), the RAMBlock bitmap (L3), its queues. Both count what they do in `meter.work` (see work.py).

Order at a sync: `before_harvest(design)`, `harvest(log, design)`, `sync(design)`. Order for a page: `pop` clears what
made it pending, `rearm` re-enables its tracking, then it is read. A write between these is never lost that way.

A design is *live* when what is marked reaches its sender at once instead of at the next sync (`live`). A live design
may have bounded queues: `room` tells producers how much they may hand over, a vCPU that can not wait any longer is
*held* until `unblock` lets it go, `appetite` makes the sender fetch entries from the log by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from replay.jit import NONE, U0, U1, U6, U63, U64, dot4, kernel, verb
from replay.kernels.bitmap import next_touched
from replay.kernels.bits import lowest
from replay.work import (
    FAN_OUT,
    FIND_CALLS,
    FIND_WORDS,
    L1_PAGES,
    L1_TOUCHED,
    L1_WORDS,
    L1_ZEROED,
    N_COUNTERS,
    N_SEND,
    NORMAL_PAGES,
    REFIND_CALLS,
    RING_FILTERED,
    SUMMARY_WORDS,
    ZERO_PAGES,
)

REFUSED = NONE
"""Returned by `write`: nothing happened, the vCPU must wait until `unblock` says otherwise, then write again."""
HELD = NONE - U1
"""Returned by `write`: the write is done, and its vCPU stands still until `unblock` says otherwise."""
ROUND_ROBIN, LONGEST, AGE = 0, 1, 2
"""What `fetch_order` may return."""
_WALK = {FIND_CALLS, FIND_WORDS, SUMMARY_WORDS, REFIND_CALLS, NORMAL_PAGES, ZERO_PAGES}
_BY_FOUR = tuple(U64(first) for first in range(0, N_SEND - 3, 4) if _WALK.isdisjoint(range(first, first + 4)))
_SINGLY = tuple(U64(index) for index in range(N_SEND) if U64(index // 4 * 4) not in _BY_FOUR)


class Meter(NamedTuple):
    """Work counters and what a unit of each costs."""

    work: np.ndarray  # uint64 (N_COUNTERS,)  counts, indexed by the constants of work.py
    price: np.ndarray  # uint64 (N_COUNTERS,)  picoseconds a unit


@kernel
def spent_ps(meter: Meter) -> Any:
    """Picoseconds that all work counted so far is worth."""
    total = U0
    for index in range(N_COUNTERS):
        total += meter.work[index] * meter.price[index]
    return total


@kernel
def price_sending(work: np.ndarray, price: np.ndarray) -> Any:
    """Picoseconds for the counters that may grow while a page is found and sent.

    Those of a walk over a bitmap change with every page. A vector that holds a word just stored has to wait for it, so
    only the groups of four between them are read as vectors: 20 scalar products a page took half of the loop's time.
    """
    total = U0
    for index in _SINGLY:
        total += work[index] * price[index]
    for index in _BY_FOUR:
        total += dot4(work, price, index)
    return total


@kernel
def spent_sending_ps(meter: Meter) -> Any:
    """`price_sending` of a meter."""
    return price_sending(meter.work, meter.price)


@dataclass(frozen=True, kw_only=True)
class GuestShape:
    """What a plug-in may know of the guest when it allocates its state."""

    n_pages: int
    n_vcpus: int
    n_blocks: int = 1

    @property
    def n_words(self) -> int:
        """64-page words of a bitmap over the guest, padded to 8 so that vector kernels may read whole groups."""
        return max(8, -(-self.n_pages // 512) * 8)


# -- dirty log --------------------------------------------------------------------------------------------------------


@verb
def write(log: Any, design: Any, page: Any, vcpu: Any, meter: Meter) -> Any:
    """A guest store to `page`. Returns the picoseconds its vCPU stands still for it (0: it does not), REFUSED or HELD.

    A log that returns REFUSED or HELD must have vCPUs in lanes of their own (`STALLS_VCPUS = True` in its file, or in
    the design's that makes it do so).
    """
    return NotImplemented


@verb
def heeds(log: Any, page: Any) -> Any:
    """1 if a store to `page` would be noticed now, 0 (uint64) if `write` would do nothing, count nothing, return 0.

    The engine asks for many events at once, before it writes the first: a `write` must not make the log notice a page
    that it would not have noticed before (a live design's sender may).
    """
    return U1


@verb
def heeds_first(log: Any) -> bool:
    """Whether the first store to a page since the beginning is always one that `heeds` tells of."""
    return False


@verb
def expect_write(log: Any, page: Any) -> None:
    """A store to `page` may come soon: prefetch what `write` will look at first. Changes and counts nothing."""


@verb
def write_host(log: Any, design: Any, page: Any, vcpu: Any, meter: Meter) -> Any:
    """The hypervisor itself writes guest memory on the vCPU's thread (clock pages, emulated stores). As `write`."""
    mark_ram(design, page, meter)
    return U0


@verb
def unblock(log: Any, design: Any, vcpu: Any, meter: Meter) -> Any:
    """A vCPU that was REFUSED or HELD tries again: picoseconds of work that this took, or NONE to wait on.

    Must count nothing when it returns NONE: how often it is asked is not part of the model.
    """
    return U0


@verb
def limit_sleep_ps(log: Any, vcpu: Any) -> Any:
    """How much of what `unblock` has just returned is sleep that a policy puts on this vCPU."""
    return U0


@verb
def write_faults(log: Any) -> Any:
    """(uint64 (n_vcpus,), a view: stores by each vCPU that met a page that is tracked; how many of them make the vCPU
    leave the guest once), or None where the log does not say. Called from Python only.
    """
    return None


@verb
def harvest(log: Any, design: Any, meter: Meter) -> None:
    """Collect, at a sync, everything the log holds, and hand it to the design."""


@verb
def rearm_due(log: Any, page: Any) -> bool:
    """Whether sending `page` must first re-enable tracking for its chunk."""
    return False


@verb
def rearm(log: Any, page: Any, meter: Meter) -> None:
    """Re-enable tracking for the chunk of `page`; called before the page is read, only when due."""


@verb
def rearm_page(log: Any, page: Any, meter: Meter) -> None:
    """Re-enable tracking of one page that a live design popped; called before it is read. Default: armed already."""


@verb
def fetch(log: Any, design: Any, limit: Any, meter: Meter) -> Any:
    """Hand up to `limit` of the log's entries to the design by `mark_slot`, not yet re-armed; how many they were."""
    return U0


@verb
def reset(log: Any, meter: Meter) -> None:
    """Re-arm every page that was fetched and not yet re-armed."""


@verb
def backlog(log: Any) -> Any:
    """Entries in the log that user space has not fetched."""
    return U0


@verb
def next_wake(log: Any) -> Any:
    """Host time (ps) at which the log's own thread wants to run; NONE when it has none."""
    return NONE


@verb
def wake(log: Any, design: Any, now: Any, meter: Meter) -> None:
    """The log's own thread runs at host time `now` (ps)."""


# -- design -----------------------------------------------------------------------------------------------------------


@verb
def mark_ram(design: Any, page: Any, meter: Meter) -> None:
    """`page` became dirty in the RAMList bitmap: a store under TCG, device emulation, vhost."""
    return NotImplemented


@verb
def mark_slot(design: Any, slots: np.ndarray, page: Any, meter: Meter) -> bool:
    """An entry of a KVM ring was reaped. Default: set its bit in the slot bitmap. Returns whether it was new there."""
    word, bit = page >> U6, U1 << (page & U63)
    new = (slots[word] & bit) == U0
    slots[word] |= bit
    return new


@kernel
def mark_each(design: Any, slots: np.ndarray, below: Any, meter: Meter) -> None:
    """`mark_ram` for every page of the slot bitmap that is less than `below`; the others are only counted."""
    work = meter.work
    work[L1_WORDS] += slots.size
    word = next_touched(slots, U0, U64(slots.size))
    while word < slots.size:
        bits = slots[word]
        work[L1_TOUCHED] += U1
        work[FAN_OUT] += U1
        while bits != U0:
            page = (word << U6) + lowest(bits)
            work[L1_PAGES] += U1
            if page < below:
                mark_ram(design, page, meter)
            else:
                work[RING_FILTERED] += U1
            bits &= bits - U1
        word = next_touched(slots, word + U1, U64(slots.size))


@verb
def fold_slots(design: Any, slots: np.ndarray, keep: bool, meter: Meter) -> None:
    """Carry the slot bitmap into the design at a sync, and clear it unless `keep`. Default: `mark_ram` page by page."""
    mark_each(design, slots, NONE, meter)
    if not keep:
        meter.work[L1_ZEROED] += slots.size
        for word in range(slots.size):
            slots[word] = U0


@verb
def before_harvest(design: Any, meter: Meter) -> None:
    """First step of a sync, before the log is collected."""


@verb
def sync(design: Any, meter: Meter) -> Any:
    """Make everything marked so far visible to the sender. Returns the number of pages that became pending."""
    return NotImplemented


@verb
def pop(design: Any, meter: Meter) -> Any:
    """The next page to send, no longer pending; NONE when there is none."""
    return NotImplemented


@verb
def pending(design: Any) -> Any:
    """Pages that are waiting to be sent (`migration_dirty_pages`)."""
    return NotImplemented


@verb
def peek(design: Any, meter: Meter) -> Any:
    """(word, bits): pages that `pop` would return next, all of one 64-page word; bits 0 when there is none.

    Implementing `peek` and `take` says that a guest's write cannot reach the sender before the next sync, so sends
    may be computed ahead of the guest: the engine then batches (migration/engine.py).
    """
    return NotImplemented


@verb
def take(design: Any, word: Any, bits: Any, meter: Meter) -> None:
    """Remove `bits` of `word` as if each had been popped, lowest first; `bits` is a low part of what `peek` gave.

    Every page but the first is counted as one search of one word (and one summary word, and a second search, where the
    design makes these).
    """
    return NotImplemented


# -- live designs -----------------------------------------------------------------------------------------------------


@verb
def live(design: Any) -> bool:
    """Whether a mark reaches the sender at once. Such a design is stepped page by page and is popped page by page."""
    return False


@verb
def room(design: Any) -> Any:
    """Entries that `mark_slot` may hand over now; NONE: any number."""
    return NONE


@verb
def full(design: Any, page: Any) -> bool:
    """Whether a vCPU that is about to mark `page` by `mark_ram` must wait. Devices can not: they mark regardless."""
    return False


@verb
def appetite(design: Any) -> Any:
    """Entries that the sender wants to fetch from the log before it pops; 0: none."""
    return U0


@verb
def fetch_order(design: Any) -> Any:
    """In which order `fetch` goes over the rings: ROUND_ROBIN, LONGEST or AGE."""
    return U0


@verb
def reset_late(design: Any) -> bool:
    """Whether pages are re-armed only after they were read. Unsafe: a write in between is lost."""
    return False


@verb
def summon(design: Any) -> None:
    """The log wants to be emptied (a ring is full, the reaper woke up, a sync) and the design has no room for it."""


@verb
def holds(design: Any) -> bool:
    """Whether held vCPUs must stay so, and nothing may be re-armed late: fetched entries are still being sent."""
    return False


@verb
def urgent(design: Any) -> Any:
    """A page that whoever marked it must send at once; NONE when there is none. Live designs are asked after each event
    and every run of the log's own thread, until there is none."""
    return NONE


@verb
def occupancy_max(state: Any) -> Any:
    """Most entries that any of the state's queues has held since the last sync; asking starts anew."""
    return U0
