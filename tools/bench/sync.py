"""Carrying one bitmap into another at a sync: merge, fold, and the whole pass over three layers, against C."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from replay.jit import U0, U64, kernel
from replay.kernels.bitmap import fold, merge
from tools.bench import workloads
from tools.bench.harness import Row, Side, Target, c_call, compare

DENSITIES = (0.0, 1e-4, 1e-2, 0.5)
TARGET_DENSITY = 1e-2
TARGET, TARGET_EMPTY = (1.10, 1.00), (1.25, 1.00)


@kernel
def merge_one(source: np.ndarray, target: np.ndarray, n_words: Any, out: np.ndarray) -> None:
    """RAMList into RAMBlock."""
    out[0], out[1], out[2] = merge(source, target, n_words)


@kernel
def fold_one(source: np.ndarray, target: np.ndarray, n_words: Any, out: np.ndarray) -> None:
    """Slot bitmap into RAMList, cleared."""
    out[0], out[1] = fold(source, target, n_words, False)


@kernel
def layers(l1: np.ndarray, l2: np.ndarray, l3: np.ndarray, n_words: Any, out: np.ndarray) -> None:
    """Slot bitmap into RAMList, then RAMList into RAMBlock."""
    out[0], out[1] = fold(l1, l2, n_words, False)
    out[2], out[3], out[4] = merge(l2, l3, n_words)


def measure(quick: bool) -> list[Row]:
    """Rows for merge, fold and the three-layer pass at every size and density."""
    rows = []
    for name, n_pages in workloads.sizes(quick).items():
        target = workloads.bitmap(n_pages, TARGET_DENSITY, seed=workloads.SEED + 1)
        clean = np.zeros_like(target)
        for density in DENSITIES:
            source = workloads.bitmap(n_pages, density)
            label = f"{name}, density {density:g}"
            most = TARGET if density else TARGET_EMPTY
            rows.append(_compare(f"merge {label}", merge_one, "merge", [source, target], most, quick))
            rows.append(_compare(f"fold {label}", fold_one, "fold", [source, target], most, quick))
            rows.append(_compare(f"three layers {label}", layers, "layers", [source, clean, target], most, quick))
    return rows


def _compare(
    what: str, ours: Callable[..., None], theirs: str, given: list[np.ndarray], most: Target, quick: bool
) -> Row:
    maps = [array.copy() for array in given]
    out = np.zeros(5, dtype=np.uint64)
    n_words = given[0].size
    more = [0] if theirs == "fold" else []  # C's fold: keep

    def restore() -> None:
        out[:] = 0
        for array, saved in zip(maps, given, strict=True):
            np.copyto(array, saved)

    def result() -> list[int]:
        weights = np.arange(1, n_words + 1, dtype=np.uint64)
        return out.tolist() + [int((array * weights).sum()) for array in maps]

    def side(run: Any, idle: Any) -> Side | None:
        return Side(run=run, idle=idle, prepare=restore, result=result) if run else None

    return compare(
        what,
        side(lambda: ours(*maps, U64(n_words), out), lambda: ours(*maps, U0, out)),
        side(c_call("sync", theirs, *maps, n_words, *more, out), c_call("sync", theirs, *maps, 0, *more, out)),
        unit="us",
        quick=quick,
        target=most,
    )
