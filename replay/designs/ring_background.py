"""Only a queue, and one background pass over memory that it must leave some room: Peter Xu's sketch.

What: no bitmap at all. One iterator walks memory from first page to last, once; what is dirtied goes into a queue. The
sender takes from the queue, but every k-th page, and whenever the queue is empty, from the background; once that is
through, everything that is dirty is in the queue. `background` is k (`ENFORCE_BACKGROUND_COUNT`): 1 serves the
background first, 0 only when the queue is empty. `filter` says which events need an entry: `naive` all of them (a page
may be sent from the queue and again by the background), `cursor` only pages that the background has passed (the page in
flight counts as passed: the cursor moves before the page is read), `done-bit` all, but the background leaves out what
the queue has sent already, for one bit a page.

How: the queue is filled by the reaper (`source=reaper`), or is KVM's rings themselves (`source=kvm-ring`): the sender
fetches up to `batch` entries, from each ring in turn, from the longest ring, or the oldest first (`order`), resets them
once, and then reads. What is dirty is then bounded by the rings, hence the downtime too. A full queue blocks vCPUs;
`full=prioritise` serves the queue without regard to k while it is more than three quarters full. `third-branch=off`
takes the sketch at its word: every k-th turn goes to the background even when that is exhausted; with k=1 the queue is
then never served. `rearm=after` reads before it arms and loses pages. Devices mark a side bitmap when the queue is
full. There are no rounds: a sync is a full harvest, made when what is known to be left would fit into the downtime.

Cost: O(1) a page, nothing O(pages) but the pass. Bad for a guest that dirties faster than (k-1)/k of the link: its
vCPUs are blocked until the queue drains; hot pages are sent again and again, the sooner they are popped the more often.

Models: P. Xu's reply in the thread "[PATCH 1/2] migration: Implement dirty ring" (2024-06), with the questions that it
leaves open as parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from replay.errors import UsageError
from replay.jit import NONE, U0, U1, U6, U63, U64, kernel
from replay.kernels import memory, ring
from replay.kernels.bitmap import test_and_set
from replay.kernels.layers import PENDING, mark_aside, pop_aside, walk
from replay.plugins import param
from replay.verbs import (
    AGE,
    LONGEST,
    ROUND_ROBIN,
    GuestShape,
    Meter,
    appetite,
    fetch_order,
    fold_slots,
    full,
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
    BACKGROUND_SKIPS,
    FAN_OUT,
    RING_FILTERED,
    RING_POPS,
    RING_PUSHES,
    RING_REJECTED,
)

STALLS_VCPUS = True  # a full queue makes the vCPU that would push wait
SIZE, CURSOR, N_PAGES, NEW, USED_MAX, K, COUNT, DONE_AHEAD = 0, 1, 2, 3, 4, 5, 6, 7
BATCH, ORDER, FILTER, PRIORITISE, THIRD, LATE, SUMMONED, FOLDING = 8, 9, 10, 11, 12, 13, 14, 15
NAIVE, BY_CURSOR, BY_DONE_BIT = 0, 1, 2
QUEUE = 0
_FILTERS = {"naive": NAIVE, "cursor": BY_CURSOR, "done-bit": BY_DONE_BIT}
_ORDERS = {"round-robin": ROUND_ROBIN, "longest": LONGEST, "age": AGE}


@dataclass(frozen=True, kw_only=True)
class Config:
    entries: int = param(65536, "entries of the queue", unit="entries", low=1, high=4294967296, power_of_two=True)
    background: int = param(8, "take every so-manyeth page from the background; 0: only when idle", unit="pages", low=0)
    filter: str = param("cursor", "which events need an entry", choices=("naive", "cursor", "done-bit"))
    source: str = param("reaper", "who fills the queue: the reaper, or the sender", choices=("reaper", "kvm-ring"))
    full: str = param("block", "what a nearly full queue does besides", choices=("block", "prioritise"))
    order: str = param("round-robin", "over KVM's rings (kvm-ring)", choices=("round-robin", "longest", "age"))
    batch: int = param(
        64, "entries fetched from KVM's rings at once (kvm-ring)", unit="entries", low=1, high=4294967296
    )
    third_branch: bool = param(True, "do not ask an exhausted background for pages")
    rearm: str = param("before", "re-arm before or after a page is read (kvm-ring)", choices=("before", "after"))


def check(config: Config) -> None:
    """Raise UsageError for parameters that say nothing with this source, and for a batch that does not fit."""
    if config.source == "reaper" and (config.order, config.batch, config.rearm) != ("round-robin", 64, "before"):
        raise UsageError(
            "ring-background: order, batch and rearm are for source=kvm-ring; the reaper has its own order"
        )
    if config.source == "kvm-ring" and config.batch > config.entries:
        raise UsageError(f"ring-background: a batch of {config.batch} does not fit a queue of {config.entries} entries")


def unsafe(config: Config) -> str | None:
    """Why a configuration can lose pages."""
    if config.rearm == "after":
        return "reads a page before it is armed again"
    if config.background == 1 and not config.third_branch:
        return "never serves its queue once the background is exhausted"
    return None


class State(NamedTuple):
    """The queue, the background's place, the side bitmap."""

    slots: np.ndarray  # uint64 (entries,)  page numbers, see kernels/ring.py
    ends: np.ndarray  # uint64 (2,)  head and tail
    side: np.ndarray  # uint64 (n_words,)  pages of producers that can not wait
    at: np.ndarray  # uint64 (4,)  the walk over the side bitmap, see kernels/layers.py
    done: np.ndarray  # uint64 (n_words,)  with filter=done-bit: sent from the queue before the background came by
    numbers: np.ndarray  # uint64 (16,)  SIZE entries; CURSOR, N_PAGES, NEW pages; USED_MAX entries; K; COUNT pops;
    #                      DONE_AHEAD pages; BATCH entries, 0 for the reaper; ORDER; FILTER; flags


