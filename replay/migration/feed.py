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
from replay.kernels.deal import count_lanes, deal, keep
from replay.migration.guest import (
    BUSY_UNTIL_PS,
    CHECK,
    CLOSED_LOOP,
    END_NS,
    FILLS,
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
    new_block,
)
from replay.migration.plan import new_plan
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
        self._dealt = [_room(0), _room(0)]
        self.changed_kind = False  # whether some window's arrays are laid out otherwise than those before
        shape = source.shape
        self.n_vcpus = shape.n_vcpus
        given = source.zero_pages()
        some_empty = bool(given.any())
        zeros = memory.words(shape.n_words) if some_empty else memory.unused(shape.n_words)
        if some_empty:
            zeros[: given.size] = given
        state = np.zeros(N_STATE, dtype=np.uint64)
        state[OPEN], state[CLOSED_LOOP] = 1, closed_loop
        state[FILLS] = some_empty
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
            outside=memory.unused(shape.n_words),
            stale=memory.unused(shape.n_words),
            empty=zeros.copy() if some_empty else memory.unused(shape.n_words),
            zeros=zeros,
            cache=new_cache(),
            turned=memory.words(-(-shape.n_words // (4096 * 8)) * 8),
            block=new_block(lanes),
            plan=new_plan(shape.n_words),
        )
        if check:
            self.keep_stale()

    def keep_stale(self) -> None:
        """Keep track, from the beginning, of which pages' copies are out of date."""
        shape, guest = self._source.shape, self.guest
        guest.state[CHECK] = 1
        guest.stale[:] = memory.ones_up_to(shape.n_pages, shape.n_words)

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
        arrays = _sealed(window[:3])  # of one kind to all kernels
        if self._lanes == 1 and guest.head[0] == guest.stop[0]:
            guest.head[0], guest.stop[0] = 0, window.t_ns.size
        else:
            arrays = _sealed(self._deal(arrays, _U(shift_ns)))
        self.changed_kind |= any(map(_of_other_kind, arrays, guest[:3]))
        self.guest = guest._replace(t_ns=arrays[0], page=arrays[1], origin=arrays[2])
        if shift_ns:
            guest.offset_ps[:] += _U(shift_ns * 1000 % _WRAP)
        guest.state[END_NS], guest.state[NEXT_PS] = window.end_ns, 0

    def _deal(self, window: tuple[np.ndarray, ...], earlier_ns: np.uint64) -> tuple[np.ndarray, ...]:
        """A window's events lane by lane, behind those that the lanes have not used yet, whose times are moved back.

        Two sets of arrays take turns, so that they stay in the cache.
        """
        guest, lane = self.guest, lane_of(window[2], self._lanes)
        counts = guest.stop - guest.head
        count_lanes(lane, counts)
        stops = np.cumsum(counts, dtype=np.uint64)
        total, place = int(stops[-1]), stops - counts
        self._dealt.reverse()
        if self._dealt[0][0].size < total:
            self._dealt[0] = _room(2 * total)
        arrays, heads = self._dealt[0], place.copy()
        keep(*guest[:3], guest.head, guest.stop, earlier_ns, place, *arrays)
        deal(*window, lane, place, *arrays)
        guest.head[:], guest.stop[:] = heads, stops
        return tuple(array[:total] for array in arrays)


def _of_other_kind(array: np.ndarray, other: np.ndarray) -> bool:
    """Whether kernels must be compiled for `array` beside `other`, of the same dtype and number of dimensions."""
    return array.flags.aligned != other.flags.aligned or array.flags.c_contiguous != other.flags.c_contiguous


def _room(n_events: int) -> tuple[np.ndarray, ...]:
    return np.empty(n_events, np.uint64), np.empty(n_events, np.uint32), np.empty(n_events, np.uint16)


def _no_events() -> tuple[np.ndarray, ...]:
    return _sealed(_room(0))


def _sealed(arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """The same arrays, read-only from now on."""
    for array in arrays:
        array.flags.writeable = False
    return arrays


def lane_of(origin: np.ndarray, lanes: int) -> np.ndarray:
    """The lane of each event: that of the vCPU on whose thread it happened, and the last lane for devices."""
    if lanes == 1:
        return np.zeros(origin.size, dtype=np.uint16)
    on_vcpu = (origin >> np.uint16(SOURCE_SHIFT)) <= np.uint16(HOST)
    return np.where(on_vcpu, origin & np.uint16(VCPU_MASK), lanes - 1).astype(np.uint16)
