"""One replay among many: what it is made of, the guests that many share, and how a stream of them keeps workers busy.

A guest is decoded (or generated) once for each trace, memory (of a generated one), dirty rate and seed and shared by
all jobs of it that run in one process. Grids (replay.grid) and sweeps run their jobs through this.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from replay.chance import NS_PER_S
from replay.config import RunConfig

if TYPE_CHECKING:
    from replay.results.result import Result

KEPT_GUESTS = 2
"""Decoded guests that a process keeps beside those in use: the one that is worked on and the next."""
EVENT_BYTES = 40
"""An event of a guest in use: 14 bytes decoded, which are shared, and each run's own for lanes and stretched copies."""
PAGE_BYTES = 4
"""A page of a replayed guest: bitmaps, versions, queues. With RUN_BYTES and events this is twice what was measured: 45
to 80 MiB for a recording of 1.35 million events, embedded or stretched to 96 GiB, in bitmap and double-ring."""
RUN_BYTES = 24 << 20
"""What a replay needs whatever its guest."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A replay: `guest` is what its guest is known by to `Guests`, `factor` multiplies the guest's dirty rate."""

    guest: Any
    factor: Fraction
    config: RunConfig


class Guests:
    """Guests that were opened, with a few of them decoded; for all threads of a process.

    open: a job's `guest` to a trace or generated guest.
    """

    def __init__(self, open: Callable[[Any], Any]) -> None:
        self._open = open
        self._opened: dict[Any, Any] = {}
        self._settled: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, job: Job) -> Any:
        """The job's guest, decoded. Raises TraceError and UsageError."""
        from replay.synthesis.synthetic import Synthetic, faster, settled

        with self._lock:
            opened = self._opened.get(job.guest)
            if opened is None:
                opened = self._opened[job.guest] = self._open(job.guest)
            config = job.config
            key = (job.guest, job.factor, *((config.memory, config.seed) if isinstance(opened, Synthetic) else ()))
            guest = self._settled.get(key)
            if guest is None:
                guest = self._settled[key] = faster(settled(opened, config.memory, config.seed), job.factor)
            self._settled.move_to_end(key)
            while len(self._settled) > KEPT_GUESTS:
                forgotten, _ = self._settled.popitem(last=False)
                if all(other[0] != forgotten[0] for other in self._settled):
                    del self._opened[forgotten[0]]
        guest.decode()
        return guest


def run_job(guests: Guests, job: Job, *, cancelled: threading.Event | None = None) -> Result:
    """Run it. Raises what a replay raises, and KeyboardInterrupt soon after `cancelled` was set."""
    from replay import api

    def go_on(*_: int) -> None:
        if cancelled is not None and cancelled.is_set():
            raise KeyboardInterrupt

    go_on()
    return api.run_config(guests.get(job), job.config, progress=go_on)


def by_guest(jobs: Iterable[Job]) -> list[Job]:
    """The jobs with those of one guest together, guests and jobs in the order in which they first appear."""
    groups: dict[Any, list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.guest, job.factor, job.config.memory, job.config.seed), []).append(job)
    whole: dict[Any, list[Job]] = {}
    for (guest, *_), members in groups.items():
        whole.setdefault(guest, []).extend(members)
    return [job for members in whole.values() for job in members]


def rate_of(opened: Any) -> Fraction:
    """Events a second of a guest: recorded ones on average, generated ones at their busiest."""
    from replay.synthesis.synthetic import Synthetic

    if isinstance(opened, Synthetic):
        return opened.rate
    return Fraction(opened.n_events * NS_PER_S, opened.metadata.duration_ns)


def stream(
    jobs: Iterable[Any],
    submit: Callable[[Any], Future[Any]],
    *,
    slots: int,
    needs: Callable[[Any], int] = lambda job: 0,
    budget: int = 0,
) -> Generator[tuple[Any, Future[Any]], Any, None]:
    """(job, its future that is done) as they get done, with never more than `slots` submitted.

    needs: bytes of memory of a job; together those submitted need at most `budget` (0: no limit), but one always runs.
    A job that is sent back (`.send(job)`) is submitted again.
    """
    waiting, running, used = deque(jobs), dict[Future[Any], Any](), 0
    try:
        while waiting or running:
            while waiting and len(running) < slots:
                job = waiting[0]
                if running and budget and used + needs(job) > budget:
                    break
                waiting.popleft()
                running[submit(job)] = job
                used += needs(job)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                used -= needs(job)
                again = yield job, future
                while again is not None:
                    waiting.append(again)
                    again = yield job, future
    finally:
        for future in running:
            future.cancel()
