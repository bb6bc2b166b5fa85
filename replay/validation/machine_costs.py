"""What this machine's clock says about single operations: words scanned, pages found, pushed, popped, read.

Each figure is the median of a few repetitions over state that was written once and is warm, with its quartiles. They
are this machine's times for our kernels; QEMU pays for atomics, locks and calls besides, and the table that is made
from them says so.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from replay.kernels import memory, probe
from replay.kernels.bitmap import count_set
from replay.kernels.layers import PENDING, merge_layer, walk
from replay.migration.costs import Costs
from replay.results.provenance import machine
from replay.work import N_COUNTERS

REPEATS = 9
_WORDS = 1 << 18
_RING = 1 << 16
_PAGES = 1 << 14
_PAGE_WORDS = 512
_U = np.uint64
Probe = tuple[str, Callable[[], Any], Callable[[], Any], int]
"""A figure's name, what to do before each repetition, what to time, and how many units that is."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A table with this machine's figures, and the samples in ns a unit."""

    table: Costs
    base: Costs
    samples_ns: dict[str, list[float]]

    def rows(self) -> list[dict[str, Any]]:
        """For each figure its median, quartiles, and what the base table says."""
        return [
            {
                "figure": name,
                "median_ns": round(float(np.median(values)), 3),
                "quartiles_ns": [round(float(q), 3) for q in np.quantile(values, (0.25, 0.75))],
                "table_ns": self.base.prices_ps[name] / 1000 if name in self.base.prices_ps else "-",
            }
            for name, values in self.samples_ns.items()
        ]

    def sources(self) -> dict[str, str]:
        """Where each measured entry is from."""
        where = str(machine()["cpu"]).replace('"', "'")
        return dict.fromkeys(self.samples_ns, f"measured: replay calibrate, {where}")


def measure(base: Costs) -> Measured:
    """Measure; figures that are no price of a counter (popcount, zero checks) are shown but not put into the table."""
    samples = {name: _samples(prepare, work, units) for name, prepare, work, units in _probes()}
    clean = float(np.median(samples["l2_words"]))
    samples["l2_touched"] = [max(0.0, value - clean) for value in samples["l2_touched"]]
    prices = dict(base.prices_ps)
    for name, values in samples.items():
        if name in prices:
            prices[name] = round(float(np.median(values)) * 1000)
    table = dataclasses.replace(
        base,
        name=f"{base.name}+machine",
        description=f"{base.name} with times of kernels measured on this machine, which are not QEMU's",
        prices_ps=prices,
    )
    return Measured(table=table, base=base, samples_ns=samples)


def _samples(prepare: Callable[[], Any], work: Callable[[], Any], units: int) -> list[float]:
    prepare()
    work()
    values = []
    for _ in range(REPEATS):
        prepare()
        begin = time.perf_counter_ns()
        work()
        values.append((time.perf_counter_ns() - begin) / units)
    return values


def _probes() -> Iterator[Probe]:
    l2, l3, at = memory.words(_WORDS), memory.words(_WORDS), walk(_WORDS * 64, False)
    counters = np.zeros(N_COUNTERS, dtype=np.uint64)

    def fill(l2_word: int, l3_word: int) -> Callable[[], None]:
        def prepare() -> None:
            l2[:], l3[:] = _U(l2_word), _U(l3_word)
            at[0], at[PENDING] = 0, _WORDS * int(l3_word).bit_count()

        return prepare

    yield "find_words", fill(0, 0), lambda: probe.find_all(l3, at, counters), _WORDS
    yield "find_calls", fill(0, (1 << 64) - 1), lambda: probe.find_all(l3, at, counters), _WORDS * 64
    yield "l2_words", fill(0, 0), lambda: merge_layer(l2, l3, at, counters), _WORDS
    yield "l2_touched", fill(1 << 63, 0), lambda: merge_layer(l2, l3, at, counters), _WORDS
    slots, ends = memory.words(_RING), memory.words(2)

    def full() -> None:
        ends[:] = (0, _RING)

    def empty() -> None:
        ends[:] = 0

    yield "ring_pushes", empty, lambda: probe.push_all(slots, ends, _U(_RING)), _RING
    yield "ring_pops", full, lambda: probe.pop_all(slots, ends, _U(_RING)), _RING
    yield "popcount of a word", empty, lambda: count_set(l3), _WORDS
    zero = memory.words(_PAGES * _PAGE_WORDS)
    data = memory.words(_PAGES * _PAGE_WORDS, 1)
    yield "zero check of a zero page", empty, lambda: probe.first_nonzero(zero, _U(_PAGE_WORDS)), _PAGES
    yield "zero check of a data page", empty, lambda: probe.first_nonzero(data, _U(_PAGE_WORDS)), _PAGES
