"""Whole migrations against C that steps page by page, and the price of the verbs against the same loop without them.

The C side (c/replay.c) is what one would write first: find the next bit in QEMU's style, clear it, account for the
page, advance the clock. Both sides start from the same state, which is built outside the measured time, and must agree
on pages, searches, rounds, bytes, flushes, redundant and stale pages and on the end time to the picosecond.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from replay.jit import NONE, U0, U1, U6, U63, U64, kernel
from replay.kernels import memory
from replay.kernels.bitmap import find_next
from replay.migration import costs, engine
from replay.migration.feed import Feed, Window
from replay.migration.guest import NEXT_PS, REDUNDANT
from replay.migration.lanes import advance
from replay.migration.link import CHANNELS, FLUSHED, put_page, rate_exceeded
from replay.migration.parameters import Parameters
from replay.migration.precopy import Precopy
from replay.migration.record import Outcome
from replay.migration.sender import DEADLINE_PS
from replay.migration.xbzrle import Cache, turn_to
from replay.plugins import parse
from replay.verbs import GuestShape, price_sending
from replay.work import FIND_CALLS, FIND_WORDS, INDEX, NORMAL_PAGES, REFIND_CALLS, ROUND_FLUSHES, ZERO_PAGES
from tools.bench import workloads
from tools.bench.harness import Row, Side, c_call, compare

TARGETS = {"batched": (0.25, 0.15), "stepping": (1.00, 0.80)}
VERBS_TARGET = (1.05, 1.00)
DOWNTIME_MS, GIVE_UP_NS = 300, 10**13
BUSY_PAGE_PS = 3_277_000
EVENTS_PER_S, BUSY_S = 166_667, 120
LOG, DESIGN = (parse(kind, name) for kind, name in (("log", "tcg"), ("design", "bitmap")))


class Guest:
    """A guest of `n_pages`, all of data or all of zeros, with the given events."""

    def __init__(self, n_pages: int, *, zero: bool = False, t_ns: np.ndarray, page: np.ndarray):
        self.shape = GuestShape(n_pages=n_pages, n_vcpus=1)
        self.zero = zero
        self.t_ns, self.page = t_ns, page
        self.origin = np.zeros(page.size, dtype=np.uint16)
        self.duration_ns = BUSY_S * 10**9

    def windows(self, start_ns: int) -> Iterator[Window]:
        """All events at once, so that no time is spent on reading."""
        yield Window(self.t_ns, self.page, self.origin, self.duration_ns)

    def zero_pages(self) -> np.ndarray:
        """A bitmap of the pages that hold only zeros."""
        return memory.ones_up_to(self.shape.n_pages if self.zero else 0, self.shape.n_words)


def idle_guest(n_pages: int, *, zero: bool = False) -> Guest:
    """A guest that writes nothing."""
    return Guest(n_pages, zero=zero, t_ns=np.empty(0, dtype=np.uint64), page=np.empty(0, dtype=np.uint32))


def busy_guest(n_pages: int, count: int) -> Guest:
    """90 % of the writes to 200,000 pages, the rest anywhere."""
    times = np.random.default_rng(workloads.SEED).integers(0, count * 10**9 // EVENTS_PER_S, count)
    return Guest(n_pages, t_ns=np.sort(times).astype(np.uint64), page=workloads.stream("hot", n_pages, count))


def measure(quick: bool) -> list[Row]:
    """Rows for idle and busy guests in both formulations, and for the verbs."""
    ((name, n_pages),) = workloads.sizes(quick, ("96G",)).items()
    table = costs.load(costs.DEFAULT)
    left_out = {"connect": 0, "sync": 0, "first_copy": 0}  # constants that the C side does not have
    table = dataclasses.replace(
        table, fixed_ps=table.fixed_ps | left_out, fixed_bytes=table.fixed_bytes | {"setup": 0}
    )
    slow = dataclasses.replace(table, prices_ps=table.prices_ps | {"normal_pages": BUSY_PAGE_PS})
    rows = []
    for label, guest, prices in (
        (f"idle {name}, data", idle_guest(n_pages), table),
        (f"idle {name}, zeros", idle_guest(n_pages, zero=True), table),
        (f"busy {name}", busy_guest(n_pages, EVENTS_PER_S * (2 if quick else BUSY_S)), slow),
    ):
        for formulation in TARGETS:
            rows.append(_compare(f"{label}: {formulation}", guest, prices, formulation, quick))
    rows.append(_compare_verbs(f"verbs, stepping, idle {name}", idle_guest(n_pages), table, quick))
    return rows


# -- whole migrations -------------------------------------------------------------------------------------------------


def _compare(what: str, guest: Guest, table: costs.Costs, formulation: str, quick: bool) -> Row:
    last: list[tuple[Precopy, Outcome]] = []

    def result() -> dict[str, int | None]:
        machine, outcome = last[-1]
        work = {name: int(count) for name, count in zip(INDEX, machine.meter.work + machine.aside.work, strict=True)}
        return {
            "pages": work["normal_pages"] + work["zero_pages"],
            "zero_pages": work["zero_pages"],
            "find_calls": work["find_calls"],
            "find_words": work["find_words"],
            "rounds": len(outcome.rounds),
            "end_ps": int(machine.now),
            "flushed": int(machine.stream[FLUSHED]),
            "flushes": work["flushes"],
            "redundant": outcome.redundant_pages,
            "stale": outcome.lost_pages,
            "events": work["guest_writes"],
            "pending": machine.pending,
        }

    def run(machine: Precopy) -> None:
        last[:] = [(machine, machine.run())]

    ours = Side(run=run, prepare=lambda: build(guest, table, formulation), result=result)
    theirs = _c_side(guest, table)
    return compare(what, ours, theirs, unit="ms", quick=quick, target=TARGETS[formulation])


def build(guest: Guest, table: costs.Costs, formulation: str) -> Precopy:
    """A migration of this guest, ready to run."""
    feed = Feed(guest, start_ns=0, lanes=1, loop=False, closed_loop=False, check=True)
    parameters = Parameters(
        max_bandwidth=0,
        downtime_limit_ms=DOWNTIME_MS,
        link_bandwidth=0,
        give_up_ns=GIVE_UP_NS,
        formulation=formulation,
    )
    shape = guest.shape
    return Precopy(LOG.build(shape), DESIGN.build(shape), feed, parameters, table, shape.n_pages)


_RESULTS = ("pages", "zero_pages", "find_calls", "find_words", "rounds", "end_ps")
_RESULTS += ("flushed", "flushes", "redundant", "stale", "events", "pending")


def _c_side(guest: Guest, table: costs.Costs) -> Side | None:
    """The same migration in C; arrays in the order of its structs."""
    shape, price, fixed = guest.shape, table.prices_ps, table.fixed_ps
    given = [shape.n_pages, shape.n_words, guest.t_ns.size]
    given += [price[name] for name in ("find_calls", "find_words", "refind_calls", "normal_pages", "zero_pages")]
    given += [price[name] for name in ("l2_words", "l2_touched", "l2_pages")]
    given += [fixed["setup"] + shape.n_pages * fixed["setup_page"]]
    given += [fixed["loop_pass"], fixed["vm_stop"], fixed["device_state"]]
    given += [table.fixed_bytes["device_state"], DOWNTIME_MS, GIVE_UP_NS * 1000]
    parameters = np.array(given, dtype=np.uint64)

    full, zeros = memory.ones_up_to(shape.n_pages, shape.n_words), guest.zero_pages()
    armed, l2, l3, now_zero = full.copy(), memory.words(shape.n_words), full.copy(), zeros.copy()
    content = memory.words(2 * shape.n_words)
    turned = np.zeros(-(-shape.n_words // 64), dtype=np.uint8)
    arrays = (guest.t_ns, guest.page, guest.origin, armed, l2, l3, content, now_zero, turned)
    addresses = np.array([array.ctypes.data for array in arrays], dtype=np.uint64)
    results = np.zeros(len(_RESULTS), dtype=np.uint64)

    def reset() -> None:
        armed[:], l3[:], now_zero[:] = full, full, zeros
        l2.fill(0)
        turned.fill(0)
        content[::2], content[1::2] = full, zeros

    run = c_call("replay", "migrate", parameters, addresses, results, keep=arrays)
    if run is None:
        return None
    return Side(run=run, prepare=reset, result=lambda: dict(zip(_RESULTS, results.tolist(), strict=True)))


# -- the price of the verbs -------------------------------------------------------------------------------------------


@kernel
def advance_by_hand(
    events: tuple[np.ndarray, np.ndarray],
    lane: tuple[np.ndarray, np.ndarray, np.ndarray],
    armed: np.ndarray,
    l2: np.ndarray,
    stale: np.ndarray,
    empty: np.ndarray,
    turned: np.ndarray,
    state: np.ndarray,
    until: Any,
) -> Any:
    """The guest's part for tcg and bitmap with one lane: needed for a fair loop, never entered by the idle guest."""
    t_ns, pages = events
    head, stop, offset_ps = lane
    index = head[0]
    while index < stop[0]:
        time = t_ns[index] * U64(1000) + offset_ps[0]
        if time > until:
            break
        page = U64(pages[index])
        word, bit = page >> U6, U1 << (page & U63)
        if armed[word] & bit != U0:
            armed[word] &= ~bit
            l2[word] |= bit
        stale[word] |= bit
        if empty[word] & bit != U0:
            empty[word] &= ~bit
            turned[word >> U64(12)] |= U1 << (word >> U6 & U63)
        index += U1
    head[0] = index
    state[0] = t_ns[index] * U64(1000) + offset_ps[0] if index < stop[0] else NONE
    return index < stop[0]


