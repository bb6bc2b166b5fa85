"""The positions of all set bits of a bitmap, as numbers: against C's ctz loop, and what one would write instead.

Two sizes are decoded as a whole, by the kernel for this processor and by its portable twin. A 12T map goes in one pass
through a buffer that stays in the cache, as does C's; its target is a time. Peers do the same to maps of 1 %; of theirs
the CPU time of all threads counts.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from replay.jit import U0, U64, kernel
from replay.kernels.decode import SPARE_PAGES, decode, decode_portable, new_list
from replay.kernels.vector import COMPRESSES
from tools.bench import workloads
from tools.bench.harness import Row, Side, Target, c_call, compare, verdict

DENSITIES = (1e-3, 1e-2, 0.5)
PEER_DENSITY = 1e-2
N_MAPS = 6
TARGET = (1.15, 1.00)
VECTOR_TARGETS = {1e-3: (0.50, 0.35), 1e-2: (0.40, 0.25), 0.5: (0.33, 0.15)}
PASS_MS = {0.0: (16.0, 14.0), 1e-2: (100.0, 65.0), 5e-2: (200.0, 120.0)}
PASS_PAGES = 16_384


@kernel
def decode_all(words: np.ndarray, n_words: Any, listed: np.ndarray, pages: np.ndarray, out: np.ndarray) -> None:
    """Every set bit's position into `pages` (uint32), ascending; out: how many."""
    out[0], _ = decode(words, U0, n_words, listed, pages)


@kernel
def decode_all_portably(
    words: np.ndarray, n_words: Any, listed: np.ndarray, pages: np.ndarray, out: np.ndarray
) -> None:
    """`decode_all` by the portable twin."""
    out[0], _ = decode_portable(words, U0, n_words, listed, pages)


@kernel
def decode_through(words: np.ndarray, n_words: Any, listed: np.ndarray, pages: np.ndarray, out: np.ndarray) -> None:
    """The same through a small buffer; out: how many, and the last of them."""
    found, last, first = U0, U0, U0
    while first < n_words:
        count, first = decode(words, first, n_words, listed, pages)
        found += count
        if count > U0:
            last = U64(pages[count - 1])
    out[0] = found
    out[1] = last


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
    """Rows for every size and density, for a pass over 12T, and for the peers."""
    rows = []
    for name, n_pages in workloads.sizes(quick).items():
        for density in DENSITIES:
            label = f"{name}, density {density:g}"
            if COMPRESSES:
                rows.append(_compare(f"decode {label}", n_pages, density, VECTOR_TARGETS[density], quick, decode_all))
            rows.append(_compare(f"portable decode {label}", n_pages, density, TARGET, quick, decode_all_portably))
    for peer, write in PEERS.items():
        rows.append(_compare(f"decode {name}, against {peer}", n_pages, PEER_DENSITY, None, quick, decode_all, write))
    ((name, n_pages),) = workloads.sizes(quick, ("12T",)).items()
    for density, most in PASS_MS.items():
        rows.append(_one_pass(f"decode pass {name}, density {density:g}", n_pages, density, most, quick))
    return rows


def _compare(
    what: str,
    n_pages: int,
    density: float,
    target: Target | None,
    quick: bool,
    kernel: Callable[..., None],
    peer: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Row:
    maps = [workloads.bitmap(n_pages, density, workloads.SEED + turn) for turn in range(N_MAPS)]
    words, out, listed = maps[0].copy(), np.zeros(1, dtype=np.uint64), new_list()
    pages = np.zeros(max(int(np.bitwise_count(each).sum()) for each in maps) + SPARE_PAGES, dtype=np.uint32)

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

    ours = side(
        lambda: kernel(words, U64(words.size), listed, pages, out), lambda: kernel(words, U0, listed, pages, out)
    )
    if peer is not None:
        return compare(what, ours, side(run_peer, None, time.process_time_ns), unit="us", quick=quick)
    run = c_call("decode", "decode", words, words.size, pages, out)
    theirs = side(run, c_call("decode", "decode", words, 0, pages, out))
    return compare(what, ours, theirs, unit="us", quick=quick, target=target)


def _one_pass(what: str, n_pages: int, density: float, most: Target, quick: bool) -> Row:
    """The target is one of our time. Neighbouring words differ; the map repeats itself after 96G."""
    words, out, listed = workloads.large_bitmap(n_pages, density), np.zeros(2, dtype=np.uint64), new_list()
    pages = np.zeros(PASS_PAGES, dtype=np.uint32)

    def side(run: Any) -> Side | None:
        return Side(run=run, result=out.tolist) if run else None

    ours = side(lambda: decode_through(words, U64(words.size), listed, pages, out))
    theirs = side(c_call("decode", "decode_through", words, words.size, pages, pages.size, out))
    row = compare(what, ours, theirs, unit="ms", quick=quick)
    return row if quick else dataclasses.replace(row, **verdict(most, row.ours, " ms"))
