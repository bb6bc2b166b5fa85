"""Every workload: reproducible, the same however it is cut, within its guest; and each as skewed as it says."""

from __future__ import annotations

import hashlib
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay import chance
from replay.chance import Guest
from replay.errors import UsageError
from replay.plugins import names, parse

NAMES = names("workload")
SECOND = 1_000_000_000
Columns = tuple[np.ndarray, ...]


def events(text: str, guest: Guest, begin_ns: int = 0, end_ns: int = SECOND, seed: int = 1) -> Columns:
    plugin = parse("workload", text)
    return plugin.module.events(plugin.config, guest, seed, begin_ns, end_ns)


def same(ours: Columns, theirs: Columns) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_pages", [1, 2, 63, 64, 65, 4095, 4097, 100_003, 1 << 32])
@pytest.mark.parametrize("n_vcpus", [1, 3])
def test_events_lie_in_order_and_within_the_guest(name, n_pages, n_vcpus):
    t_ns, page, vcpu = events(f"{name}:rate=3000", Guest(n_pages, n_vcpus), 500_000_000, 1_700_000_000)
    assert t_ns.size == page.size == vcpu.size > 0
    assert (t_ns[1:] >= t_ns[:-1]).all()
    assert t_ns[0] >= 500_000_000
    assert t_ns[-1] < 1_700_000_000
    assert page.max() < n_pages
    assert vcpu.max() < n_vcpus
    assert t_ns.size <= 3600 + 1


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    cuts=st.lists(st.integers(0, 4 * SECOND), max_size=6),
    rate=st.sampled_from([1, 7, 999, 1000, 12_345]),
    seed=st.integers(0, 1 << 70),
)
def test_cutting_into_windows_changes_nothing(name, cuts, rate, seed):
    guest, text = Guest(5000, 3), f"{name}:rate={rate}"
    edges = sorted([0, *cuts, 4 * SECOND])
    parts = [events(text, guest, a, b, seed) for a, b in itertools.pairwise(edges)]
    assert same(
        events(text, guest, 0, 4 * SECOND, seed), tuple(np.concatenate(part) for part in zip(*parts, strict=True))
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_fixes_everything_and_another_changes_it(name):
    guest = Guest(5000, 3)
    assert same(events(name, guest), events(name, guest))
    assert not same(events(name, guest), events(name, guest, seed=2))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "phases"])
