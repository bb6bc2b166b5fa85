"""Find and clear every dirty page of a bitmap, from none to all of them, against C in QEMU's style."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from replay.jit import U0, U1, U6, U63, U64, kernel
from replay.kernels.bitmap import find_next
from tools.bench import workloads
from tools.bench.harness import Row, Side, Target, c_call, compare

DENSITIES = (0.0, 1e-4, 1e-2, 0.5, 1.0)
N_MAPS = 12
TARGETS = {0.0: (1.00, 0.75), 1e-2: (0.90, 0.20), 1.0: (0.50, 0.05)}
TARGET_ELSE = (1.10, 1.00)
TARGET_READ = (1 / 0.65, 1 / 0.80)  # of a clean map, against reading all of it


@kernel
def scan(words: np.ndarray, size: Any, out: np.ndarray) -> None:
    """Find and clear every page; out: how many, and the sum of their numbers."""
    found, total = U0, U0
    page = find_next(words, size, U0)
    while page < size:
        words[page >> U6] &= ~(U1 << (page & U63))
        found += U1
        total += page
        page = find_next(words, size, page + U1)
    out[0] = found
    out[1] = total


def measure(quick: bool) -> list[Row]:
    """Rows for every size and density."""
    rows = []
    for name, n_pages in workloads.sizes(quick).items():
        for density in DENSITIES:
            maps = [workloads.bitmap(n_pages, density, workloads.SEED + turn) for turn in range(N_MAPS)]
            most = TARGETS.get(density, TARGET_ELSE)
            rows.append(_compare(f"scan {name}, density {density:g}", maps, n_pages, most, quick))
        rows.append(_compare_reading(f"search clean {name}, against a plain read", n_pages, quick))
    return rows


def _compare_reading(what: str, n_pages: int, quick: bool) -> Row:
    words, out = workloads.bitmap(n_pages, 0.0), np.zeros(2, dtype=np.uint64)

    def side(run: Any, idle: Any) -> Side | None:
        return Side(run=run, idle=idle, result=out.tolist) if run else None

    ours = side(lambda: scan(words, U64(n_pages), out), lambda: scan(words, U0, out))
    theirs = side(c_call("scan", "read_all", words, words.size, out), c_call("scan", "read_all", words, 0, out))
    return compare(what, ours, theirs, unit="us", quick=quick, target=TARGET_READ)


def _compare(what: str, maps: list[np.ndarray], n_pages: int, most: Target, quick: bool) -> Row:
    words, out = maps[0].copy(), np.zeros(2, dtype=np.uint64)

    def side(run: Any, idle: Any) -> Side | None:
        turns = itertools.cycle(maps)  # one map again and again is learnt by the branch predictor, by C's loop best
        restore = lambda: np.copyto(words, next(turns))  # noqa: E731
        return Side(run=run, idle=idle, prepare=restore, result=out.tolist) if run else None

    ours = side(lambda: scan(words, U64(n_pages), out), lambda: scan(words, U0, out))
    theirs = side(c_call("scan", "scan", words, n_pages, out), c_call("scan", "scan", words, 0, out))
    return compare(what, ours, theirs, unit="us", quick=quick, target=most)
