"""What a user would write instead: one migration as a script, with NumPy, polars, pyroaring, plain Python and simpy.

All compute the same: TCG's log, a page costs `PAGE_PS` and nothing else costs anything, no rate limit, 300 ms of
downtime. A sync collects what was written since the last one; pages are sent in order from where the last round ended,
in passes of 51 ms; a sync follows when what is left fits into the downtime at the bandwidth of the last 100 ms; when
what is left after it fits as well, the guest stops and the rest is sent. `with_ring` keeps the pages of a round in two
rings that are swapped at a sync, all others keep a set of pages.
"""

from __future__ import annotations

import importlib.util
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import polars as pl

PAGE_PS, DOWNTIME_MS = 3_277_000, 300
PAGE_BYTES, SENT_BYTES, PASS_BYTES = 4096, 4104, 18
PASS_PS, WINDOW_MS, PS_PER_MS, CALLS_PER_CHECK = 51 * 10**9, 100, 10**9, 64


class Migrated(NamedTuple):
    """What two scripts must agree on."""

    new_pages: list[int]  # of each sync
    pages: int  # sent in all
    end_ps: int


class Clock:
    """When to do what, for all scripts: a look a pass, nothing that costs time."""

    def __init__(self, n_pages: int) -> None:
        self.now_ps, self.pending, self.sent = 0, n_pages, 0
        self.threshold = self._window_ms = self._window_bytes = self._bytes = 0
        self.new_pages: list[int] = []

    @property
    def now_ns(self) -> int:
        """Events up to and including this time have happened."""
        return self.now_ps // 1000

    @property
    def few(self) -> bool:
        """Whether what is left fits into the downtime."""
        return self.pending * PAGE_BYTES < self.threshold

    def pass_of(self) -> int:
        """Pages of the next pass: the clock is looked at after the first page and every 64 pages later."""
        checks = -(-(-(-PASS_PS // PAGE_PS) - 1) // CALLS_PER_CHECK)
        return min(self.pending, checks * CALLS_PER_CHECK + 1)

    def pages_sent(self, count: int) -> None:
        """A pass is over."""
        self.now_ps += count * PAGE_PS
        self.pending -= count
        self.sent += count
        self._bytes += count * SENT_BYTES + PASS_BYTES
        now_ms = self.now_ps // PS_PER_MS
        if now_ms - self._window_ms >= WINDOW_MS:
            self.threshold = int((self._bytes - self._window_bytes) / (now_ms - self._window_ms) * DOWNTIME_MS)
            self._window_ms, self._window_bytes = now_ms, self._bytes

    def synced(self, new: int) -> None:
        """A sync found so many pages that were not pending already."""
        self.pending += new
        self.new_pages.append(new)

    def passes(self) -> Iterator[int]:
        """Pages to send, pass by pass, up to the next sync."""
        while True:
            yield (count := self.pass_of())
            self.pages_sent(count)
            if self.few or not self.pending:
                return

    def stops(self) -> bool:
        """Whether the guest is stopped after a sync instead of being copied further."""
        return self.few or not self.pending

    def end(self) -> Migrated:
        """The guest has stopped: the rest is sent at once."""
        self.now_ps += self.pending * PAGE_PS
        return Migrated(self.new_pages, self.sent + self.pending, self.now_ps)


def with_numpy(t_ns: np.ndarray, page: np.ndarray, n_pages: int) -> Migrated:
    """A bool a page; the pages of a round in order as an array."""
    clock, todo, first, cursor = Clock(n_pages), np.ones(n_pages, dtype=bool), 0, 0

    def sync() -> None:
        nonlocal first
        last = int(np.searchsorted(t_ns, np.uint64(clock.now_ns), side="right"))
        todo[page[first:last]] = True
        first = last
        clock.synced(int(np.count_nonzero(todo)) - clock.pending)

    sync()
    while True:
        order = np.flatnonzero(todo)
        order = np.roll(order, -int(np.searchsorted(order, cursor)))
        at = 0
        for count in clock.passes():
            todo[order[at : at + count]] = False
            at += count
        cursor = int(order[at - 1]) + 1
        sync()
        if clock.stops():
            sync()
            return clock.end()


def with_polars(events: pl.DataFrame, n_pages: int) -> Migrated:
    """A filter a round; the pages of a round in order as a series."""
    import polars as pl

    clock, todo, cursor, last_ns = Clock(n_pages), pl.Series("page", np.arange(n_pages, dtype=np.uint32)), 0, -1

    def sync() -> None:
        nonlocal todo, last_ns
        now = clock.now_ns
        written = events.lazy().filter(pl.col("t_ns").is_between(last_ns, now, "right")).select("page").unique()
        last_ns = now
        todo = pl.concat([todo, written.collect()["page"]]).unique().sort()
        clock.synced(todo.len() - clock.pending)

    sync()
    while True:
        ahead = todo.search_sorted(cursor)
        order = pl.concat([todo[ahead:], todo[:ahead]])
        at = sum(clock.passes())
        cursor, todo = order[at - 1] + 1, order[at:].sort()
        sync()
        if clock.stops():
            sync()
            return clock.end()


def with_pyroaring(t_ns: np.ndarray, page: np.ndarray, n_pages: int) -> Migrated:
    """Compressed bitmaps: of what is written, of what is pending."""
    from pyroaring import BitMap

    clock, todo, first, cursor = Clock(n_pages), BitMap(range(n_pages)), 0, 0

    def sync() -> None:
        nonlocal first, todo
        last = int(np.searchsorted(t_ns, np.uint64(clock.now_ns), side="right"))
        todo |= BitMap(page[first:last])
        first = last
        clock.synced(len(todo) - clock.pending)

    sync()
    while True:
        order = np.array(todo.to_array(), copy=False)
        order = np.roll(order, -int(np.searchsorted(order, cursor)))
        at = sum(clock.passes())
        cursor, todo = int(order[at - 1]) + 1, BitMap(order[at:])
        sync()
        if clock.stops():
            sync()
            return clock.end()


def with_ring(t_ns: list[int], page: list[int], n_pages: int) -> Migrated:
    """Page by page in plain Python: two rings, a byte a page in either layer, and one pass over memory first."""
    clock, marked, todo = Clock(n_pages), bytearray(n_pages), bytearray(b"\1") * n_pages
    filling: deque[int] = deque()
    draining: deque[int] = deque()
    index, events, cursor = 0, len(t_ns), 0

    def write_until(now_ns: int) -> None:
        nonlocal index
        while index < events and t_ns[index] <= now_ns:
            written = page[index]
            if not marked[written]:
                marked[written] = 1
                filling.append(written)
            index += 1

    def sync() -> None:
        nonlocal filling, draining
        write_until(clock.now_ns)
        filling.extend(left for left in draining if todo[left])
        draining.clear()
        filling, draining = draining, filling
        new = 0
        for written in draining:
            marked[written] = 0
            if not todo[written]:
                todo[written] = 1
                new += 1
        clock.synced(new)

    def pop() -> int:
        nonlocal cursor
        if cursor >= 0:
            cursor = todo.find(1, cursor)
            if cursor >= 0:
                return cursor
        while not todo[next_page := draining.popleft()]:
            pass
        return next_page

    sync()
    while True:
        for count in clock.passes():
            now_ps = clock.now_ps
            for _ in range(count):
                write_until(now_ps // 1000)
                todo[pop()] = 0
                now_ps += PAGE_PS
        sync()
        if clock.stops():
            sync()
            return clock.end()


def with_simpy(t_ns: list[int], page: list[int], n_pages: int) -> Migrated:
    """Two processes in simulated time, the guest and the sender; sets of pages."""
    import simpy

    env, clock, todo, written = simpy.Environment(), Clock(n_pages), bytearray(b"\1") * n_pages, set()

    def guest() -> Generator[Any, Any, None]:
        last = 0
        for time, number in zip(t_ns, page, strict=True):
            if time != last:
                yield env.timeout(time - last)
                last = time
            written.add(number)

    def sync() -> None:
        fresh = [number for number in written if not todo[number]]
        for number in fresh:
            todo[number] = 1
        written.clear()
        clock.synced(len(fresh))

    def sender() -> Generator[Any, Any, None]:
        cursor = 0
        sync()
        while not clock.stops():
            for count in clock.passes():
                for _ in range(count):
                    cursor = todo.find(1, cursor)
                    if cursor < 0:
                        cursor = todo.find(1)
                    todo[cursor] = 0
                    cursor += 1
                    yield env.timeout(PAGE_PS // 1000)
            yield env.timeout(0)  # writes at this very moment come first
            sync()
        sync()

    env.process(guest())
    env.run(until=env.process(sender()))
    return clock.end()


def installed(module: str) -> bool:
    """Whether an optional package is there."""
    return importlib.util.find_spec(module) is not None


Script = Callable[..., Migrated]