def test_every_second_holds_as_many_events_as_the_rate_says(name):
    t_ns = events(f"{name}:rate=12345", Guest(5000, 3), 0, 3 * SECOND)[0]
    assert np.bincount((t_ns // np.uint64(SECOND)).astype(int)).tolist() == [12345] * 3
    later = events(f"{name}:rate=12345", Guest(5000, 3), 10**6 * SECOND, (10**6 + 1) * SECOND)[0]
    assert later.size == 12345


def test_generated_traces_stay_what_they_were():
    """A change of any draw changes every generated trace: these were written down once."""
    times, vcpus = [158395114, 306011466, 597168711, 874960119], [2, 3, 2, 0]
    for text, n_pages, pages in (
        ("uniform:rate=4", 1000, [258, 473, 891, 689]),
        ("zipf:rate=4", 1_000_000, [497843, 693832, 700832, 471549]),
    ):
        assert [column.tolist() for column in events(text, Guest(n_pages, 4))] == [times, pages, vcpus]


def split_mix(seed: int, purpose: str, number: int) -> int:
    """The draw in plain integers."""
    mask = (1 << 64) - 1
    key = hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=8).digest()
    z = ((number + 1) * 0x9E3779B97F4A7C15 + int.from_bytes(key, "little")) & mask
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
    return z ^ z >> 31


def test_draws_against_plain_integers():
    numbers = [0, 1, 2, 63, 2**32, 2**63, 2**64 - 1]
    drawn = chance.words(7, "page", np.array(numbers, dtype=np.uint64)).tolist()
    assert drawn == [split_mix(7, "page", number) for number in numbers]
    for bound in (1, 3, 1000, 1 << 32):
        below = chance.below(7, "page", np.array(numbers, dtype=np.uint64), bound).tolist()
        assert below == [(split_mix(7, "page", number) >> 32) * bound >> 32 for number in numbers]


def test_logarithms_and_powers_are_right():
    x = np.concatenate([10.0 ** np.linspace(-60, 60, 4001), np.linspace(0.1, 3, 1001)])
    assert np.allclose(chance.log(x), np.log(x), rtol=4e-16, atol=1e-16)
    y = np.linspace(-300, 300, 10_001)
    assert np.allclose(chance.exp(y), np.exp(y), rtol=4e-16)


@pytest.mark.parametrize("n", [1, 2, 3, 64, 97, 1000, 4097])
def test_scattering_is_a_permutation(n):
    for seed in range(5):
        placed = chance.scattered(seed, "place", np.arange(n, dtype=np.uint64), n)
        assert sorted(placed.tolist()) == list(range(n))


# -- what each claims -------------------------------------------------------------------------------------------------


def test_idle_writes_few_pages_and_timers_most():
    page = events("idle:rate=100000,pages=500", Guest(100_000, 2), 0, 2 * SECOND)[1]
    _, counts = np.unique(page, return_counts=True)
    assert counts.size == 500
    assert np.sort(counts)[-166:].sum() / page.size == pytest.approx(0.9 + 0.1 * 166 / 500, abs=0.01)


def test_sequential_vcpus_walk_their_own_part():
    _, page, vcpu = events("sequential:rate=2000", Guest(1001, 3), 0, 2 * SECOND)
    edges = [0, 333, 667, 1001]
    for index in range(3):
        own = page[vcpu == index]
        length = edges[index + 1] - edges[index]
        assert own.tolist() == [edges[index] + step % length for step in range(own.size)]


def test_uniform_is_uniform():
    page = events("uniform:rate=1000000", Guest(1000, 4))[1]
    counts = np.bincount(page, minlength=1000)
    chi_square = ((counts - 1000.0) ** 2 / 1000).sum()
    assert abs(chi_square - 999) < 5 * math.sqrt(2 * 999)


@pytest.mark.parametrize("skew", [0.0, 0.5, 0.99, 1.0, 2.0])
@pytest.mark.parametrize("n_pages", [50, 65_536, 1_000_000])
def test_zipf_follows_its_law(skew, n_pages):
    page = events(f"zipf:rate=500000,skew={skew},scatter=off", Guest(n_pages, 2))[1]
    weights = np.arange(1, n_pages + 1, dtype=float) ** -skew
    expected = weights / weights.sum() * page.size
    edges = sorted(
        {0, 1, 2, 4, 16, 40, 1000, 60_000, 65_536, 65_537, 100_000, 300_000, n_pages} & set(range(n_pages + 1))
    )
    counts = np.bincount(page, minlength=n_pages)
    for low, high in itertools.pairwise(edges):
        want, got = expected[low:high].sum(), counts[low:high].sum()
        assert abs(got - want) < 5 * math.sqrt(want) + 1, (low, high)


def test_zipf_beyond_the_head_agrees_with_a_table():
    """The closed form for ranks past the table, against the table it replaces."""
    module = parse("workload", "zipf").module
    draw = np.linspace(0, 1, 2001)[:-1]
    for skew in (0.3, 0.99, 1.0, 1.3):
        exact = np.cumsum(np.arange(1, 200_001, dtype=float) ** -skew)
        want = np.searchsorted(exact, draw * exact[-1], side="right")
        got = module._ranks(draw, 200_000, skew)
        assert np.abs(got.astype(int) - want).max() <= 1


def test_hot_cold_splits_as_it_says():
    page = events("hot-cold:rate=500000,hot=5%,writes=80%,scatter=off", Guest(10_000, 2))[1]
    assert (page < 500).mean() == pytest.approx(0.8, abs=0.003)
    assert (np.bincount(page, minlength=10_000) == 0).sum() <= 3
    scattered = events("hot-cold:rate=500000,hot=5%,writes=80%", Guest(10_000, 2))[1]
    counts = np.sort(np.bincount(scattered, minlength=10_000))
    assert counts[-500:].sum() / scattered.size == pytest.approx(0.8, abs=0.003)
    assert (scattered < 500).mean() < 0.2


def test_phases_are_busy_then_quiet_each_in_its_own_range():
    text = "phases:rate=50000,period=1s,busy=30%,quiet=10%,working-set=2%"
    t_ns, page, _ = events(text, Guest(100_000, 2), 0, 4 * SECOND)
    in_period = t_ns % np.uint64(SECOND)
    busy = in_period < np.uint64(300_000_000)
    assert busy.sum() == 4 * 15_000
    assert (~busy).sum() / 4 == pytest.approx(3500, rel=0.05)
    firsts = []
    for period in range(4):
        own = page[t_ns // np.uint64(SECOND) == period]
        assert own.max() - own.min() < 2000
        firsts.append(int(own.min()))
    assert len(set(firsts)) == 4


def test_file_cache_writes_files_front_to_back():
    _, page, vcpu = events("file-cache:rate=100000,largest=64,metadata=0%", Guest(1 << 20, 2), 0, 2 * SECOND)
    own = page[vcpu == 1].astype(int)
    breaks = np.flatnonzero(np.diff(own) != 1) + 1
    lengths = np.diff([0, *breaks])
    share = {length: (lengths == length).sum() * length / own.size for length in (1, 2, 4, 8, 16, 32, 64)}
    for length, part in share.items():
        assert part == pytest.approx(1 / 7, abs=0.04), length


def test_file_cache_metadata_is_few_pages():
    page = events("file-cache:rate=100000,metadata=25%", Guest(1 << 22, 2))[1]
    _, counts = np.unique(page, return_counts=True)
    assert np.sort(counts)[-64:].sum() / page.size == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("uniform:rate=0", "at least 1"),
        ("uniform:rate=2e9", "at most"),
        ("uniform:rate=fast", "not a rate"),
        ("uniform:rate=0.5", "whole number"),
        ("zipf:skew=-1", "at least 0"),
        ("zipf:skew=nan", "is a number"),
        ("zipf:skew=x", "is a number"),
        ("hot-cold:hot=200%", "not between"),
        ("hot-cold:writes=nan", "not between"),
        ("file-cache:largest=100", "power of two"),
        ("phases:period=0s", "at least"),
        ("phases:period=5", "needs a unit"),
        ("uniform:skew=1", "no parameter"),
        ("zipff", "Did you mean 'zipf'"),
    ],
)
def test_hostile_parameters_are_refused(text, told):
    with pytest.raises(UsageError, match=told):
        parse("workload", text)


GOLDEN: tuple = ()
