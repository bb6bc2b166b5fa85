"""The engine's inner loops: a sender and a guest, in two formulations that agree bit for bit.

*Stepping* (`step`): apply the guest's events up to now, pop a page, read it, advance the clock; one page at a time.
Any design can run this way, and it is the reference.

*Batched* (`plan`, then `merge`): in a design that syncs, what the guest writes cannot reach the sender before the next
sync. So the sender runs ahead of the guest and notes which pages it reads when, up to 64 pages of one word at once
(`plan`); then the guest's events are applied to the log (`merge`), and where one meets a planned read, the two are made
in time order, which decides what is stale or redundant (plan.py). A plan ends where sender and log meet: at a clear
call that re-enables tracking.

Time: a page's step begins at `now`; events up to and including `now` have happened; the page is popped, its tracking
re-enabled and its content read at that instant; then the clock advances by what the step's counted work costs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.jit import NONE, U0, U1, U6, U63, U64, call_apart, inlined, kernel
from replay.kernels.bits import lowest, popcount
from replay.migration.guest import (
    CHECK,
    NEXT_PS,
    Guest,
    drain_outside,
    read_planned,
    send_page,
    settle_classes,
)
from replay.migration.lanes import DONE, NEED_EVENTS, advance
from replay.migration.link import (
    CHANNELS,
    END_BYTES,
    FLUSHED,
    FREE_PS,
    LIMIT,
    NORMAL_BYTES,
    QUEUED,
    SECTION_FOOTER_BYTES,
    SECTION_HEADER_BYTES,
    WINDOW_START,
    flush,
    put_buffered,
    put_normals,
    put_page,
    put_zeros,
    rate_exceeded,
)
from replay.migration.multifd import flush_between_rounds, hand_over_full, settle
from replay.migration.plan import N_PLANNED, chain
from replay.migration.sender import (
    CALLS,
    DEADLINE_PS,
    LATE_PAGE,
    NOW_PS,
    check_time,
    fetch_more,
    rearm_late,
    step_done,
    wait_until,
)
from replay.migration.xbzrle import LAST_WORD, find_none
from replay.verbs import (
    Meter,
    appetite,
    backlog,
    before_harvest,
    harvest,
    live,
    occupancy_max,
    peek,
    pending,
    pop,
    rearm,
    rearm_due,
    rearm_page,
    reset_late,
    room,
    sync,
    take,
)
from replay.work import FIND_CALLS, FIND_WORDS, NORMAL_PAGES, REFIND_CALLS, SUMMARY_WORDS, ZERO_PAGES

EMPTY, LIMITED, OUT_OF_TIME, PLAN_FULL, REARM, WANT_EVENTS = 10, 11, 12, 13, 14, 15
_WORD_BYTES = U64(64 * NORMAL_BYTES)


@inlined
def _send_page(zeros: np.ndarray, stream: np.ndarray, word: Any, bit: Any, work: np.ndarray) -> None:
    zero = zeros[word] & bit != U0
    put_page(stream, zero, work)
    if zero:
        work[ZERO_PAGES] += U1
    else:
        work[NORMAL_PAGES] += U1


@inlined
def _catch_up(log: Any, design: Any, guest: Guest, stream: np.ndarray, aside: Meter, until: Any) -> Any:
    return WANT_EVENTS if advance(log, design, guest, stream, aside, until) == NEED_EVENTS else DONE


@kernel
def catch_up(log: Any, design: Any, guest: Guest, stream: np.ndarray, aside: Meter, until: Any) -> Any:
    """Run the guest up to `until`: DONE or WANT_EVENTS."""
    return _catch_up(log, design, guest, stream, aside, until)


@kernel
def step(
    log: Any,
    design: Any,
    guest: Guest,
    stream: np.ndarray,
    sender: np.ndarray,
    meter: Meter,
    aside: Meter,
    running: bool,
) -> Any:
    """Send pages one at a time until none is left, the window is used up, or time is up; or until events are wanted."""
    channels = stream[CHANNELS] != U0
    while True:
        if reset_late(design):
            behind = running and guest.state[NEXT_PS] <= sender[NOW_PS]
            if behind and call_apart(_catch_up, (log, design, guest, stream, aside, sender[NOW_PS])) == WANT_EVENTS:
                return WANT_EVENTS
            rearm_late(log, design, sender, meter)
        if channels:
            call_apart(settle, (stream, sender[NOW_PS]))
        if rate_exceeded(stream):
            return LIMITED
        now = sender[NOW_PS]
        behind = running and guest.state[NEXT_PS] <= now
        if behind and call_apart(_catch_up, (log, design, guest, stream, aside, now)) == WANT_EVENTS:
            return WANT_EVENTS
        if live(design):
            if stream[FREE_PS] > now:
                wait_until(sender, stream[FREE_PS])
                if sender[NOW_PS] >= sender[DEADLINE_PS]:
                    return OUT_OF_TIME  # those that send for themselves may keep the channel for ever
                continue
            wanted = appetite(design)
            if wanted != U0 and fetch_more(log, design, sender, meter, wanted):
                continue
        page = pop(design, meter)
        if channels:
            wait_until(sender, call_apart(flush_between_rounds, (stream, now, meter.work)))
        if page == NONE:
            find_none(guest.cache)
            step_done(sender, meter)
            return EMPTY
        if rearm_due(log, page):
            rearm(log, page, meter)
        if live(design):
            if reset_late(design):
                sender[LATE_PAGE] = page
            else:
                rearm_page(log, page, meter)
        counts = send_page(guest, stream, page, meter.work)
        step_done(sender, meter)
        if channels:
            wait_until(sender, call_apart(hand_over_full, (stream, sender[NOW_PS], meter.work)))
        if live(design):
            stream[FREE_PS] = sender[NOW_PS]
        if counts and check_time(sender):
            return OUT_OF_TIME


@kernel
def plan(log: Any, design: Any, guest: Guest, stream: np.ndarray, sender: np.ndarray, meter: Meter) -> Any:
    """Let the sender run ahead: fill the guest's plan until no page is left, a limit is reached, the plan is full, or
    sender and log must meet. The guest must have been advanced to the sender's time."""
    price = meter.price
    find_bound_ps = price[FIND_CALLS] + price[FIND_WORDS] + price[SUMMARY_WORDS] + price[REFIND_CALLS]
    page_bound_ps = find_bound_ps + max(price[NORMAL_PAGES], price[ZERO_PAGES])
    ahead, count = guest.plan, U0
    status = PLAN_FULL
    while count < ahead.word.size:
        if rate_exceeded(stream):
            status = LIMITED
            break
        word, bits = peek(design, meter)
        if bits == U0:
            step_done(sender, meter)
            status = EMPTY
            break
        page = (word << U6) + lowest(bits)
        if rearm_due(log, page):
            if count > U0:
                status = REARM
                break
            rearm(log, page, meter)
        first = bits & (~bits + U1)
        ahead.word[count], ahead.bits[count], ahead.begin_ps[count] = word, first, sender[NOW_PS]
        take(design, word, first, meter)
        guest.cache.registers[LAST_WORD] = word
        _send_page(guest.zeros, stream, word, first, meter.work)
        zero = guest.zeros[word] & first != U0
        ahead.find_ps[count] = step_done(sender, meter) - (price[ZERO_PAGES] if zero else price[NORMAL_PAGES])
        ahead.next_ps[count] = U0
        if check_time(sender):
            count += U1
            status = OUT_OF_TIME
            break
        rest = bits & ~first
        if rest != U0 and _fits(stream, sender, page_bound_ps):
            take(design, word, rest, meter)
            ahead.bits[count] = bits
            ahead.next_ps[count] = _send_rest(guest.zeros[word] & rest, stream, sender, rest, meter)
        count += U1
    ahead.ends[N_PLANNED] = count
    if guest.state[CHECK] != U0:
        chain(ahead, count)
    return status


