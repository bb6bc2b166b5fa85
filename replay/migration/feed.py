"""Windows of events for the guest: from a source, cut into lanes, one after the other, and over again if asked.

A source yields windows of events in time order. The kernel uses up a lane and asks for more; the feed then takes the
next window, puts what other lanes have not used yet before it, and hands both over. With one lane nothing is copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from replay.jit import NONE
from replay.kernels import memory
from replay.migration.guest import (
    BUSY_UNTIL_PS,
    CHECK,
    CLOSED_LOOP,
    END_NS,
    HOST,
    N_CAUSES,
    N_STATE,
    NEXT_PS,
    OPEN,
    SOURCE_SHIFT,
    SYNC,
    TICK_PS,
    VCPU_MASK,
    Guest,
)
from replay.migration.xbzrle import new_cache
from replay.verbs import GuestShape

_U = np.uint64
_WRAP = 1 << 64


class Window(NamedTuple):
    """Events with t_ns in [.., end_ns), ascending; times count from the start of the recording (of this repetition)."""

    t_ns: np.ndarray  # uint64 (n,)
    page: np.ndarray  # uint32 (n,)
    origin: np.ndarray  # uint16 (n,)
    end_ns: int


def windows_of(parts: Iterator[Any], end_ns: int) -> Iterator[Window]:
    """Consecutive events in parts of any sizes as windows; the last one ends at `end_ns`, each other where the next one
    begins. There is at least one."""
    written = (part for part in parts if part[0].size)
    t_ns, page, origin = next(written, None) or _no_events()
    for part in written:
        yield Window(t_ns, page, origin, int(part[0][0]))
        t_ns, page, origin = part
    yield Window(t_ns, page, origin, end_ns)


def cut(windows: Iterator[Window], n_events: int) -> Iterator[Window]:
    """The same windows, none of more than `n_events`."""
    for window in windows:
        parts = (
            tuple(array[first : first + n_events] for array in window[:3])
            for first in range(0, window.t_ns.size, n_events)
        )
        yield from windows_of(parts, window.end_ns)


class Source(Protocol):
    """Where events come from: a guest's shape, how long its recording is, and its windows from a start time on."""

    shape: GuestShape
    duration_ns: int

    def windows(self, start_ns: int) -> Iterator[Window]: ...

    def zero_pages(self) -> np.ndarray: ...


LANE_EVENTS = 1 << 16
"""Events that are sorted into lanes at once: what they are copied to stays in the cache."""


