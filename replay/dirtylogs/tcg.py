"""TCG: emulated stores mark the RAMList bitmap themselves.

What: without KVM there is no kernel log; the first store to a clean page takes a slow path that sets the page's bit in
the RAMList bitmap (L2) at once. How: `write` marks the design and counts a logged write when the page was still armed;
a sync clears L2, which arms every page again. Cost: O(1) a store, nothing to harvest. Bad when judged as a stand-in for
KVM: no vCPU ever waits, and there is no L0 or L1 whose passes could cost anything.

Models: the notdirty slow path of QEMU's accel/tcg from 9.0 on (earlier versions could lose writes of pages that stayed
in a TLB over a sync).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from replay.jit import U0, U1
from replay.kernels import memory
from replay.kernels.bitmap import test_and_clear
from replay.verbs import GuestShape, Meter, harvest, mark_ram, write
from replay.work import LOGGED_WRITES


@dataclass(frozen=True, kw_only=True)
class Config:
    """TCG has no parameters."""


class State(NamedTuple):
    """Which pages would take the slow path."""

    armed: np.ndarray  # uint64 (n_words,)  bit set: the next store to the page is noticed


def build(config: Config, shape: GuestShape) -> State:
    """All pages armed."""
    return State(armed=memory.ones_up_to(shape.n_pages, shape.n_words))


@write.implement(State)
def _write(log: State, design: Any, page: Any, vcpu: Any, meter: Meter) -> Any:
    if test_and_clear(log.armed, page):
        meter.work[LOGGED_WRITES] += U1
        mark_ram(design, page, meter)
    return U0


@harvest.implement(State)
def _harvest(log: State, design: Any, meter: Meter) -> None:
    for word in range(log.armed.size):
        log.armed[word] = ~U0
