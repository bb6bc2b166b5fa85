"""Single mechanisms of QEMU's loop and of the dirty logs, on guests small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from replay.migration import link
from replay.migration.link import FLUSHED
from replay.plugins import names
from replay.work import N_COUNTERS
from tests.engine.harness import TABLE, make_case, random_events, run_engine

LOGS, DESIGNS = names("log"), names("design")


def test_a_window_carries_what_was_measured_on_real_migrations():
    """60 MB/s: 46 flushes of 32 pages and 18 bytes around them, 6,041,106 bytes in every full window."""
    rows = run_engine(make_case(n_pages=20_000, max_bandwidth=60_000_000, downtime_ms=0)).rounds
    stream, work = link.new_stream(), np.zeros(N_COUNTERS, dtype=np.uint64)
    link.put_buffered(stream, np.uint64(5), work)
    while stream[FLUSHED] <= 6_000_000:
        link.put_normal(stream, work)
    link.put_buffered(stream, np.uint64(13), work)
    link.flush(stream, work)
    assert stream[FLUSHED] == 6_041_106
    full_windows = rows[0]["iterate_calls"] - 1
    assert rows[0]["normal_pages"] == 20_000
    assert full_windows == 20_000 // (46 * 32)


def test_all_sent_before_the_first_window_closes_means_two_syncs():
    """The threshold is 0 for 100 ms; nothing pending completes without a sync by estimate."""
    outcome = run_engine(make_case(n_pages=64, max_bandwidth=0))
    assert [row["cause"] for row in outcome.rounds] == ["setup", "final"]


def test_a_normal_migration_has_at_least_three_syncs():
    outcome = run_engine(make_case(n_pages=2000, max_bandwidth=20_000_000, downtime_ms=300))
    assert [row["cause"] for row in outcome.rounds][:2] == ["setup", "estimate"]
    assert outcome.rounds[-1]["cause"] == "final"


def test_without_a_limit_an_iterate_ends_after_51_ms():
    prices = TABLE.prices_ps | {"normal_pages": 1_000_000_000}  # 1 ms a page
    outcome = run_engine(make_case(n_pages=1000, max_bandwidth=0, prices=prices))
    # the clock is looked at after call 0, 64, 128 ...: 65 pages of 1 ms in the first call that is cut
    assert outcome.rounds[0]["iterate_calls"] == -(-1000 // 65)


def test_the_limit_does_not_act_while_the_guest_is_stopped():
    """4,000 pages at 1 MB/s would take 16 s; stopped, they take what the processor needs."""
    outcome = run_engine(make_case(n_pages=4000, max_bandwidth=1_000_000, downtime_ms=60_000))
    assert outcome.rounds[-1]["cause"] == "final"
    assert outcome.rounds[-1]["normal_pages"] > 3900
    assert outcome.summary["downtime"] < 100


def test_a_zero_page_costs_nine_bytes_and_a_written_page_is_data():
    while_sending = 1_050_000  # page 7 has been read: the first call sends 640 zero pages from 1.003 to 1.13 ms
    outcome = run_engine(make_case(n_pages=640, zero=set(range(640)), events=[(while_sending, 7, 0)], loop=False))
    assert outcome.summary["ram"]["duplicate"] == 640
    assert outcome.summary["ram"]["normal"] == 1
    assert outcome.rounds[0]["sent_bytes"] - 640 * 9 == outcome.rounds[0]["iterate_calls"] * 18


@pytest.mark.parametrize(("reserved", "fills"), [(64, 192), (576, 448)])
def test_a_full_ring_stops_its_vcpu(reserved, fills):
    """Soft limit: size less 64, less 512 more with PML; measured on a kernel without PML as exactly size - 64."""
    entries = 256 if reserved == 64 else 1024
    events = [(2_000_000 + 10 * i, i, 0) for i in range(fills)]  # after the first sync
    base = {
        "n_pages": 2000, "log": "kvm-ring", "kring_entries": entries, "kring_reserved": reserved, "loop": False,
        "duration_ns": 10**9, "max_bandwidth": 50_000_000,
    }  # fmt: skip
    almost = run_engine(make_case(**base, events=events[:-1]))
    full = run_engine(make_case(**base, events=events))
    assert sum(row["kring_full_exits"] for row in almost.rounds) == 0
    assert sum(row["kring_full_exits"] for row in full.rounds) == 1
    kicks = sum(row["cause"] != "final" for row in full.rounds) * TABLE.prices_ps["vcpu_kicks"] // 1000
    assert full.guest["stall_ns"][0] > kicks
    assert full.guest["stall_ns"][1] == kicks
    assert max(row["kring_used_max"] for row in full.rounds) == fills


def test_stalls_delay_only_a_closed_loop():
    events = random_events(3, 2000, 2, 20_000, 1_000_000_000, hot=1, devices=False, burst=False)
    common = {
        "n_pages": 2000,
        "log": "kvm-ring",
        "kring_entries": 256,
        "kring_reserved": 64,
        "events": events,
        "max_bandwidth": 8_000_000,
    }
    closed, opened = (run_engine(make_case(**common, closed_loop=way)) for way in (True, False))
    assert sum(row["guest_ns"] for row in opened.rounds) != sum(row["guest_ns"] for row in closed.rounds)
    assert sum(row["kring_full_exits"] for row in closed.rounds) > 0
    assert sum(row["kring_full_exits"] for row in opened.rounds) > 0


def test_the_kernel_bitmap_absorbs_writes_until_its_chunk_is_cleared():
    """Before a chunk's first send, a write to a page of the snapshot goes unnoticed, and the page is sent once."""

    def outcome(log: str, at_ns: int):
        return run_engine(make_case(n_pages=256, max_bandwidth=100_000, loop=False, log=log, events=[(at_ns, 100, 0)]))

    def noticed(log: str, at_ns: int) -> int:
        return sum(row["logged_writes"] for row in outcome(log, at_ns).rounds)

    before, after = 500_000, 200_000_000  # the first page is sent at 1.0 ms
    assert [noticed("kvm-bitmap", before), noticed("kvm-ring", before)] == [0, 1]
    assert [noticed("kvm-bitmap", after), noticed("kvm-ring", after)] == [1, 1]
    assert outcome("kvm-bitmap", before).summary["ram"]["normal"] == 256
    assert outcome("kvm-bitmap", after).summary["ram"]["normal"] == 257


