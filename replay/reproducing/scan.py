"""Scanning a bitmap, with this machine's clock: every bit tested, or clean words skipped. Measured, not modelled."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from replay.jit import U0, U1, U6, U64, kernel
from replay.kernels.bitmap import next_touched
from replay.kernels.bits import lowest
from replay.reproducing.report import PREDICTION, Figure, Report, signs_of
from replay.reproducing.runs import Progress
from replay.reproducing.scenario import Scenario
from replay.results.provenance import machine

_BLOCK_WORDS = 1 << 16
_SEED = 12
_FOUND = 4096


@kernel
def every_bit(words: np.ndarray, found: np.ndarray) -> Any:
    """How many bits of (n,) uint64 words are set, each bit tested; the position of each is put into `found`.

    found: uint64, a power of two long, written around.
    """
    count, mask = U0, U64(found.size) - U1
    for index in range(words.size):
        for bit in range(64):
            if (words[index] >> U64(bit)) & U1 != U0:
                found[count & mask] = (U64(index) << U6) + U64(bit)
                count += U1
    return count


@kernel
def touched_words(words: np.ndarray, found: np.ndarray) -> Any:
    """The same, but clean words are skipped and the bits of others found by counting zeros."""
    count, mask, index, stop = U0, U64(found.size) - U1, U0, U64(words.size)
    while True:
        index = next_touched(words, index, stop)
        if index >= stop:
            return count
        bits = words[index]
        while bits != U0:
            found[count & mask] = (index << U6) + lowest(bits)
            count += U1
            bits &= bits - U1
        index += U1


def bitmap(n_words: int, share: float) -> np.ndarray:
    """(n_words,) uint64 with about `share` of the bits set, drawn from a fixed seed; all of it is in memory."""
    drawn = np.random.default_rng(_SEED).random(_BLOCK_WORDS * 64) < share
    block = np.packbits(drawn, bitorder="little").view(np.uint64)
    return np.tile(block, -(-n_words // _BLOCK_WORDS))[:n_words].copy()


def best_ms(scan: Callable[..., Any], words: np.ndarray, repeats: int) -> float:
    """The shortest of `repeats` passes."""
    taken, found = [], np.zeros(_FOUND, dtype=np.uint64)
    for _ in range(repeats):
        begin = time.perf_counter_ns()
        scan(words, found)
        taken.append(time.perf_counter_ns() - begin)
    return min(taken) / 1e6


def scanned(scenario: Scenario, progress: Progress | None = None) -> Report:
    """Every cell of a scenario of scans, measured."""
    figures = []
    small = bitmap(8, 0.5)
    for scan in (every_bit, touched_words):
        best_ms(scan, small, 1)
    signs = []
    for table in scenario.tables:
        n_words = int(scenario.about["words"][table.name])
        for row in table.rows:
            words = bitmap(n_words, float(scenario.about["share"][row]))
            for column in table.columns:
                fast = column == "after"
                value = best_ms(touched_words if fast else every_bit, words, 3 if fast else 1)
                place = (table.label(row), column)
                figures.append(
                    Figure(place=place, published=table.published[row, column], replayed=value, kind=PREDICTION)
                )
                if progress is not None:
                    progress(len(figures), ", ".join(place))
        if table.compared is not None:
            by_place = {figure.place: figure for figure in figures}
            signs += signs_of(by_place, [table.label(row) for row in table.rows], table.compared)
    return Report(
        experiment=scenario.name, title=scenario.title, source=scenario.source, unit=scenario.unit,
        conclusion=scenario.conclusion, measured=True, figures=tuple(figures), signs=tuple(signs),
        assumptions=scenario.assumptions, provenance=machine(),
    )  # fmt: skip
