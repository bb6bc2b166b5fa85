"""What runs the jobs of a sweep: threads of this process, or any executor of the shape of concurrent.futures.

    threads                  of this process; one decoded guest for all (the default)
    processes:N              N processes of this machine
    dask:tcp://HOST:PORT     the workers of a dask scheduler (extra [cluster])
    dask:local:N             N dask workers on this machine

Threads can be told to stop; what runs elsewhere ends by itself, and its result is not waited for. A dask worker that is
lost has its runs done by another; traces travel by path, or as bytes to whoever does not see them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from replay.errors import UsageError
from replay.sweeping import record
from replay.sweeping.jobs import Job

SPELLINGS = "threads, processes:N, dask:tcp://HOST:PORT or dask:local:N"
_RESERVE = 0.8


@dataclass(kw_only=True)
class Pool:
    """Somewhere to run jobs. `budget`: bytes of memory for those that run at once, 0 where it is not ours to say.

    submit: a job to its future; never more than `slots` should be submitted. cancelled: tells threads to stop soon.
    stop: what was made here goes away, with all that still runs in it.
    """

    slots: int
    budget: int
    submit: Callable[[Job], Future[Any]]
    stop: Callable[[], None]
    cancelled: threading.Event


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def free_bytes() -> int:
    """Memory that is free for replays: of the machine, or what the control group leaves."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):
            free = min(free, max(0, int(Path(limit).read_text()) - int(Path(used).read_text())))
    return int(free * _RESERVE)


def open_pool(given: str | Executor | None, jobs: int | None) -> Pool:
    """A pool by its spelling, or around an executor. Raises UsageError, and ReplayError where no cluster answers.

    jobs: runs at once (default: CPUs of threads and processes; twice the threads of a cluster, so that none waits).
    """
    if isinstance(given, Executor):
        return _around(given, jobs)
    name, _, rest = (given or "threads").partition(":")
    if name == "threads" and not rest:
        slots = jobs or cpus()
        return _around(ThreadPoolExecutor(slots), slots, owned=True)
    if name == "processes" and rest.isdigit() and int(rest):
        import multiprocessing

        slots = jobs or int(rest)
        spawning = multiprocessing.get_context("spawn")
        return _around(ProcessPoolExecutor(int(rest), spawning, _settle_in), slots, owned=True)
    if name == "dask" and rest:
        from replay.sweeping.cluster import open_dask

        return open_dask(rest, jobs)
    raise UsageError(f"executor {given!r}: write {SPELLINGS}")


def _around(executor: Executor, jobs: int | None, owned: bool = False) -> Pool:
    cancelled = threading.Event()
    work: Any = record.perform
    if isinstance(executor, ThreadPoolExecutor):
        work = partial(record.perform, cancelled=cancelled)
    local = isinstance(executor, ThreadPoolExecutor | ProcessPoolExecutor)

    def stop() -> None:
        if not owned:
            return
        processes = list((getattr(executor, "_processes", None) or {}).values())
        executor.shutdown(wait=not processes, cancel_futures=True)
        for process in processes:
            process.terminate()

    return Pool(
        slots=jobs or getattr(executor, "_max_workers", None) or cpus(),
        budget=free_bytes() if local else 0,
        submit=partial(executor.submit, work),
        stop=stop,
        cancelled=cancelled,
    )


def _settle_in() -> None:
    """First thing that a process does. Ctrl-C reaches every process of a terminal; the one that started the others
    decides. When that one is killed, nobody tells the others, which would wait for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    from multiprocessing import connection, parent_process

    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