@kernel
def step_by_hand(
    events: tuple[np.ndarray, np.ndarray],
    lane: tuple[np.ndarray, np.ndarray, np.ndarray],
    l2: np.ndarray,
    turned: np.ndarray,
    armed: np.ndarray,
    l3: np.ndarray,
    at: np.ndarray,
    stale: np.ndarray,
    empty: np.ndarray,
    zeros: np.ndarray,
    cache: Cache,
    state: np.ndarray,
    stream: np.ndarray,
    sender: np.ndarray,
    work: np.ndarray,
    price: np.ndarray,
    running: bool,
) -> Any:
    """What `engine.step` does for tcg and bitmap without events, multifd and xbzrle, written out over plain arrays."""
    channels = stream[CHANNELS] != U0
    while True:
        if channels:
            return engine.EMPTY
        if rate_exceeded(stream):
            return engine.LIMITED
        now = sender[0]
        if running and state[0] <= now and not advance_by_hand(
            events, lane, armed, l2, stale, empty, turned, state, now
        ):
            return engine.WANT_EVENTS
        page = U0
        for wraps in range(2):
            work[ROUND_FLUSHES] += U64(wraps)
            size, cursor = at[2], at[0]
            page = find_next(l3, size, cursor)
            work[FIND_CALLS] += U1
            if cursor < size:
                work[FIND_WORDS] += (min(page, size - U1) >> U6) - (cursor >> U6) + U1
            if page < size:
                break
            at[0] = U0
            page = NONE
        if page != NONE:
            word, bit = page >> U6, U1 << (page & U63)
            l3[word] &= ~bit
            work[REFIND_CALLS] += at[3]
            at[0] = page + U1
            at[1] -= U1
            if state[7] != U0:
                state[REDUNDANT] += U64((stale[word] & bit) == U0)
                stale[word] &= ~bit
            zero = zeros[word] & bit != U0
            if turn_to(cache, word):
                return engine.EMPTY
            put_page(stream, zero, work)
            if zero:
                work[ZERO_PAGES] += U1
            else:
                work[NORMAL_PAGES] += U1
        spent = price_sending(work, price)
        sender[0] += spent - sender[1]
        sender[1] = spent
        if page == NONE:
            return engine.EMPTY
        late = (sender[3] & U63) == U0 and sender[0] >= sender[2]
        sender[3] += U1
        if late:
            return engine.OUT_OF_TIME