def build(config: Config, shape: GuestShape) -> State:
    """The background is at the first page; everything is armed, nothing queued."""
    chosen = _FILTERS[config.filter]
    batch = config.batch if config.source == "kvm-ring" else 0
    flags = [config.full == "prioritise", config.third_branch, config.rearm == "after", 0, 0]
    return State(
        slots=memory.pages(config.entries),
        ends=memory.words(2),
        side=memory.words(shape.n_words),
        at=walk(shape.n_pages, False, pending=0),
        done=memory.words(shape.n_words if chosen == BY_DONE_BIT else 8),
        numbers=np.array(
            [
                config.entries,
                0,
                shape.n_pages,
                0,
                0,
                config.background,
                0,
                0,
                batch,
                _ORDERS[config.order],
                chosen,
                *flags,
            ],
            dtype=np.uint64,
        ),
    )


@live.implement(State)
def _live(design: State) -> bool:
    return True


@reset_late.implement(State)
def _reset_late(design: State) -> bool:
    return design.numbers[LATE] != U0


@fetch_order.implement(State)
def _fetch_order(design: State) -> Any:
    return design.numbers[ORDER]


@kernel
def _used(design: State) -> Any:
    return ring.used(design.ends, QUEUE)


@kernel
def _needs_no_entry(design: State, page: Any) -> bool:
    """Whether the background will still read `page`: it lies ahead, and was not left out as sent already (done-bit)."""
    numbers = design.numbers
    if page < numbers[CURSOR]:
        return False
    if numbers[FOLDING] == U0:
        return numbers[FILTER] == U64(BY_CURSOR)
    return numbers[FILTER] != U64(BY_DONE_BIT) or design.done[page >> U6] & (U1 << (page & U63)) == U0


@kernel
def _mark(design: State, page: Any, work: np.ndarray) -> None:
    numbers = design.numbers
    if _needs_no_entry(design, page):
        work[RING_FILTERED] += U1
    elif ring.push(design.slots, design.ends, QUEUE, numbers[SIZE], page):
        work[RING_PUSHES] += U1
        numbers[NEW] += U1
        numbers[USED_MAX] = max(numbers[USED_MAX], _used(design))
    else:
        work[RING_REJECTED] += U1
        if mark_aside(design.side, design.at, page, work):
            numbers[NEW] += U1


@mark_ram.implement(State)
def _mark_ram(design: State, page: Any, meter: Meter) -> None:
    _mark(design, page, meter.work)


