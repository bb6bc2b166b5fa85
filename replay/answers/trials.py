"""Replays of one guest, many at once: it is decoded once, and threads share it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

from replay import api, plugins
from replay.config import RunConfig
from replay.errors import UsageError
from replay.sweeping.jobs import Guests, Job, run_job, stream

if TYPE_CHECKING:
    from replay.results.result import Result

GUEST = "the guest"
Told = Callable[[int, int], None]
"""Called with (replays done, replays in all, as far as is known); raise from it to cancel."""


class Trials:
    """Replays of `guest` (a trace, a generated guest, or what opens as one). Use as a context: leaving it stops them.

    threads: replays at once (default: the CPUs that this process may use).
    """

    def __init__(self, guest: Any, *, threads: int | None = None, progress: Told | None = None) -> None:
        if threads is not None and threads < 1:
            raise UsageError(f"{threads} replays at once: at least one")
        self.guest = api.open_trace(guest) if isinstance(guest, str | os.PathLike) else guest
        self.done = 0
        self.expected = 0
        self._guests = Guests({GUEST: self.guest}.__getitem__)
        self._slots = threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._slots)
        self._over = threading.Event()
        self._progress = progress

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def starts(self, count: int) -> list[int]:
        """So many moments (ns) at which a migration begins, spread evenly over the recording."""
        if not 1 <= count <= 10_000:
            raise UsageError(f"{count} start moments: from 1 to 10000")
        return [self.guest.metadata.duration_ns * number // count for number in range(count)]

    def results(self, configs: Iterable[RunConfig]) -> Generator[tuple[int, Result], None, None]:
        """(number of the configuration, its result) as they are done. Closing it leaves out what has not begun, and
        stops what has."""
        listed = list(configs)
        self._warm(listed)
        stop = threading.Event()

        def submit(numbered: tuple[int, RunConfig]) -> Any:
            job = Job(guest=GUEST, factor=Fraction(1), config=numbered[1])
            return self._pool.submit(partial(run_job, self._guests, job, cancelled=stop))

        running = stream(enumerate(listed), submit, slots=self._slots)
        try:
            for (number, _), future in running:
                result = future.result()
                self.done += 1
                if self._progress is not None:
                    self._progress(self.done, max(self.done, self.expected))
                yield number, result
        finally:
            stop.set()
            running.close()

    def all(self, configs: list[RunConfig]) -> list[Result]:
        """The results of all, in the order of the configurations."""
        found = dict(self.results(configs))
        return [found[number] for number in range(len(configs))]

    def _warm(self, configs: list[RunConfig]) -> None:
        from replay.migration.warm import warm

        for config in configs:
            warm(plugins.parse("log", config.log), plugins.parse("design", config.design), config.formulation)
