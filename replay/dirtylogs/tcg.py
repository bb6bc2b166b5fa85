"""TCG: emulated stores mark the RAMList bitmap themselves.

What: without KVM there is no kernel log; the first store to a clean page takes a slow path that sets the page's bit in
the RAMList bitmap (L2) at once. How: `write` marks the design and counts a logged write when the page was still armed;
a sync clears L2, which arms every page again. With a live design, which has no such moment, a page is armed again when
it is taken to be sent, and a vCPU whose store finds a full queue waits. Cost: O(1) a store, nothing to harvest. Bad
when judged as a stand-in for KVM: no vCPU leaves the guest, and there is no L0 or L1 whose passes could cost anything.

Models: the notdirty slow path of QEMU's accel/tcg from 9.0 on (earlier versions could lose writes of pages that stayed
in a TLB over a sync).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from replay.jit import NONE, U0, U1, U6, U63, U64
from replay.kernels import memory
from replay.kernels.prefetch import prefetch
from replay.verbs import (
    REFUSED,
    GuestShape,
    Meter,
    expect_write,
    full,
    harvest,
    heeds,
    heeds_first,
    live,
    mark_ram,
    rearm_page,
    unblock,
    write,
    write_faults,
)
from replay.work import FAN_OUT, LOGGED_WRITES, TLB_RESETS

REFUSED_PAGE, SLOW = U0, U1
_U2 = U64(2)
_CLIENTS = U64(2)  # besides the migration bitmap, a store marks those of the display and of translated code


@dataclass(frozen=True, kw_only=True)
class Config:
    """TCG has no parameters."""


class State(NamedTuple):
    """Which pages would take the slow path."""

    armed: np.ndarray  # uint64 (n_words,)  bit set: the next store to the page is noticed
    vcpus: np.ndarray  # uint64 (2 * n_vcpus,)  of each: REFUSED_PAGE it waits to store to, SLOW stores so far


def build(config: Config, shape: GuestShape) -> State:
    """All pages armed."""
    return State(armed=memory.ones_up_to(shape.n_pages, shape.n_words), vcpus=memory.words(2 * shape.n_vcpus))


@expect_write.implement(State)
def _expect_write(log: State, page: Any) -> None:
    prefetch(log.armed, page >> U6)


@heeds.implement(State)
def _heeds(log: State, page: Any) -> Any:
    return (log.armed[page >> U6] >> (page & U63)) & U1


@heeds_first.implement(State)
def _heeds_first(log: State) -> bool:
    return True


@write.implement(State)
def _write(log: State, design: Any, page: Any, vcpu: Any, meter: Meter) -> Any:
    word, bit = page >> U6, U1 << (page & U63)
    armed = log.armed[word] & bit != U0
    if armed and full(design, page):
        log.vcpus[_U2 * vcpu + REFUSED_PAGE] = page
        return REFUSED
    if armed:
        log.armed[word] &= ~bit
        meter.work[LOGGED_WRITES] += U1
        log.vcpus[_U2 * vcpu + SLOW] += U1
        meter.work[FAN_OUT] += _CLIENTS
        mark_ram(design, page, meter)
    return U0


@unblock.implement(State)
def _unblock(log: State, design: Any, vcpu: Any, meter: Meter) -> Any:
    return NONE if full(design, log.vcpus[_U2 * vcpu + REFUSED_PAGE]) else U0


@write_faults.implement(State)
def _write_faults(log: State) -> Any:
    return log.vcpus[1::2], 1


@harvest.implement(State)
def _harvest(log: State, design: Any, meter: Meter) -> None:
    if live(design):
        return
    for word in range(log.armed.size):
        log.armed[word] = ~U0


@rearm_page.implement(State)
def _rearm_page(log: State, page: Any, meter: Meter) -> None:
    log.armed[page >> U6] |= U1 << (page & U63)
    meter.work[TLB_RESETS] += U1
