"""KVM's dirty rings, one a vCPU: an entry for each first write since the page was re-armed.

What: the first write to an armed page pushes an entry into the ring of the writing vCPU and disarms the page. User
space reaps the rings, sets the pages' bits in the slot bitmap (L1) and resets them, which arms the pages again. How:
everything is reaped at a sync, by a thread that wakes once a second, and whenever one vCPU's ring reaches its soft
limit: that vCPU leaves the guest and stands still until all rings have been reaped and reset; the others run on.

Cost: O(1) a first write, O(1) an entry reaped, one re-protection for each coalesced mask of up to 64 neighbouring
pages; at a sync O(pages / 64) on top, because L1 is folded and cleared whole. Bad for a guest that dirties memory at
random and fast: small rings stop its vCPUs often, and a page reaped before it is sent is reported and sent again.

Models: virt/kvm/dirty_ring.c of Linux 6.12 (soft limit, reset with coalescing) and QEMU 10.0's reaping. The soft limit
is the size less 64 reserved entries, less 512 more where the CPU logs pages in hardware (`pml=on`: Intel).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from replay.errors import UsageError
from replay.jit import U0, U1, U6, U63, U64, kernel
from replay.kernels import memory, ring
from replay.kernels.bitmap import test_and_clear
from replay.plugins import param
from replay.verbs import (
    GuestShape,
    Meter,
    fold_slots,
    harvest,
    mark_slot,
    next_wake,
    occupancy_max,
    spent_ps,
    wake,
    write,
)
from replay.work import (
    KRING_DUPLICATES,
    KRING_FULL_EXITS,
    KRING_MASKS,
    KRING_REAPED,
    KRING_RESETS,
    LOGGED_WRITES,
    REAPER_WAKES,
    VCPU_KICKS,
)

STALLS_VCPUS = True  # a full ring stops its own vCPU, so each vCPU is delayed by itself
RESERVED_ENTRIES, PML_ENTRIES = 64, 512
SIZE, SOFT_LIMIT, N_VCPUS, NEXT_WAKE, WAKE_EVERY, USED_MAX = 0, 1, 2, 3, 4, 5


@dataclass(frozen=True, kw_only=True)
class Config:
    entries: int = param(4096, "entries of each vCPU's ring", unit="entries", low=256, high=65536, power_of_two=True)
    pml: bool = param(True, "the CPU logs pages in hardware and 512 more entries stay reserved")
    reaper_period: int = param(
        1_000_000_000, "pause of the reaper thread between two harvests", unit="ns", low=1_000_000
    )


def check(config: Config) -> None:
    """Raise UsageError for a ring without a usable entry."""
    if config.pml and config.entries < 1024:
        raise UsageError(
            f"kvm-ring: {config.entries} entries are too few with pml=on (576 stay reserved): take 1024, or pml=off"
        )


class State(NamedTuple):
    """The rings, the slots' bitmap and which pages are armed."""

    slots: np.ndarray  # uint64 (n_vcpus * entries,)  page numbers, see kernels/ring.py
    ends: np.ndarray  # uint64 (2 * n_vcpus,)  reset index and dirty index of each ring
    armed: np.ndarray  # uint64 (n_words,)  bit set: the next write to the page is pushed
    l1: np.ndarray  # uint64 (n_words,)  KVMSlot.dirty_bmap
    registers: np.ndarray  # uint64 (6,)  SIZE, SOFT_LIMIT entries; N_VCPUS; NEXT_WAKE, WAKE_EVERY ps; USED_MAX entries


def build(config: Config, shape: GuestShape) -> State:
    """Everything write-protected, as enabling the log without manual protect leaves it; rings empty."""
    reserved = RESERVED_ENTRIES + (PML_ENTRIES if config.pml else 0)
    period = config.reaper_period * 1000
    return State(
        slots=memory.pages(shape.n_vcpus * config.entries),
        ends=memory.words(2 * shape.n_vcpus),
        armed=memory.ones_up_to(shape.n_pages, shape.n_words),
        l1=memory.words(shape.n_words),
        registers=np.array(
            [config.entries, config.entries - reserved, shape.n_vcpus, period, period, 0], dtype=np.uint64
        ),
    )


@write.implement(State)
def _write(log: State, design: Any, page: Any, vcpu: Any, meter: Meter) -> Any:
    if not test_and_clear(log.armed, page):
        return U0
    registers = log.registers
    ring.push(log.slots, log.ends, vcpu, registers[SIZE], page)
    meter.work[LOGGED_WRITES] += U1
    used = ring.used(log.ends, vcpu)
    registers[USED_MAX] = max(registers[USED_MAX], used)
    if used < registers[SOFT_LIMIT]:
        return U0
    before = spent_ps(meter)
    meter.work[KRING_FULL_EXITS] += U1
    _reap(log, design, meter)
    return spent_ps(meter) - before


@harvest.implement(State)
def _harvest(log: State, design: Any, meter: Meter) -> None:
    meter.work[VCPU_KICKS] += log.registers[N_VCPUS]
    _reap(log, design, meter)
    fold_slots(design, log.l1, False, meter)


@next_wake.implement(State)
def _next_wake(log: State) -> Any:
    return log.registers[NEXT_WAKE]


@wake.implement(State)
def _wake(log: State, design: Any, now: Any, meter: Meter) -> None:
    before = spent_ps(meter)
    meter.work[REAPER_WAKES] += U1
    _reap(log, design, meter)
    log.registers[NEXT_WAKE] = now + (spent_ps(meter) - before) + log.registers[WAKE_EVERY]


@occupancy_max.implement(State)
def _occupancy_max(log: State) -> Any:
    most = log.registers[USED_MAX]
    log.registers[USED_MAX] = U0
    return most


@kernel
def _reap(log: State, design: Any, meter: Meter) -> None:
    """Mark every entry of every ring, then reset them all."""
    size, work = log.registers[SIZE], meter.work
    reaped, masks = U0, U0
    for vcpu in range(log.registers[N_VCPUS]):
        base, mask = U0, U0
        for index in range(log.ends[U64(2) * vcpu], log.ends[U64(2) * vcpu + U1]):
            page = ring.entry(log.slots, vcpu, size, index)
            if not mark_slot(design, log.l1, page, meter):
                work[KRING_DUPLICATES] += U1
            log.armed[page >> U6] |= U1 << (page & U63)
            reaped += U1
            if mask != U0 and page >= base and page - base <= U63:
                mask |= U1 << (page - base)
            elif mask != U0 and page < base and base - page <= U63 and (mask << (base - page)) >> (base - page) == mask:
                mask = (mask << (base - page)) | U1
                base = page
            else:
                masks += U1
                base, mask = page, U1
        ring.empty(log.ends, vcpu)
    work[KRING_REAPED] += reaped
    work[KRING_MASKS] += masks
    if reaped > U0:
        work[KRING_RESETS] += U1
