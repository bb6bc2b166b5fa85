"""Find and clear every dirty page of a bitmap, from none to all of them, against C in QEMU's style.

"scan" decodes a block of words at a time, then clears what it found there, or all of it: what a sender may do to a
map that nobody else writes to. "scan by page" finds and clears one page after the other, as C does and as the stepping
engine must.
A search of a clean map is compared with reading it, which nothing can be faster than.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from replay.jit import U0, U1, U6, U63, U64, kernel
from replay.kernels.bitmap import find_next
from replay.kernels.decode import BLOCK, SPARE_PAGES, decode, new_list
from tools.bench import workloads
from tools.bench.harness import Row, Side, Target, c_call, compare

DENSITIES = (0.0, 1e-4, 1e-2, 0.5, 1.0)
N_MAPS = 12
TARGETS = {0.0: (1.00, 0.75), 1e-2: (0.90, 0.20), 1.0: (0.50, 0.05)}
TARGET_ELSE = (1.10, 1.00)
TARGETS_READ = {"12T": (1 / 0.90, 1.00)}  # of a clean map, against reading all of it: there memory is the limit
TARGET_READ = (1 / 0.65, 1 / 0.80)
_BLOCK, _FEW = U64(BLOCK), U64(BLOCK // 8)


@kernel
def scan(words: np.ndarray, size: Any, listed: np.ndarray, pages: np.ndarray, out: np.ndarray) -> None:
    """Find and clear every page, a block of words at a time; out: how many, and the sum of their numbers."""
    found, total, first, stop = U0, U0, U0, (size + U63) >> U6
    while first < stop:
        end = min(first + _BLOCK, stop)
        count, end = decode(words, first, end, listed, pages)
        if count != U0:
            for index in range(count):
                total += U64(pages[index])
            if count < _FEW:
                for index in range(count):
                    words[U64(pages[index]) >> U6] = U0
            else:
                for word in range(first, end):
                    words[word] = U0
            found += count
        first = end
    out[0] = found
    out[1] = total


@kernel
def scan_by_page(words: np.ndarray, size: Any, out: np.ndarray) -> None:
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
    """Rows for every size and density, both ways, and for clean maps."""
    rows = []
    for name, n_pages in workloads.sizes(quick).items():
        for density in DENSITIES:
            maps = [workloads.bitmap(n_pages, density, workloads.SEED + turn) for turn in range(N_MAPS)]
            label = f"{name}, density {density:g}"
            rows.append(_compare(f"scan {label}", maps, n_pages, TARGETS.get(density, TARGET_ELSE), quick, _by_block))
            rows.append(_compare(f"scan by page {label}", maps, n_pages, TARGET_ELSE, quick, _by_page))
    for name, n_pages in workloads.sizes(quick, ("96G", "1T", "12T")).items():
        rows.append(_compare_reading(f"search clean {name}, against a plain read", name, n_pages, quick))
    return rows


def _by_block(words: np.ndarray, out: np.ndarray) -> Callable[[Any], None]:
    listed, pages = new_list(), np.zeros(64 * BLOCK + SPARE_PAGES, dtype=np.uint32)
    return lambda size: scan(words, size, listed, pages, out)


def _by_page(words: np.ndarray, out: np.ndarray) -> Callable[[Any], None]:
    return lambda size: scan_by_page(words, size, out)


def _compare_reading(what: str, name: str, n_pages: int, quick: bool) -> Row:
    words, out = workloads.large_bitmap(n_pages, 0.0), np.zeros(2, dtype=np.uint64)

    def side(run: Any, idle: Any) -> Side | None:
        return Side(run=run, idle=idle, result=out.tolist) if run else None

    search = _by_page(words, out)
    ours = side(lambda: search(U64(n_pages)), lambda: search(U0))
    theirs = side(c_call("scan", "read_all", words, words.size, out), c_call("scan", "read_all", words, 0, out))
    return compare(what, ours, theirs, unit="us", quick=quick, target=TARGETS_READ.get(name, TARGET_READ))


def _compare(
    what: str, maps: list[np.ndarray], n_pages: int, most: Target, quick: bool, way: Callable[..., Any]
) -> Row:
    words, out = maps[0].copy(), np.zeros(2, dtype=np.uint64)
    ours = way(words, out)

    def side(run: Any, idle: Any) -> Side | None:
        turns = itertools.cycle(maps)  # one map again and again is learnt by the branch predictor, by C's loop best
        restore = lambda: np.copyto(words, next(turns))  # noqa: E731
        return Side(run=run, idle=idle, prepare=restore, result=out.tolist) if run else None

    mine = side(lambda: ours(U64(n_pages)), lambda: ours(U0))
    theirs = side(c_call("scan", "scan", words, n_pages, out), c_call("scan", "scan", words, 0, out))
    return compare(what, mine, theirs, unit="us", quick=quick, target=most)
