"""The seam: what a dirty log and a design must be able to do. One engine loop calls these and knows no plug-in.

A dirty log owns the kernel's side: what the hypervisor records of a write (L0), when it records again (re-arm), and,
under KVM, the bitmap of each memory slot (L1, `KVMSlot.dirty_bmap`). A design owns the VMM's side: the RAMList bitmap
(L2), the RAMBlock bitmap (L3), its queues. Both count what they do in `meter.work` (see work.py).

Order at a sync: `before_harvest(design)`, `harvest(log, design)`, `sync(design)`. Order for a page: `pop` clears what
made it pending, `rearm` re-enables its tracking, then it is read. A write between these is never lost that way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from replay.jit import NONE, U0, U1, U6, U63, U64, kernel, verb
from replay.kernels.bits import popcount_below
from replay.work import N_COUNTERS, N_SEND


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
def spent_sending_ps(meter: Meter) -> Any:
    """The same for the counters that may grow while a page is found and sent."""
    total = U0
    for index in range(N_SEND):
        total += meter.work[index] * meter.price[index]
    return total


@dataclass(frozen=True, kw_only=True)
class GuestShape:
    """What a plug-in may know of the guest when it allocates its state."""

    n_pages: int
    n_vcpus: int

    @property
    def n_words(self) -> int:
        """64-page words of a bitmap over the guest, padded to 8 so that vector kernels may read whole groups."""
        return max(8, -(-self.n_pages // 512) * 8)


# -- dirty log --------------------------------------------------------------------------------------------------------


@verb
def write(log: Any, design: Any, page: Any, vcpu: Any, meter: Meter) -> Any:
    """A guest store to `page`. Returns the picoseconds its vCPU stands still for it (0: it does not)."""
    return NotImplemented


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


@verb
def fold_slots(design: Any, slots: np.ndarray, keep: bool, meter: Meter) -> None:
    """Carry the slot bitmap into the design at a sync, and clear it unless `keep`. Default: `mark_ram` page by page."""
    for word in range(slots.size):
        bits = slots[word]
        while bits != U0:
            low = bits & (~bits + U1)
            page = (U64(word) << U6) + popcount_below(low)
            mark_ram(design, page, meter)
            bits ^= low
        if not keep:
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


@verb
def occupancy_max(state: Any) -> Any:
    """Most entries that any of the state's queues has held since the last sync; asking starts anew."""
    return U0
