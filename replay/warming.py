"""Compiling ahead: the kernels of every pair of dirty log and design, so that no later replay has to.

Each core compiles pairs of its own in a process of its own, since numba compiles one kernel at a time in a process.
What two pairs share one of them compiles while the other waits for it (replay/jit.py).
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from replay import jit, plugins
from replay.errors import ReplayError, UsageError

FORMULATIONS = ("auto", "stepping")


@dataclass(frozen=True, kw_only=True)
class Warmed:
    """What was done. kernels: specialisations on disk, found and made here; pairs: of a log and a design."""

    folder: Path
    pairs: int
    found: int
    made: int
    seconds: float


def warm_all(
    logs: Sequence[str] = (),
    designs: Sequence[str] = (),
    *,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Warmed:
    """Compile what replays through these logs and designs need (default: all there are), in every formulation.

    jobs: processes (default: one a core). progress is called with (pairs done, all). Raises UsageError for a name that
    is unknown, and ReplayError where compiled kernels cannot be kept.
    """
    begin = time.monotonic()
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs {jobs}: at least one process")
    pairs = [
        (log, design)
        for design in designs or plugins.names("design")
        for log in logs or plugins.names("log")
    ]  # fmt: skip
    for kind, named in (("log", logs), ("design", designs)):
        for name in named:
            plugins.parse(kind, name)
    folder = jit.CACHE_FOLDER
    if folder is None or jit.DISABLED:
        raise ReplayError(
            "compiled kernels cannot be kept: no folder is writable; set REPLAY_CACHE_DIR to one that is"
            if folder is None
            else "there is nothing to compile while NUMBA_DISABLE_JIT is set"
        )
    found = kept(folder)
    _compile(pairs, min(jobs or len(os.sched_getaffinity(0)), len(pairs)), progress)
    jit.COLD = False
    made = kept(folder) - found
    return Warmed(folder=folder, pairs=len(pairs), found=found, made=made, seconds=time.monotonic() - begin)


def kept(folder: Path) -> int:
    """Compiled specialisations of kernels in a cache folder."""
    return sum(1 for _ in folder.rglob("*.nbc"))


def _compile(pairs: list[tuple[str, str]], jobs: int, progress: Callable[[int, int], None] | None) -> None:
    done = 0
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(compile_pair, *pair) for pair in pairs]
        try:
            if progress is not None:
                progress(done, len(pairs))
            for future in as_completed(futures):
                future.result()
                done += 1
                if progress is not None:
                    progress(done, len(pairs))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def compile_pair(log: str, design: str) -> None:
    """Compile, or load, all that replays through this log and this design need."""
    from replay.migration.warm import warm
    from replay.trace import unpack

    unpack.compile_ahead()
    pair = plugins.parse("log", log), plugins.parse("design", design)
    for formulation in FORMULATIONS:
        for switches in (False, True):
            warm(*pair, formulation, switches=switches)
