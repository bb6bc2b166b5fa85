"""XBZRLE on guests small enough to work out by hand: what is a miss, a delta, the same, and what each takes."""

from __future__ import annotations

import numpy as np
import pytest

import replay
from replay.config import RunConfig
from replay.errors import UsageError
from replay.jit import DISABLED
from replay.migration import link
from replay.migration.xbzrle import Settings, new_cache, put_compared
from replay.work import N_COUNTERS
from tests.engine.harness import TABLE, make_case, run_engine

# A pass over 1,000 pages takes 0.4 s at 10 MB/s; meanwhile 800 of them are written.
WRITER: dict = {
    "n_pages": 1000,
    "max_bandwidth": 10_000_000,
    "downtime_ms": 20,
    "events": [(500_000 * i + 1, (i * 7) % 1000, 0) for i in range(2000)],
    "duration_ns": 1_000_000_000,
}


def total(outcome, name):
    return sum(row[name] for row in outcome.rounds)


def test_without_a_cache_nothing_is_compared():
    outcome = run_engine(make_case(**WRITER))
    assert "xbzrle-cache" not in outcome.summary
    assert [total(outcome, f"xbzrle_{what}") for what in ("pages", "same", "overflows", "misses")] == [0, 0, 0, 0]


def test_the_first_round_is_sent_whole_and_the_second_fills_the_cache():
    rows = run_engine(make_case(**WRITER, xbzrle=(1024, 10**6, 14))).rounds
    assert rows[0]["xbzrle_misses"] == rows[0]["xbzrle_pages"] == rows[1]["xbzrle_pages"] == 0
    assert rows[1]["xbzrle_misses"] == rows[1]["normal_pages"] > 0
    assert rows[2]["xbzrle_pages"] > 0
    assert rows[2]["normal_pages"] == rows[2]["xbzrle_misses"]


@pytest.mark.parametrize(("share_ppm", "delta_bytes"), [(10**6, 14), (250_000, 1000), (0, 14)])
def test_the_books_of_the_cache(share_ppm, delta_bytes):
    outcome = run_engine(make_case(**WRITER, xbzrle=(1024, share_ppm, delta_bytes)))
    cache = outcome.summary["xbzrle-cache"]
    written = cache["pages"] - total(outcome, "xbzrle_same")
    deltas = written * share_ppm // 10**6
    assert cache["overflow"] == written - deltas
    assert cache["bytes"] == deltas * (3 + delta_bytes) + cache["overflow"] * 4096
    assert cache["cache-miss"] == total(outcome, "xbzrle_misses") > 0
    assert cache["cache-size"] == 1024 * 4096
    assert outcome.lost_pages == 0
    ram = outcome.summary["ram"]
    around = total(outcome, "iterate_calls") * 18 + sum(TABLE.fixed_bytes.values())
    if outcome.status == "completed":
        assert ram["transferred"] == ram["normal"] * 4104 + deltas * (11 + delta_bytes) + around


def test_a_page_that_was_not_written_again_takes_nothing():
    """Written once before it is read in a round: reported at the next sync, and then the same."""
    outcome = run_engine(make_case(**WRITER, xbzrle=(1024, 10**6, 14)))
    same = total(outcome, "xbzrle_same")
    assert 0 < same <= outcome.redundant_pages


def test_two_pages_of_one_slot_do_not_drive_each_other_out():
    """A slot used in this round or the one before is kept: of 1,000 pages in 500 slots half are misses for ever."""
    outcome = run_engine(make_case(**WRITER, xbzrle=(512, 10**6, 14)))
    all_fit = run_engine(make_case(**WRITER, xbzrle=(1024, 10**6, 14)))
    assert total(outcome, "xbzrle_misses") > total(all_fit, "xbzrle_misses")
    assert total(outcome, "xbzrle_pages") > 0


def test_a_window_carries_what_was_measured():
    """60 MB/s: pages come out of the cache and are copied into the buffer; 6,032,898 bytes in a full window."""
    stream, work = link.new_stream(), np.zeros(N_COUNTERS, dtype=np.uint64)
    cache = new_cache(Settings(cache_bytes=4096, share_ppm=10**6, delta_bytes=14))
    link.put_buffered(stream, np.uint64(5), work)
    page = np.uint64(0)
    while stream[link.FLUSHED] <= 6_000_000:
        put_compared(cache, stream, page, False, True, work)
        page += np.uint64(1)
    link.put_buffered(stream, np.uint64(13), work)
    link.flush(stream, work)
    assert stream[link.FLUSHED] == 6_032_898


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"xbzrle": "60M"}, "take a power of two of at least 4K"),
        ({"xbzrle": "64M", "mapped_ram": True}, "together with --mapped-ram: leave one of them out"),
        ({"xbzrle": "64M", "multifd_channels": 2}, "together with --multifd-channels"),
    ],
)
def test_what_qemu_refuses_is_refused(options, told):
    with pytest.raises(UsageError, match=told):
        RunConfig(**options)


@pytest.mark.skipif(DISABLED, reason="guests of a real size would take hours as plain Python")
def test_from_outside():
    options = {"log": "tcg", "max_bandwidth": "60MB/s", "downtime_limit": "100ms", "give_up": "9s"}
    plain, small = replay.run("rand-1g", **options), replay.run("rand-1g", **options, xbzrle="64M")
    assert small.summary["xbzrle-cache"]["cache-size"] == 64 << 20
    assert small.summary["ram"]["transferred"] < plain.summary["ram"]["transferred"]
    assert small.lost_pages == 0
    unchecked = replay.run("rand-1g", **options, xbzrle="64M", check=False)
    assert unchecked.summary == small.summary