@kernel
def _fits(stream: np.ndarray, sender: np.ndarray, page_bound_ps: Any) -> bool:
    """Whether 63 more pages surely reach neither the window's limit nor the deadline."""
    if stream[LIMIT] != U0 and stream[FLUSHED] + stream[QUEUED] + _WORD_BYTES > stream[WINDOW_START] + stream[LIMIT]:
        return False
    return sender[NOW_PS] + U63 * page_bound_ps < sender[DEADLINE_PS]


@kernel
def _send_rest(zeros: Any, stream: np.ndarray, sender: np.ndarray, bits: Any, meter: Meter) -> Any:
    """Account for `bits`, already taken, as that many calls; `zeros` of them are zero pages.

    Returns what finding each of them cost (ps).
    """
    work, price = meter.work, meter.price
    n_zero, n_all = popcount(zeros), popcount(bits)
    n_normal = n_all - n_zero
    if n_zero == U0:
        put_normals(stream, n_normal, work)
    elif n_normal == U0:
        put_zeros(stream, n_zero, work)
    else:
        left = bits
        while left != U0:
            bit = left & (~left + U1)
            put_page(stream, zeros & bit != U0, work)
            left ^= bit
    work[ZERO_PAGES] += n_zero
    work[NORMAL_PAGES] += n_normal
    sender[CALLS] += n_all
    return (step_done(sender, meter) - n_zero * price[ZERO_PAGES] - n_normal * price[NORMAL_PAGES]) // n_all


