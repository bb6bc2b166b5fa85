"""The positions of all set bits of a bitmap, as numbers: against C's ctz loop, and what one would write instead.

The kernel is the portable one: the package's own search for the next word that is not zero, and its count of trailing
zeros. Peers do the same to maps of 1 %; of theirs the
CPU time of all threads counts.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from replay.jit import U0, U1, U6, U64, kernel
from replay.kernels.bitmap import next_touched
from replay.kernels.bits import lowest
from tools.bench import workloads
from tools.bench.harness import Row, Side, c_call, compare

DENSITIES = (1e-3, 1e-2, 0.5)
PEER_DENSITY = 1e-2
N_MAPS = 6
TARGET = (1.15, 1.00)


@kernel
def decode(words: np.ndarray, n_words: Any, pages: np.ndarray, out: np.ndarray) -> None:
    """Every set bit's position into `pages` (uint32), ascending; out: how many."""
    found = U0
    index = next_touched(words, U0, n_words)
    while index < n_words:
        bits, first = words[index], index << U6
        while bits != U0:
            pages[found] = first + lowest(bits)
            found += U1
            bits &= bits - U1
        index = next_touched(words, index + U1, n_words)
    out[0] = found


def with_numpy(words: np.ndarray) -> np.ndarray:
    """The same as a NumPy script."""
    return np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))


def with_polars(words: np.ndarray) -> np.ndarray:
    """The same as a polars script."""
    return pl.Series(np.unpackbits(words.view(np.uint8), bitorder="little").view(bool)).arg_true().to_numpy()


def with_python(words: np.ndarray) -> np.ndarray:
    """The same in plain Python."""
    pages = []
    for index, bits in enumerate(words.tolist()):
        while bits:
            low = bits & -bits
            pages.append(index * 64 + low.bit_length() - 1)
            bits ^= low
    return np.array(pages)


PEERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "NumPy": with_numpy, "polars": with_polars, "Python": with_python,
}  # fmt: skip


def measure(quick: bool) -> list[Row]:
    """Rows for every size and density, and for the peers."""
    rows = []
    for name, n_pages in workloads.sizes(quick).items():
        for density in DENSITIES:
            rows.append(_compare(f"decode {name}, density {density:g}", n_pages, density, quick))
    for peer, write in PEERS.items():
        rows.append(_compare(f"decode {name}, against {peer}", n_pages, PEER_DENSITY, quick, write))
    return rows


def _compare(
    what: str, n_pages: int, density: float, quick: bool, peer: Callable[[np.ndarray], np.ndarray] | None = None
) -> Row:
    maps = [workloads.bitmap(n_pages, density, workloads.SEED + turn) for turn in range(N_MAPS)]
    words, out = maps[0].copy(), np.zeros(1, dtype=np.uint64)
    pages = np.zeros(max(int(np.bitwise_count(each).sum()) for each in maps), dtype=np.uint32)

    def result() -> list[int]:
        found = pages[: int(out[0])].astype(np.int64)
        return [found.size, int(found.sum()), int(np.diff(found).min())]

    def run_peer() -> None:
        found = peer(words)  # type: ignore[misc]
        out[0], pages[: found.size] = found.size, found

    def side(run: Any, idle: Any, clock: Any = time.thread_time_ns) -> Side | None:
        turns = itertools.cycle(maps)  # one map again and again is learnt by the branch predictor
        restore = lambda: np.copyto(words, next(turns))  # noqa: E731
        return Side(run=run, idle=idle, prepare=restore, result=result, clock=clock) if run else None

    ours = side(lambda: decode(words, U64(words.size), pages, out), lambda: decode(words, U0, pages, out))
    if peer is not None:
        return compare(what, ours, side(run_peer, None, time.process_time_ns), unit="us", quick=quick)
    run = c_call("decode", "decode", words, words.size, pages, out)
    theirs = side(run, c_call("decode", "decode", words, 0, pages, out))
    return compare(what, ours, theirs, unit="us", quick=quick, target=TARGET)