@pytest.mark.parametrize("log", LOGS)
def test_an_overflowing_ring_falls_back_and_comes_back(log):
    quiet = [(1_900_000_000 + 1000 * i, i, 0) for i in range(3)]
    busy = [(1_000_000 + 1000 * i, i % 900, 0) for i in range(20_000)]
    case = make_case(
        n_pages=1000, log=log, design="double-ring", options={"entries": 64}, events=sorted(busy + quiet), duration_ns=2_000_000_000,
        max_bandwidth=20_000_000, downtime_ms=1, loop=False, give_up_ns=20_000_000_000,
    )  # fmt: skip
    outcome = run_engine(case)
    assert outcome.lost_pages == 0
    assert sum(row["ring_rejected"] for row in outcome.rounds) > 0
    assert sum(row["fallback_rounds"] for row in outcome.rounds) >= 1
    assert outcome.rounds[-1]["fallback_rounds"] == 0


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("design", DESIGNS)
def test_twice_the_bandwidth_halves_the_first_round_of_an_idle_guest(log, design):
    free = {
        "prices": dict.fromkeys(TABLE.prices_ps, 0),
        "fixed": dict.fromkeys(TABLE.fixed_ps, 0),
        "give_up_ns": 10**12,
    }
    slow, fast = (
        run_engine(make_case(n_pages=100_000, log=log, design=design, max_bandwidth=rate, **free))
        for rate in (20_000_000, 40_000_000)
    )
    flushes_a_window = [rate // 10 // (32 * 4104) + 1 for rate in (20_000_000, 40_000_000)]
    expected = flushes_a_window[1] / flushes_a_window[0]  # 1.94: twice, but for whole flushes
    assert slow.rounds[0]["end_ns"] / fast.rounds[0]["end_ns"] == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("design", DESIGNS)
def test_unchecked_runs_report_the_same_but_for_what_was_not_checked(log, design):
    events = random_events(5, 700, 2, 3000, 500_000_000, hot=50, devices=True, burst=False)
    case = make_case(n_pages=700, log=log, design=design, events=events)
    checked, unchecked = run_engine(case), run_engine(case, check=False)
    assert unchecked.lost_pages is None
    assert unchecked.redundant_pages is None
    for ours, theirs in zip(checked.rounds, unchecked.rounds, strict=True):
        skip = ("redundant_pages",)
        mine = {k: v for k, v in ours.items() if not k.startswith("measured_") and k not in skip}
        assert mine == {k: v for k, v in theirs.items() if not k.startswith("measured_") and k not in skip}
    assert checked.summary == unchecked.summary
