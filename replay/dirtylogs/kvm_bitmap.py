"""KVM's dirty bitmap with manual protect, as QEMU uses it without a dirty ring.

What: the kernel keeps one bit a page (L0). A sync copies it to the slot's bitmap (L1) and leaves it set; tracking of a
page is re-enabled only when the sender first touches the page's chunk of 2^18 pages, by a clear call that passes the
L1 bits of the chunk. Writes between the sync and that call are absorbed: the page is sent afterwards anyway, so they
cost neither a fault nor a second send. At the start every bit is set and nothing is protected.

Cost: a sync copies O(pages / 64) words and kicks every vCPU; a clear call is O(chunk / 64) words plus O(1) a page; a
write is O(1). Bad when memory is huge and little is dirty: the copy does not care.

Models: KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 with INITIALLY_SET, KVM_GET_DIRTY_LOG and KVM_CLEAR_DIRTY_LOG, and QEMU's
x-clear-bitmap-shift of 18.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from replay.jit import U0, U1, U6, U63, U64
from replay.kernels import memory
from replay.kernels.bitmap import test_and_set
from replay.kernels.bits import popcount
from replay.kernels.prefetch import prefetch
from replay.verbs import (
    GuestShape,
    Meter,
    expect_write,
    fold_slots,
    harvest,
    heeds,
    rearm,
    rearm_due,
    write,
    write_faults,
    write_host,
)
from replay.work import CLEAR_IOCTLS, CLEAR_PAGES, CLEAR_WORDS, L0_WORDS, LOG_IOCTLS, LOGGED_WRITES, VCPU_KICKS

CLEAR_SHIFT = 18  # log2 of the pages in a chunk: QEMU's x-clear-bitmap-shift, 1 GiB of 4 KiB pages
_SHIFT = U64(CLEAR_SHIFT)
N_PAGES, N_VCPUS, FAULTS = 0, 1, 2
_FAULTS = U64(FAULTS)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The kernel's bitmap has no parameters."""


class State(NamedTuple):
    """The kernel's bitmap, the slots' snapshot of it, and which chunks still have to be cleared."""

    l0: np.ndarray  # uint64 (n_words,)  bit set: dirty, and writes to the page go unnoticed
    l1: np.ndarray  # uint64 (n_words,)  KVMSlot.dirty_bmap: the last copy, less what was cleared
    due: np.ndarray  # uint64 (n_chunks,)  1: the chunk was synced and not yet cleared
    sizes: np.ndarray  # uint64 (2 + n_vcpus,)  N_PAGES, N_VCPUS; from FAULTS on the write faults of each vCPU


def build(config: Config, shape: GuestShape) -> State:
    """Initially set: every page counts as dirty, none is protected."""
    return State(
        l0=memory.ones_up_to(shape.n_pages, shape.n_words),
        l1=memory.words(shape.n_words),
        due=memory.words((shape.n_pages >> CLEAR_SHIFT) + 1),
        sizes=np.array([shape.n_pages, shape.n_vcpus, *[0] * shape.n_vcpus], dtype=np.uint64),
    )


@expect_write.implement(State)
def _expect_write(log: State, page: Any) -> None:
    prefetch(log.l0, page >> U6)


@heeds.implement(State)
def _heeds(log: State, page: Any) -> Any:
    return (~log.l0[page >> U6] >> (page & U63)) & U1


@write.implement(State)
def _write(log: State, design: Any, page: Any, vcpu: Any, meter: Meter) -> Any:
    if not test_and_set(log.l0, page):
        meter.work[LOGGED_WRITES] += U1
        log.sizes[_FAULTS + vcpu] += U1
    return U0


@write_host.implement(State)
def _write_host(log: State, design: Any, page: Any, vcpu: Any, meter: Meter) -> Any:
    if not test_and_set(log.l0, page):
        meter.work[LOGGED_WRITES] += U1
    return U0


@write_faults.implement(State)
def _write_faults(log: State) -> Any:
    return log.sizes[FAULTS:], 1


@harvest.implement(State)
def _harvest(log: State, design: Any, meter: Meter) -> None:
    work = meter.work
    for word in range(log.l0.size):
        log.l1[word] = log.l0[word]
    for chunk in range(log.due.size):
        log.due[chunk] = U1
    work[VCPU_KICKS] += log.sizes[N_VCPUS]
    work[LOG_IOCTLS] += U1
    work[L0_WORDS] += (log.sizes[N_PAGES] + U63) >> U6
    fold_slots(design, log.l1, True, meter)


@rearm_due.implement(State)
def _rearm_due(log: State, page: Any) -> bool:
    return log.due[page >> _SHIFT] != U0


@rearm.implement(State)
def _rearm(log: State, page: Any, meter: Meter) -> None:
    chunk = page >> _SHIFT
    start = chunk << (_SHIFT - U6)
    stop = min(start + (U1 << (_SHIFT - U6)), (log.sizes[N_PAGES] + U63) >> U6)
    cleared = U0
    for word in range(start, stop):
        bits = log.l1[word]
        cleared += popcount(bits)
        log.l0[word] &= ~bits
        log.l1[word] = U0
    log.due[chunk] = U0
    meter.work[CLEAR_IOCTLS] += U1
    meter.work[CLEAR_WORDS] += stop - start
    meter.work[CLEAR_PAGES] += cleared
