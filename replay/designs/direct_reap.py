"""Sending straight from the reap of KVM's rings: no bitmap, no queue that lasts.

What: one pass over memory by the migration thread; beside it, whenever the rings are reaped (one is full, the reaper
thread woke up, a sync), the reaped pages are sent as one batch before anything else. How: with `order=safe` the entries
are collected, reset (which arms their pages), and then read; with `order=literal`, as the mail describes it, each is
read while it is reaped and all are reset at the end, so that a write between read and reset is lost: unsafe, kept to
show it. `sender=vcpu`: the thread that reaps sends, and vCPUs with full rings stand still until it is done;
`sender=batches`: it hands the batch to the migration thread and goes on. Whoever sends obeys the rate limit, and the
channel carries one page at a time. What KVM's rings do not see (devices; all of TCG; KVM's bitmap) goes to a side
bitmap that is sent when nothing else is left.

Cost: O(1) a page and nothing O(pages) but the copy, as long as no side bitmap is used. Bad for the guest: with
`sender=vcpu` its vCPUs pay for the network; hot pages are sent again at every reap. `batch` bounds what is taken out of
the rings at once.

Models: option 1 of S. Imamura's mail of 2024-06-25 ("Call ram_save_target_page inside kvm_dirty_ring_reap_one").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from replay.jit import U0, U1
from replay.kernels import memory, ring
from replay.kernels.layers import PENDING, mark_aside, pop_aside, walk
from replay.plugins import param
from replay.verbs import (
    GuestShape,
    Meter,
    appetite,
    fold_slots,
    holds,
    live,
    mark_each,
    mark_ram,
    mark_slot,
    occupancy_max,
    pending,
    pop,
    reset_late,
    room,
    summon,
    sync,
)
from replay.work import (
    BACKGROUND_POPS,
    FAN_OUT,
    PRODUCER_SENDS,
    RING_POPS,
    RING_PUSHES,
)

SIZE, CURSOR, N_PAGES, NEW, USED_MAX, LITERAL, BY_VCPU, SUMMONED = 0, 1, 2, 3, 4, 5, 6, 7
QUEUE = 0


@dataclass(frozen=True, kw_only=True)
class Config:
    order: str = param(
        "safe", "re-arm before a page is read, or after (literal: loses pages)", choices=("safe", "literal")
    )
    sender: str = param("vcpu", "who sends what was reaped", choices=("vcpu", "batches"))
    batch: int = param(65536, "most entries reaped at once", unit="entries", low=1, high=4294967296, power_of_two=True)


def unsafe(config: Config) -> str | None:
    """Why a configuration can lose pages."""
    return "reads each page before the reset that arms it" if config.order == "literal" else None


class State(NamedTuple):
    """The batch that is being sent, and the side bitmap."""

    slots: np.ndarray  # uint64 (batch,)  page numbers, see kernels/ring.py
    ends: np.ndarray  # uint64 (2,)  head and tail
    side: np.ndarray  # uint64 (n_words,)  pages that KVM's rings do not see
    at: np.ndarray  # uint64 (4,)  the walk over the side bitmap, see kernels/layers.py
    numbers: np.ndarray  # uint64 (8,)  SIZE entries; CURSOR page; N_PAGES; NEW pages; USED_MAX entries; flags


def build(config: Config, shape: GuestShape) -> State:
    """All of memory is still to be copied."""
    flags = [config.order == "literal", config.sender == "vcpu", 0]
    return State(
        slots=memory.pages(config.batch),
        ends=memory.words(2),
        side=memory.words(shape.n_words),
        at=walk(shape.n_pages, False, pending=0),
        numbers=np.array([config.batch, 0, shape.n_pages, 0, 0, *flags], dtype=np.uint64),
    )


@live.implement(State)
def _live(design: State) -> bool:
    return True


@reset_late.implement(State)
def _reset_late(design: State) -> bool:
    return design.numbers[LITERAL] != U0


@room.implement(State)
def _room(design: State) -> Any:
    """A batch for the migration thread is taken while it fits; all others are fetched by their sender."""
    if design.numbers[BY_VCPU] != U0 or design.numbers[LITERAL] != U0:
        return U0
    return design.numbers[SIZE] - ring.used(design.ends, QUEUE)


@summon.implement(State)
def _summon(design: State) -> None:
    design.numbers[SUMMONED] = U1


@appetite.implement(State)
def _appetite(design: State) -> Any:
    if design.numbers[SUMMONED] == U0 or ring.used(design.ends, QUEUE) != U0:
        return U0
    design.numbers[SUMMONED] = U0
    return design.numbers[SIZE]


@holds.implement(State)
def _holds(design: State) -> bool:
    numbers = design.numbers
    return (numbers[BY_VCPU] != U0 or numbers[LITERAL] != U0) and ring.used(design.ends, QUEUE) != U0


@mark_slot.implement(State)
def _mark_slot(design: State, slots: np.ndarray, page: Any, meter: Meter) -> bool:
    ring.push(design.slots, design.ends, QUEUE, design.numbers[SIZE], page)
    design.numbers[NEW] += U1
    design.numbers[USED_MAX] = max(design.numbers[USED_MAX], ring.used(design.ends, QUEUE))
    meter.work[RING_PUSHES] += U1
    meter.work[FAN_OUT] += U1
    return True


@mark_ram.implement(State)
def _mark_ram(design: State, page: Any, meter: Meter) -> None:
    if mark_aside(design.side, design.at, page, meter.work):
        design.numbers[NEW] += U1


@fold_slots.implement(State)
def _fold_slots(design: State, slots: np.ndarray, keep: bool, meter: Meter) -> None:
    """KVM's bitmap: what the pass has not reached needs no mark. KVM's rings leave L1 unused."""
    if keep:
        mark_each(design, slots, design.numbers[CURSOR], meter)


@sync.implement(State)
def _sync(design: State, meter: Meter) -> Any:
    new = design.numbers[NEW]
    design.numbers[NEW] = U0
    return new


@pending.implement(State)
def _pending(design: State) -> Any:
    numbers = design.numbers
    return numbers[N_PAGES] - numbers[CURSOR] + ring.used(design.ends, QUEUE) + design.at[PENDING]


@pop.implement(State)
def _pop(design: State, meter: Meter) -> Any:
    numbers, work = design.numbers, meter.work
    if ring.used(design.ends, QUEUE) != U0:
        page = ring.entry(design.slots, QUEUE, numbers[SIZE], design.ends[0])
        ring.advance(design.ends, QUEUE, U1)
        work[RING_POPS] += U1
        work[PRODUCER_SENDS] += numbers[BY_VCPU]
        return page
    if numbers[CURSOR] < numbers[N_PAGES]:
        numbers[CURSOR] += U1
        work[BACKGROUND_POPS] += U1
        return numbers[CURSOR] - U1
    return pop_aside(design.side, design.at, work)


@occupancy_max.implement(State)
def _occupancy_max(design: State) -> Any:
    most = design.numbers[USED_MAX]
    design.numbers[USED_MAX] = U0
    return most
