"""Planned reads against the same reads and writes one by one in time order; the search in a lane against a loop."""

import itertools

import numpy as np
import pytest

from replay.jit import U64, wrapping
from replay.kernels import memory
from replay.migration.blocks import first_later
from replay.migration.feed import Feed, Window
from replay.migration.guest import REDUNDANT, make_stale, read_planned
from replay.migration.plan import N_PLANNED, chain
from replay.verbs import GuestShape
from replay.work import N_COUNTERS, NORMAL_PAGES, ZERO_PAGES

WORDS = 8
FIND, FURTHER, NORMAL, ZERO = 700, 90, 3000, 400


class Stub:
    """A guest of `WORDS` words; pages of the odd words are zero."""

    shape = GuestShape(n_pages=64 * WORDS, n_vcpus=1)
    duration_ns = 1 << 30

    def __init__(self, t_ns, page):
        self.t_ns, self.page = t_ns, page

    def windows(self, start_ns):
        yield Window(self.t_ns, self.page, np.zeros(self.page.size, np.uint16), self.duration_ns)

    def zero_pages(self):
        zeros = memory.words(WORDS)
        zeros[1::2] = U64(2**64 - 1)
        return zeros


def draw(seed):
    """Entries (word, pages, begin), some of one word, some with a page that was read before; and events."""
    generator = np.random.default_rng(seed)
    entries, now = [], 10_000
    for _ in range(int(generator.integers(1, 12))):
        word = int(generator.integers(WORDS))
        bits = sorted(generator.choice(64, int(generator.integers(1, 9)), replace=False).tolist())
        entries.append((word, bits, now))
        page = ZERO if word % 2 else NORMAL
        now += FIND + len(bits) * page + (len(bits) - 1) * FURTHER + int(generator.integers(0, 2000))
    times = np.sort(generator.integers(0, now // 1000 + 3, 60)).astype(np.uint64)
    return entries, times, generator.integers(0, 64 * WORDS, 60).astype(np.uint32)


def one_by_one(entries, t_ns, pages):
    """(stale pages, redundant reads): an event at the moment of a read comes before it."""
    steps = [(int(t) * 1000, 0, int(page)) for t, page in zip(t_ns, pages, strict=True)]
    for word, bits, begin in entries:
        for place, bit in enumerate(bits):
            page_ps = ZERO if word % 2 else NORMAL
            later = FIND + (place - 1) * FURTHER + place * page_ps if place else 0
            steps.append((begin + later, 1, 64 * word + bit))
    stale, redundant = set(range(64 * WORDS)), 0
    for _, reads, page in sorted(steps, key=lambda step: step[:2]):
        if reads:
            redundant += page not in stale
            stale.discard(page)
        else:
            stale.add(page)
    return stale, redundant


@wrapping
@pytest.mark.parametrize("seed", range(40))
def test_reads_and_writes_in_any_order_come_to_those_in_time_order(seed):
    entries, t_ns, pages = draw(seed)
    feed = Feed(Stub(t_ns, pages), start_ns=0, lanes=1, loop=False, closed_loop=False, check=True)
    feed.refill()
    guest, price = feed.guest, np.zeros(N_COUNTERS, np.uint64)
    price[NORMAL_PAGES], price[ZERO_PAGES] = NORMAL, ZERO
    for index, (word, bits, begin) in enumerate(entries):
        guest.plan.word[index], guest.plan.bits[index] = word, sum(1 << bit for bit in bits)
        guest.plan.begin_ps[index] = begin
        guest.plan.find_ps[index], guest.plan.next_ps[index] = FIND, FURTHER
    guest.plan.ends[N_PLANNED] = len(entries)
    chain(guest.plan, U64(len(entries)))
    edges = [0, *sorted(np.random.default_rng(seed).choice(60, 5, replace=False).tolist()), 60]
    parts = list(itertools.pairwise(edges))
    for begin, stop in reversed(parts) if seed % 2 else parts:
        make_stale(guest, price, U64(0), U64(begin), U64(stop))
    read_planned(guest)
    stale, redundant = one_by_one(entries, t_ns, pages)
    found = {page for page in range(64 * WORDS) if int(guest.stale[page // 64]) >> page % 64 & 1}
    assert found == stale
    assert int(guest.state[REDUNDANT]) == redundant
    assert not guest.plan.latest.any()
    assert not guest.plan.late.any()
    assert guest.plan.ends[N_PLANNED] == 0


@wrapping
@pytest.mark.parametrize("n", [1, 63, 64, 65, 66, 129, 4096])
@pytest.mark.parametrize("offset_ps", [0, 12_345, -3_000_000])
def test_the_first_later_event(n, offset_ps):
    generator = np.random.default_rng(n)
    t_ns = np.sort(generator.integers(5_000, 5_000 + 2 * n, n)).astype(np.uint64)
    host = [int(t) * 1000 + offset_ps for t in t_ns]
    for index in {0, n // 2, n - 1}:
        for last in {host[index] - 1, host[index], host[n // 3], host[-1] - 1, host[-1], host[-1] + 5_000}:
            found = first_later(t_ns, U64(index), U64(n), U64(offset_ps % 2**64), U64(max(last, 0)))
            assert found == next((at for at in range(index + 1, n) if host[at] > last), n)