class Feed:
    """The guest of one replay, and the windows that are still to come."""

    def __init__(self, source: Source, *, start_ns: int, lanes: int, loop: bool, closed_loop: bool, check: bool):
        self._source = source
        self._loop = loop
        self._lanes = lanes
        self._windows = self._open(start_ns)
        self.closed_loop = closed_loop
        self.repeats = 0
        self.ended = False
        shape = source.shape
        self.n_vcpus = shape.n_vcpus
        content = np.zeros((shape.n_words, 2), dtype=np.uint64)
        content[:, 0] = memory.ones_up_to(shape.n_pages, shape.n_words)
        zeros = memory.words(shape.n_words)
        given = source.zero_pages()
        zeros[: given.size] = given
        content[:, 1] = zeros
        state = np.zeros(N_STATE, dtype=np.uint64)
        state[OPEN], state[CLOSED_LOOP], state[CHECK] = 1, closed_loop, check
        state[END_NS] = start_ns
        state[TICK_PS] = NONE
        t_ns, page, origin = _no_events()
        self.guest = Guest(
            t_ns=t_ns,
            page=page,
            origin=origin,
            head=memory.words(lanes),
            stop=memory.words(lanes),
            offset_ps=memory.words(lanes, (-start_ns * 1000) % _WRAP),
            stall_ps=memory.words(N_CAUSES * lanes),
            held_ps=memory.words(lanes, _WRAP - 1),
            retry_ps=memory.words(lanes),
            state=state,
            outside=memory.words(shape.n_words),
            content=content.reshape(-1),
            zeros=zeros,
            cache=new_cache(),
            turned=np.zeros(-(-shape.n_words // 64), dtype=np.uint8),
        )

    def _open(self, start_ns: int) -> Iterator[Window]:
        """With one lane windows are used as they are, of whatever size; with several they are copied."""
        windows = self._source.windows(start_ns)
        return windows if self._lanes == 1 else cut(windows, LANE_EVENTS)

    def hold(self, until_ps: np.uint64, stall_ps: np.uint64) -> None:
        """A sync holds the big lock until then, and every vCPU that it kicked stood still for its kick."""
        guest = self.guest
        guest.state[BUSY_UNTIL_PS] = until_ps
        moving = guest.held_ps == NONE
        guest.stall_ps.reshape(N_CAUSES, -1)[SYNC, moving] += stall_ps
        if self.closed_loop:
            guest.offset_ps[moving] += stall_ps
        guest.state[NEXT_PS] = 0

    def refill(self) -> None:
        """Hand the kernel the next window; after the last one, begin again (loop) or let the guest go idle (hold)."""
        guest = self.guest
        window = next(self._windows, None)
        shift_ns = 0
        if window is None:
            if not self._loop:
                self.ended = True
                guest.state[OPEN], guest.state[NEXT_PS] = 0, 0
                return
            self.repeats += 1
            shift_ns = self._source.duration_ns
            self._windows = self._open(0)
            window = next(self._windows)
        parts = self._leftovers(shift_ns)
        if shift_ns:
            guest.offset_ps[:] += _U(shift_ns * 1000 % _WRAP)
        self._place(window, parts)
        guest.state[END_NS], guest.state[NEXT_PS] = window.end_ns, 0

    def _leftovers(self, shift_ns: int) -> list[tuple[np.ndarray, ...]]:
        """Events that lanes have not used yet; their times are moved back by `shift_ns`, wrapping below zero."""
        guest = self.guest
        parts: list[tuple[np.ndarray, ...]] = []
        for head, stop in zip(guest.head.tolist(), guest.stop.tolist(), strict=True):
            t_ns = guest.t_ns[head:stop]
            parts.append((t_ns - _U(shift_ns) if shift_ns else t_ns, guest.page[head:stop], guest.origin[head:stop]))
        return parts

    def _place(self, window: Window, parts: list[tuple[np.ndarray, ...]]) -> None:
        arrays: tuple[np.ndarray, ...] = window[:3]
        if self._lanes == 1 and parts[0][0].size == 0:
            stops = [window.t_ns.size]
            heads = [0]
        else:
            lane = lane_of(window.origin, self._lanes)
            order = np.argsort(lane, kind="stable")
            edges = np.searchsorted(lane[order], np.arange(self._lanes + 1))
            pieces = [
                part
                for index, left in enumerate(parts)
                for part in (left, tuple(array[order[edges[index] : edges[index + 1]]] for array in arrays))
            ]
            arrays = tuple(np.concatenate([piece[column] for piece in pieces]) for column in range(3))
            sizes = [left[0].size + edges[index + 1] - edges[index] for index, left in enumerate(parts)]
            stops = np.cumsum(sizes).tolist()
            heads = [0, *stops[:-1]]
        for array in arrays:
            array.flags.writeable = False
        self.guest = self.guest._replace(t_ns=arrays[0], page=arrays[1], origin=arrays[2])
        self.guest.head[:] = heads
        self.guest.stop[:] = stops


def _no_events() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    arrays = np.empty(0, np.uint64), np.empty(0, np.uint32), np.empty(0, np.uint16)
    for array in arrays:
        array.flags.writeable = False
    return arrays


def lane_of(origin: np.ndarray, lanes: int) -> np.ndarray:
    """The lane of each event: that of the vCPU on whose thread it happened, and the last lane for devices."""
    if lanes == 1:
        return np.zeros(origin.size, dtype=np.uint16)
    on_vcpu = (origin >> np.uint16(SOURCE_SHIFT)) <= np.uint16(HOST)
    return np.where(on_vcpu, origin & np.uint16(VCPU_MASK), lanes - 1).astype(np.uint16)