@kernel
def merge(
    log: Any,
    design: Any,
    guest: Guest,
    stream: np.ndarray,
    sender: np.ndarray,
    meter: Meter,
    aside: Meter,
    running: bool,
) -> Any:
    """Bring the guest up to the sender's time, making the planned reads at their moments. DONE or WANT_EVENTS."""
    behind = running and guest.state[NEXT_PS] <= sender[NOW_PS]
    if behind and advance(log, design, guest, stream, aside, sender[NOW_PS]) == NEED_EVENTS:
        return WANT_EVENTS
    read_planned(guest)
    return DONE


@kernel
def open_section(
    empty: np.ndarray, zeros: np.ndarray, turned: np.ndarray, stream: np.ndarray, work: np.ndarray
) -> None:
    """Begin an iterate call: the classes of pages as of now, and the section's header."""
    settle_classes(empty, zeros, turned)
    put_buffered(stream, U64(SECTION_HEADER_BYTES), work)


@kernel
def close_section(stream: np.ndarray, work: np.ndarray) -> None:
    """End an iterate call: end mark, footer, a flush."""
    put_buffered(stream, U64(END_BYTES + SECTION_FOOTER_BYTES), work)
    flush(stream, work)


@kernel
def collect(log: Any, design: Any, guest: Guest, meter: Meter) -> None:
    """The part of a sync that empties the dirty logs: the hypervisor's, then those of vhost and VFIO."""
    before_harvest(design, meter)
    harvest(log, design, meter)
    drain_outside(design, guest.outside, guest.state, meter)


@kernel
def synchronise(design: Any, meter: Meter) -> Any:
    """The part of a sync that makes everything visible to the sender. Returns the pages that became pending."""
    return sync(design, meter)


@kernel
def pages_pending(log: Any, design: Any) -> Any:
    """Pages waiting to be sent; with a design that takes only so many, what the log still holds for it too."""
    if room(design) == NONE:
        return pending(design)
    return pending(design) + backlog(log)


@kernel
def most_queued(log: Any, design: Any) -> Any:
    """Most entries since the last call: (in one of the log's rings, in one of the design's queues)."""
    return occupancy_max(log), occupancy_max(design)
