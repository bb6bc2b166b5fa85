"""The dirty log kvm-ring as a kernel is asked: stores one by one, entries taken, rings reset, full rings let go."""

from __future__ import annotations

import numpy as np

from replay.dirtylogs import kvm_ring
from replay.jit import NONE, U1, U64, kernel
from replay.plugins import parse
from replay.verbs import HELD, GuestShape, Meter, reset, unblock, write
from replay.work import KRING_FULL_EXITS, N_COUNTERS


@kernel
def make_stores(log, design, pages, vcpu, meter):
    """Stores of one vCPU until it must stand; how many were made."""
    for index in range(len(pages)):
        if write(log, design, U64(pages[index]), vcpu, meter) == HELD:
            return index + 1
    return len(pages)


@kernel
def take_from(log, design, vcpu, limit, meter):
    """Take up to `limit` entries of a vCPU's ring."""
    return kvm_ring._fetch_run(log, design, vcpu, limit, meter)


@kernel
def reset_taken(log, meter):
    """KVM_RESET_DIRTY_RINGS."""
    reset(log, meter)


@kernel
def let_go(log, design, vcpu, meter):
    """Whether a vCPU with a full ring may run again."""
    return unblock(log, design, vcpu, meter) != NONE


class Model:
    """Rings of the model, and what is in them."""

    def __init__(self, ring_entries: int, n_pages: int, n_vcpus: int = 1, push_before_retire: str = "on"):
        log = parse("log", f"kvm-ring:{ring_entries},pml=off,push-before-retire={push_before_retire}")
        shape = GuestShape(n_pages=n_pages, n_vcpus=n_vcpus)
        self.log = log.build(shape)
        self.design = parse("design", "bitmap").build(shape)
        self.meter = Meter(np.zeros(N_COUNTERS, np.uint64), np.zeros(N_COUNTERS, np.uint64))
        self.size = ring_entries

    def store(self, pages, vcpu: int = 0) -> int:
        return int(make_stores(self.log, self.design, np.asarray(pages, np.uint32), U64(vcpu), self.meter))

    def is_armed(self, page: int) -> bool:
        return bool(self.log.armed[page // 64] >> U64(page % 64) & U1)

    def take(self, vcpu: int = 0, limit: int | None = None) -> list[int]:
        """The oldest entries that were not taken yet."""
        first = int(self.log.fetched[vcpu])
        count = int(take_from(self.log, self.design, U64(vcpu), NONE if limit is None else U64(limit), self.meter))
        return [int(self.log.slots[vcpu * self.size + k % self.size]) for k in range(first, first + count)]

    def reset(self) -> None:
        reset_taken(self.log, self.meter)

    def release(self, vcpu: int = 0) -> bool:
        return bool(let_go(self.log, self.design, U64(vcpu), self.meter))

    @property
    def full_exits(self) -> int:
        return int(self.meter.work[KRING_FULL_EXITS])