@mark_slot.implement(State)
def _mark_slot(design: State, slots: np.ndarray, page: Any, meter: Meter) -> bool:
    meter.work[FAN_OUT] += U1
    _mark(design, page, meter.work)
    return True


@fold_slots.implement(State)
def _fold_slots(design: State, slots: np.ndarray, keep: bool, meter: Meter) -> None:
    """KVM's bitmap: what the background will still read needs no mark. KVM's rings leave L1 unused."""
    if keep:
        design.numbers[FOLDING] = U1
        mark_each(design, slots, NONE, meter)
        design.numbers[FOLDING] = U0


@room.implement(State)
def _room(design: State) -> Any:
    return U0 if design.numbers[BATCH] != U0 else design.numbers[SIZE] - _used(design)


@full.implement(State)
def _full(design: State, page: Any) -> bool:
    return _used(design) >= design.numbers[SIZE] and not _needs_no_entry(design, page)


@summon.implement(State)
def _summon(design: State) -> None:
    design.numbers[SUMMONED] = U1


@appetite.implement(State)
def _appetite(design: State) -> Any:
    """A batch whenever the queue is empty (kvm-ring); else what a full queue had left in the rings."""
    numbers = design.numbers
    if _used(design) != U0:
        return U0
    if numbers[BATCH] != U0:
        return numbers[BATCH]
    summoned = numbers[SUMMONED]
    numbers[SUMMONED] = U0
    return summoned * numbers[SIZE]


@holds.implement(State)
def _holds(design: State) -> bool:
    return design.numbers[LATE] != U0 and _used(design) != U0


@sync.implement(State)
def _sync(design: State, meter: Meter) -> Any:
    new = design.numbers[NEW]
    design.numbers[NEW] = U0
    return new


@pending.implement(State)
def _pending(design: State) -> Any:
    numbers = design.numbers
    return numbers[N_PAGES] - numbers[CURSOR] - numbers[DONE_AHEAD] + _used(design) + design.at[PENDING]


@kernel
def _next_in_background(design: State, work: np.ndarray) -> Any:
    """The background's next page; NONE when it is exhausted. Leaves out what the queue has sent (done-bit)."""
    numbers = design.numbers
    while numbers[CURSOR] < numbers[N_PAGES]:
        page = numbers[CURSOR]
        numbers[CURSOR] += U1
        if numbers[DONE_AHEAD] == U0 or design.done[page >> U6] & (U1 << (page & U63)) == U0:
            work[BACKGROUND_POPS] += U1
            return page
        numbers[DONE_AHEAD] -= U1
        work[BACKGROUND_SKIPS] += U1
    return NONE


@kernel
def _next_in_queue(design: State, work: np.ndarray) -> Any:
    """The queue's next page, else the side bitmap's; NONE when both are empty."""
    numbers = design.numbers
    if _used(design) == U0:
        return pop_aside(design.side, design.at, work)
    page = ring.entry(design.slots, QUEUE, numbers[SIZE], design.ends[0])
    ring.advance(design.ends, QUEUE, U1)
    work[RING_POPS] += U1
    if numbers[FILTER] == U64(BY_DONE_BIT) and page >= numbers[CURSOR] and not test_and_set(design.done, page):
        numbers[DONE_AHEAD] += U1
    return page


@pop.implement(State)
def _pop(design: State, meter: Meter) -> Any:
    numbers, work = design.numbers, meter.work
    while True:
        numbers[COUNT] += U1
        due = numbers[K] != U0 and numbers[COUNT] % numbers[K] == U0
        crowded = numbers[PRIORITISE] != U0 and U64(4) * _used(design) > U64(3) * numbers[SIZE]
        idle = _used(design) == U0 and design.at[PENDING] == U0
        if idle or (due and not crowded):
            page = _next_in_background(design, work)
            if page != NONE or idle:
                return page
            if numbers[THIRD] == U0:
                work[BACKGROUND_POPS] += U1
                if numbers[K] == U1:
                    return NONE
                continue
        return _next_in_queue(design, work)


@occupancy_max.implement(State)
def _occupancy_max(design: State) -> Any:
    most = design.numbers[USED_MAX]
    design.numbers[USED_MAX] = U0
    return most
