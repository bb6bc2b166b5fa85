"""The offline optimum: equal to a search through every order on tiny guests, and beaten by no design."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.analysis.guest_cost import cost_of
from replay.answers import hindsight as module
from replay.answers.hindsight import Channel, channel_of, hindsight
from replay.answers.order import order
from replay.config import make
from replay.errors import UsageError
from replay.migration.feed import Window
from replay.plugins import names
from replay.units import PS_PER_NS
from replay.verbs import GuestShape
from tests.engine.harness import TABLE, SmallGuest, cases, run_engine

NS = 1000


class Tiny:
    """A guest of a few pages. events: (ns, page), in order; zero: pages that are zero at the start."""

    def __init__(self, n_pages, events, duration_ns, zero=(), pieces=1):
        self.shape = GuestShape(n_pages=n_pages, n_vcpus=1)
        self.events, self.duration_ns, self.zero, self.pieces = events, duration_ns, set(zero), pieces

    def windows(self, start_ns):
        edges = [start_ns + (self.duration_ns - start_ns) * n // self.pieces for n in range(self.pieces + 1)]
        for begin, end in itertools.pairwise(edges):
            inside = [event for event in self.events if begin <= event[0] < end]
            yield Window(
                np.array([t for t, _ in inside], np.uint64), np.array([page for _, page in inside], np.uint32),
                np.zeros(len(inside), np.uint16), end,
            )  # fmt: skip

    def zero_pages(self):
        bits = np.zeros(self.shape.n_words, np.uint64)
        for page in self.zero:
            bits[page // 64] |= np.uint64(1 << (page % 64))
        return bits


def plain_channel(page_ps, zero_ps=0, begin_ps=0):
    return Channel(
        page_ps=page_ps, zero_ps=zero_ps, limit_page_ps=0, limit_zero_ps=0, allowance_ps=0, lag_ps=0, begin_ps=begin_ps,
        stop_ps=0, page_bytes=4096, zero_bytes=9, fixed_bytes=0,
    )  # fmt: skip


def least_by_search(n_pages, events, until, cost, zero, zero_cost, *, before=False):
    """Work that is left at `until` ns, least over all that a sender can do: at every ns it may begin any page or wait.

    before: the guest stops just before what it writes at `until`. A page that is written after it was read must be sent again; one that is under way at the end is done later.
    """
    writes = {t: [page for at, page in events if at == t] for t, _ in events if not before or t < until}

    @functools.cache
    def least(now, stale, data):
        for page in writes.get(now, ()):
            stale, data = stale | {page}, data | {page}
        if now >= until:
            return sum(cost if page in data else zero_cost for page in stale)
        found = least(now + 1, stale, data)
        for page in stale:
            took = cost if page in data else zero_cost
            found = min(found, after(now, took, stale - {page}, data))
        return found

    def after(now, took, stale, data):
        """The page is read at `now`; what is written while it is under way counts as any write does."""
        end = now + took
        for t in range(now + 1, min(end, until + 1)):
            for page in writes.get(t, ()):
                stale, data = stale | {page}, data | {page}
        if end > until:
            return end - until + sum(cost if page in data else zero_cost for page in stale)
        return least(end, stale, data) if took else least_again(end, stale, data)

    def least_again(now, stale, data):
        return least(now, stale, data) if now < until else sum(cost if p in data else zero_cost for p in stale)

    return least(0, frozenset(range(n_pages)), frozenset(set(range(n_pages)) - set(zero)))


@st.composite
def tiny_guests(draw):
    n_pages = draw(st.integers(1, 4))
    duration = draw(st.integers(2, 9))
    events = sorted(draw(st.lists(st.tuples(st.integers(0, duration - 1), st.integers(0, n_pages - 1)), max_size=7)))
    zero = draw(st.sets(st.integers(0, n_pages - 1)))
    return n_pages, events, duration, zero


@settings(max_examples=40, deadline=None)
@given(tiny_guests(), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_it_is_what_a_search_through_all_orders_finds(guest, cost, zero_cost, pieces):
    n_pages, events, duration, zero = guest
    zero_cost = min(cost, zero_cost)
    moments = range(duration + 1)
    channel = plain_channel(cost * NS, zero_cost * NS)
    source = Tiny(n_pages, events, duration, zero, pieces)
    found = hindsight(
        source, channel, loop=False, until_ps=duration * NS, limit_ps=2 * NS, asked=[moment * NS for moment in moments]
    )
    searched = [least_by_search(n_pages, events, moment, cost, zero, zero_cost) for moment in moments]
    assert [moment.downtime_ps for moment in found.asked] == [left * NS for left in searched]
    stopped = [least_by_search(n_pages, events, moment, cost, zero, zero_cost, before=True) for moment in moments]
    least = min(stopped)
    assert found.best.downtime_ps == least * NS
    kept = [moment for moment in moments if min(searched[moment], stopped[moment]) <= 2]
    assert (found.soonest is not None) == (least <= 2)
    if found.soonest is not None:
        assert found.soonest.at_ps == kept[0] * NS
        assert found.soonest.downtime_ps <= 2 * NS
    for moment in [*found.asked, found.best, *([found.soonest] if found.soonest else [])]:
        sends = order(source, channel, moment, loop=False)
        assert sends.left_ps == moment.downtime_ps  # the order reaches what no order can beat
        assert sorted(sends.page.tolist()) == list(range(n_pages))
        assert (sends.send_ps >= sends.last_write_ps).all()
        busy = np.where(sends.zero, zero_cost, cost) * NS
        assert (sends.send_ps[1:] >= sends.send_ps[:-1] + busy[:-1]).all()
        written = dict([(page, t) for t, page in events][: moment.writes])
        told = dict(zip(sends.page.tolist(), sends.last_write_ps.tolist(), strict=True))
        assert {page: ps // NS for page, ps in told.items() if ps >= 0} == written


@settings(max_examples=40, deadline=None)
@given(tiny_guests(), st.integers(1, 4), st.integers(1, 3))
def test_the_line_says_what_the_definition_says(guest, cost, loops):
    """R(T) by its definition, over repetitions of the recording; and the line is compacted again and again."""
    n_pages, events, duration, _ = guest
    until = duration * loops
    repeated = [(t + n * duration, page) for n in range(loops) for t, page in events]
    expected = []
    for moment in range(until + 1):
        before = [(t, page) for t, page in repeated if t <= moment]
        left = [n_pages * cost - moment]
        left += [len({p for t, p in before if t >= since}) * cost - (moment - since) for since, _ in before]
        expected.append(max(0, *left))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PLACES", 2)
        found = hindsight(
            Tiny(n_pages, events, duration), plain_channel(cost * NS), until_ps=until * NS, limit_ps=0,
            asked=[moment * NS for moment in range(until + 1)],
        )  # fmt: skip
    assert [moment.downtime_ps for moment in found.asked] == [left * NS for left in expected]


def test_pages_that_are_zero_cost_less_until_they_are_written():
    source = Tiny(3, [(5, 0), (8, 0)], 10, zero={0, 1})
    found = hindsight(
        source, plain_channel(4 * NS, NS), loop=False, until_ps=10 * NS, limit_ps=0, asked=[0, 4 * NS, 5 * NS, 9 * NS]
    )
    assert [moment.downtime_ps // NS for moment in found.asked] == [6, 2, 4, 3]
    assert [moment.total_bytes for moment in found.asked] == [4096 + 18, 4096 + 18, 8192 + 9, 8192 + 9]
    slow = hindsight(
        source, Channel(**(vars(plain_channel(4 * NS, NS)) | {"lag_ps": 3 * NS})), loop=False, until_ps=10 * NS,
        limit_ps=0, asked=[7 * NS, 9 * NS],
    )  # fmt: skip
    assert [moment.total_bytes for moment in slow.asked] == [4096 + 18, 8192 + 9]


def test_a_start_within_the_recording_and_a_repetition():
    source = Tiny(2, [(1, 0), (6, 1)], 8)
    found = hindsight(
        source, plain_channel(2 * NS), start_ns=4, until_ps=12 * NS, limit_ps=0, asked=[2 * NS, 5 * NS, 10 * NS]
    )
    # page 1 at 2 and 10, page 0 at 5 after the migrate command
    assert [moment.downtime_ps // NS for moment in found.asked] == [2, 2, 2]


@pytest.mark.parametrize("design", names("design"))
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_no_design_beats_it(design, data):
    """Whatever the settings, throttle, full rings and multifd included: pause and bytes are not below the optimum."""
    case = data.draw(cases("kvm-ring", design).filter(lambda case: case.xbzrle is None and case.postcopy is None))
    outcome = run_engine(case)
    if outcome.status != "completed" or outcome.lost_pages:
        return
    limited = not any(row["producer_sends"] for row in outcome.rounds)
    if not limited and not case.closed_loop:
        return
    config = make({"max_bandwidth": case.max_bandwidth, "mapped_ram": case.mapped_ram,
                   "multifd_channels": case.channels, "qemu_version": "10.0"})  # fmt: skip
    channel = channel_of(config, _table(case), case.n_pages)
    cost = cost_of(outcome.rounds, outcome.guest["stall_ns"])
    here = max(0, cost.ran_ns - cost.most_ns - 8) * PS_PER_NS
    found = hindsight(
        SmallGuest(case), channel if limited else channel.unlimited(), start_ns=case.start_ns, loop=case.loop,
        until_ps=max(case.give_up_ns, cost.ran_ns) * PS_PER_NS, limit_ps=10**15,
        all_data=case.zero_detection == "none", asked=[here],
    )  # fmt: skip
    last = outcome.rounds[-1]
    downtime_ns = last["end_ns"] - last["sync_begin_ns"] + case.fixed["vm_stop"] // 1000
    sent = sum(row["sent_bytes"] for row in outcome.rounds)
    assert downtime_ns + cost.most_ns + 16 >= found.asked[0].downtime_ps // PS_PER_NS
    assert downtime_ns + cost.most_ns + 16 >= found.best.downtime_ps // PS_PER_NS
    assert sent >= found.asked[0].total_bytes
    assert found.soonest is not None


def _table(case):
    return dataclasses.replace(TABLE, prices_ps=case.prices, fixed_ps=case.fixed, fixed_bytes=case.fixed_bytes)


@pytest.mark.parametrize("option", [{"xbzrle": "64M"}, {"postcopy_after": "1s"}])
def test_what_is_not_bounded_is_refused(option):
    with pytest.raises(UsageError, match="no bound with"):
        channel_of(make(option), TABLE, 100)
