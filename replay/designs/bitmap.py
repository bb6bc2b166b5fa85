"""Three bitmap layers, as QEMU has them today.

What: a dirty page travels from the log (slot bitmap, L1) over the RAMList bitmap (L2) to the RAMBlock bitmap (L3),
one bit a page in each. How: every sync reads every word of L2 and, under KVM, of L1; the sender walks L3 from where it
stopped, around the end of memory once, and clears each page before it reads it.

Cost: a sync is O(pages / 64) a layer however little is dirty; finding pages is O(pages / 64) a round plus O(1) a page.
Bad when memory is huge, little is dirty and syncs are frequent or fall into the downtime. QEMU of June 2024 searches a
second time for each page sent, bounded to the host page; `host-page-refind=off` leaves that out, which is the control
arm for the question whether a ring or the missing search explains a gain.

Models: ram_find_and_save_block, migration_bitmap_sync and cpu_physical_memory_sync_dirty_bitmap of QEMU 10.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from replay.kernels import memory
from replay.kernels.bitmap import test_and_set
from replay.kernels.layers import N_PAGES, PENDING, fold_layer, merge_layer, peek_around, pop_around, take_word, walk
from replay.plugins import param
from replay.verbs import GuestShape, Meter, fold_slots, mark_ram, peek, pending, pop, sync, take


@dataclass(frozen=True, kw_only=True)
class Config:
    host_page_refind: bool = param(True, "search again, bounded to the host page, after each page sent (QEMU today)")


class State(NamedTuple):
    """RAMList and RAMBlock bitmaps and the sender's walk over the latter."""

    l2: np.ndarray  # uint64 (n_words,)  ram_list.dirty_memory[MIGRATION]
    l3: np.ndarray  # uint64 (n_words,)  RAMBlock.bmap: pages waiting to be sent
    at: np.ndarray  # uint64 (4,)  the walk, see kernels/layers.py


def build(config: Config, shape: GuestShape) -> State:
    """Every page pending, as ram_init_bitmaps leaves it."""
    return State(
        l2=memory.words(shape.n_words),
        l3=memory.ones_up_to(shape.n_pages, shape.n_words),
        at=walk(shape.n_pages, config.host_page_refind),
    )


@mark_ram.implement(State)
def _mark_ram(design: State, page: Any, meter: Meter) -> None:
    test_and_set(design.l2, page)


@fold_slots.implement(State)
def _fold_slots(design: State, slots: np.ndarray, keep: bool, meter: Meter) -> None:
    fold_layer(slots, design.l2, design.at[N_PAGES], keep, meter.work)


@sync.implement(State)
def _sync(design: State, meter: Meter) -> Any:
    return merge_layer(design.l2, design.l3, design.at, meter.work)


@pending.implement(State)
def _pending(design: State) -> Any:
    return design.at[PENDING]


@pop.implement(State)
def _pop(design: State, meter: Meter) -> Any:
    return pop_around(design.l3, design.at, meter.work)


@peek.implement(State)
def _peek(design: State, meter: Meter) -> Any:
    return peek_around(design.l3, design.at, meter.work)


@take.implement(State)
def _take(design: State, word: Any, bits: Any, meter: Meter) -> None:
    take_word(design.l3, design.at, word, bits, meter.work)