def _compare_verbs(what: str, guest: Guest, table: costs.Costs, quick: bool) -> Row:
    """One iterate call over all of memory, stepping: the engine's kernel and the one written out."""
    last: list[tuple[Any, ...]] = []

    def prepare() -> tuple[Any, ...]:
        machine = build(guest, table, "stepping")
        machine.feed.refill()  # the only window, which is empty ...
        machine.feed.refill()  # ... and the end: the guest is idle from now on
        lone = machine.feed.guest
        advance(machine.log, machine.design, lone, machine.stream, machine.aside, U0)
        assert lone.state[NEXT_PS] == NONE
        machine.sender[DEADLINE_PS] = NONE
        last[:] = [(machine,)]
        return last[0]

    def ours(given: tuple[Any, ...]) -> None:
        (m,) = given
        engine.step(m.log, m.design, m.feed.guest, m.stream, m.sender, m.meter, m.aside, True)

    def by_hand(given: tuple[Any, ...]) -> None:
        (m,) = given
        guest, design = m.feed.guest, m.design
        step_by_hand(
            (guest.t_ns, guest.page), (guest.head, guest.stop, guest.offset_ps), design.l2, guest.turned,
            m.log.armed, design.l3, design.at, guest.stale, guest.empty, guest.zeros, guest.cache, guest.state,
            m.stream, m.sender, m.meter.work, m.meter.price, True,
        )  # fmt: skip

    def result() -> dict[str, list[int]]:
        (m,) = last[-1]
        arrays = {"work": m.meter.work, "sender": m.sender, "stream": m.stream, "at": m.design.at}
        return {name: array.tolist() for name, array in arrays.items()}

    sides = (Side(run=run, prepare=prepare, result=result) for run in (ours, by_hand))
    return compare(what, *sides, unit="ms", quick=quick, target=VERBS_TARGET)
