"""Postcopy: the guest goes on at the target while pages are missing there, and waits for each one that it touches.

The switch comes at the first pass of the loop after it was asked for. The source stops, syncs for the last time, tells
the target which pages to throw away (one entry a run of dirty pages), and sends the devices' state: that is the
downtime. Whatever the design, what it still holds is then a bitmap of missing pages, sent in address order. A store to
a missing page is a fault: its vCPU waits, the source sends the page next when it has the request, and goes on in
address order from there. There is no sync any more; when what is left is below the threshold, the rest is sent without
a limit.

Requests do not break the bandwidth limit (`max-postcopy-bandwidth`): a source whose window is used up sends what was
asked for in the next one. A trace that was recorded through a postcopy switch has the waits in it already: it goes on
from where its own guest went on, and a vCPU waits for its page, but its later stores are not delayed besides.

Not modelled: faults by reads and by instruction fetches (a trace has stores), preemption by a second channel, recovery.
Source: QEMU 10.0 migration/{migration,ram,savevm}.c by their described behaviour; times from one real migration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from replay.jit import NONE, U0, U1, U6, U63, U64, kernel
from replay.kernels import memory
from replay.kernels.bitmap import count_set, find_next
from replay.kernels.bits import popcount
from replay.migration import link
from replay.migration.engine import EMPTY, LIMITED, OUT_OF_TIME, WANT_EVENTS
from replay.migration.guest import (
    CLOSED_LOOP,
    END_NS,
    FETCH,
    NEED_LANE,
    OPEN,
    Guest,
    lane_time,
    read_pages,
    settle_classes,
)
from replay.migration.lanes import DONE, NEED_EVENTS
from replay.migration.link import LIMIT, PAGE_BYTES, WINDOW_MS, put_page, rate_exceeded
from replay.migration.sender import CALLS, DEADLINE_PS, NOW_PS, check_time, next_page, step_done, wait_until
from replay.units import PS_PER_MS
from replay.verbs import Meter
from replay.work import NORMAL_PAGES, POSTCOPY_FAULTS, POSTCOPY_PAGES, ZERO_PAGES

if TYPE_CHECKING:
    from replay.migration.precopy import Precopy

MAX_WAIT_MS = 50
CURSOR, LEFT, RECORDED, PAGE_PS, REQUEST_PS, PLACE_PS, N_PAGES = 0, 1, 2, 3, 4, 5, 6


@dataclass(frozen=True, kw_only=True)
class Switch:
    """When postcopy is asked for (ms after migrate), its bandwidth (bytes a second, 0: no limit), and the trace's own.

    `recorded_from_ns`: when the guest went on at the target, if the trace was recorded through such a switch.
    """

    after_ms: int
    max_bandwidth: int = 0
    recorded_from_ns: int | None = None


class Target(NamedTuple):
    """What the target still misses, and which lanes wait for a page. Times are host times in ps."""

    missing: np.ndarray  # uint64 (n_words,)  pages that have not been sent since the switch
    at: np.ndarray  # uint64 (7,)  CURSOR, LEFT: the walk over `missing`; RECORDED: 0 or 1; the rest: times, pages
    fault_ps: np.ndarray  # uint64 (n_lanes,)  when the lane touched a missing page; NONE: it does not wait
    fault_page: np.ndarray  # uint64 (n_lanes,)  that page
    free_ps: np.ndarray  # uint64 (n_lanes,)  from when on the lane runs: the guest's start, or its last page's arrival
    from_ns: np.ndarray  # uint64 (n_lanes,)  guest time up to which the lane's events are left out; 0: done


def _new_target(machine: Precopy) -> Target:
    guest, fixed = machine.feed.guest, machine.costs.fixed_ps
    lanes, switch = guest.head.size, machine.parameters.postcopy
    assert switch is not None
    at = np.zeros(7, dtype=np.uint64)
    at[RECORDED] = switch.recorded_from_ns is not None or not guest.state[CLOSED_LOOP]
    at[N_PAGES] = machine.n_pages
    at[PAGE_PS], at[REQUEST_PS], at[PLACE_PS] = (
        fixed[name] for name in ("postcopy_page", "fault_request", "fault_place")
    )
    return Target(
        missing=memory.words(guest.zeros.size),
        at=at,
        fault_ps=memory.words(lanes, int(NONE)),
        fault_page=memory.words(lanes),
        free_ps=memory.words(lanes),
        from_ns=memory.words(lanes, switch.recorded_from_ns or 0),
    )


# -- the guest at the target ------------------------------------------------------------------------------------------


@kernel
def _leave_out(guest: Guest, target: Target, lane: Any) -> bool:
    """Pass over what the lane did before the guest went on; False if more events must be seen for that."""
    since = target.from_ns[lane]
    while guest.head[lane] < guest.stop[lane] and guest.t_ns[guest.head[lane]] < since:
        guest.head[lane] += U1
    if since != U0 and guest.head[lane] >= guest.stop[lane] and guest.state[OPEN] != U0:
        if guest.state[END_NS] < since:
            return False
        target.from_ns[lane] = U0
    return True


@kernel
def _touch(guest: Guest, target: Target, until: Any, work: np.ndarray) -> Any:
    """Run the guest up to `until`; a lane that stores to a missing page waits from then on. DONE or NEED_EVENTS."""
    while True:
        best, lane = NONE, U0
        for index in range(guest.head.size):
            if target.fault_ps[index] == NONE:
                if not _leave_out(guest, target, index):
                    guest.state[NEED_LANE] = index
                    return NEED_EVENTS
                time = lane_time(guest.t_ns, guest.head[index], guest.stop[index], guest.offset_ps[index], guest.state)
                if time != NONE:
                    time = max(time, target.free_ps[index])
                if time < best:
                    best, lane = time, U64(index)
        if best > until:
            return DONE
        if guest.head[lane] >= guest.stop[lane]:
            guest.state[NEED_LANE] = lane
            return NEED_EVENTS
        page = U64(guest.page[guest.head[lane]])
        if target.missing[page >> U6] >> (page & U63) & U1 == U0:
            guest.head[lane] += U1
        else:
            target.fault_ps[lane], target.fault_page[lane] = best, page
            work[POSTCOPY_FAULTS] += U1


@kernel
def _requested(target: Target, now: Any) -> Any:
    """The page that was asked for first, as far as the source knows by `now`; NONE if none is."""
    first, page = NONE, NONE
    for lane in range(target.fault_ps.size):
        since = target.fault_ps[lane]
        if since != NONE and since + target.at[REQUEST_PS] <= now and since < first:
            wanted = target.fault_page[lane]
            if target.missing[wanted >> U6] >> (wanted & U63) & U1 != U0:
                first, page = since, wanted
    return page


@kernel
def _placed(guest: Guest, target: Target, page: Any, time: Any) -> None:
    """`page` is there at `time`: whoever waits for it goes on then."""
    for lane in range(target.fault_ps.size):
        if target.fault_ps[lane] != NONE and target.fault_page[lane] == page:
            waited = time - target.fault_ps[lane]
            target.fault_ps[lane], target.free_ps[lane] = NONE, time
            guest.head[lane] += U1
            guest.stall_ps[U64(FETCH * guest.head.size + lane)] += waited
            if target.at[RECORDED] == U0:
                guest.offset_ps[lane] += waited


# -- the source -------------------------------------------------------------------------------------------------------


@kernel
def take_over(log: Any, design: Any, sender: np.ndarray, meter: Meter, missing: np.ndarray) -> Any:
    """All pages that the design still holds, as a bitmap; returns how many runs they form.

    What finding them costs is paid with the first page that is sent.
    """
    page = next_page(log, design, sender, meter)
    while page != NONE:
        missing[page >> U6] |= U1 << (page & U63)
        page = next_page(log, design, sender, meter)
    runs, carried = U0, U0
    for word in range(missing.size):
        bits = missing[word]
        runs += popcount(bits & ~(bits << U1 | carried))
        carried = bits >> U63
    return runs


@kernel
def send_missing(guest: Guest, target: Target, stream: np.ndarray, sender: np.ndarray, meter: Meter) -> Any:
    """Send missing pages until none is left, the window is used up, or time is up; or until events are wanted."""
    at, work = target.at, meter.work
    while True:
        if rate_exceeded(stream):
            return LIMITED
        now = sender[NOW_PS]
        if _touch(guest, target, now, work) == NEED_EVENTS:
            return WANT_EVENTS
        page = _requested(target, now)
        if page == NONE:
            page = find_next(target.missing, at[N_PAGES], at[CURSOR])
            if page >= at[N_PAGES]:
                page = find_next(target.missing, at[N_PAGES], U0)
            if page >= at[N_PAGES]:
                return EMPTY
        word, bit = page >> U6, U1 << (page & U63)
        at[CURSOR] = page + U1
        at[LEFT] -= U1
        target.missing[word] &= ~bit
        zero = guest.zeros[word] & bit != U0
        read_pages(guest.stale, guest.state, word, bit)
        put_page(stream, zero, work)
        counter = ZERO_PAGES if zero else NORMAL_PAGES
        work[counter] += U1
        work[POSTCOPY_PAGES] += U1
        step_done(sender, meter)
        wait_until(sender, sender[NOW_PS] + at[PAGE_PS])
        _placed(guest, target, page, sender[NOW_PS] + at[PLACE_PS])
        if check_time(sender):
            return OUT_OF_TIME


# -- the course -------------------------------------------------------------------------------------------------------


def due(machine: Precopy) -> bool:
    """Whether the next pass switches."""
    switch = machine.parameters.postcopy
    return switch is not None and int(machine.now) >= switch.after_ms * PS_PER_MS


def run(machine: Precopy, begin_ms: int) -> int:
    """From the stopped source to the last page. Returns the downtime in ms, which began at `begin_ms`."""
    fixed, switch = machine.costs.fixed_ps, machine.parameters.postcopy
    assert switch is not None
    machine.sync("postcopy")
    guest = machine.feed.guest
    settle_classes(guest.empty, guest.zeros, guest.turned)
    target = _new_target(machine)
    runs = take_over(machine.log, machine.design, machine.sender, machine.meter, target.missing)
    target.at[LEFT] = count_set(target.missing)
    machine.spend("other", int(runs) * fixed["discard_run"])
    link.put_buffered(machine.stream, np.uint64(machine.costs.fixed_bytes["device_state"]), machine.meter.work)
    link.flush(machine.stream, machine.meter.work)
    machine.spend("other", fixed["device_state"])
    downtime_ms = int(machine.now) // PS_PER_MS - begin_ms
    machine.resumed_ps = int(machine.now) + fixed["target_run"]
    target.free_ps[:] = machine.resumed_ps
    if switch.recorded_from_ns is not None:
        guest.offset_ps[:] = np.uint64((machine.resumed_ps - switch.recorded_from_ns * 1000) % (1 << 64))
    elif not target.at[RECORDED]:
        assert machine.stopped_ps is not None
        guest.offset_ps[:] += np.uint64(machine.resumed_ps - machine.stopped_ps)
    machine.spend("wait", fixed["target_listen"])
    machine.stream[LIMIT] = switch.max_bandwidth // (1000 // WINDOW_MS)
    while target.at[LEFT] > 0:
        if not rate_exceeded(machine.stream):
            machine.spend("other", fixed["loop_pass"])
            if int(target.at[LEFT]) * PAGE_BYTES < machine.window.threshold:
                machine.stream[LIMIT] = 0
                _iterate(machine, target, int(NONE))
                break
            _iterate(machine, target, int(machine.now) + (MAX_WAIT_MS + 1) * PS_PER_MS)
        machine.limit_rate()
    machine.spend("wait", fixed["fault_place"])
    machine.close_round()
    return downtime_ms


def _iterate(machine: Precopy, target: Target, deadline_ps: int) -> None:
    machine.iterate_calls += 1
    work = machine.meter.work
    link.put_buffered(machine.stream, np.uint64(link.SECTION_HEADER_BYTES), work)
    machine.sender[DEADLINE_PS], machine.sender[CALLS] = deadline_ps, 0
    machine.run_kernel("send", lambda guest: send_missing(guest, target, machine.stream, machine.sender, machine.meter))
    link.put_buffered(machine.stream, np.uint64(link.END_BYTES + link.SECTION_FOOTER_BYTES), work)
    link.flush(machine.stream, work)
