"""Single mechanisms of designs whose marks reach the sender at once, and what unsafe ones lose."""

from __future__ import annotations

from typing import Any

import pytest

from replay.plugins import parse
from tests.engine.harness import TABLE, make_case, random_events, run_engine
from tests.reference.case import DMA, VHOST, host_on

SMALL_RINGS = {"log": "kvm-ring", "kring_entries": 256, "kring_reserved": 64}
SLOW_PAGES = {"prices": TABLE.prices_ps | {"normal_pages": 800_000_000}, "max_bandwidth": 0}  # 0.8 ms a page


def busy(n_pages: int = 600, count: int = 20_000, **changes: Any) -> Any:
    """A guest that writes 20,000 times in half a second while 4.9 MB/s are sent."""
    events = random_events(
        11, n_pages, 2, count, 500_000_000, hot=80, devices=changes.pop("devices", False), burst=False
    )
    return make_case(n_pages=n_pages, events=events, duration_ns=500_000_000, loop=False, give_up_ns=20_000_000_000, **({"max_bandwidth": 4_900_000} | changes))  # fmt: skip


def total(outcome: Any, column: str) -> int:
    return sum(row[column] for row in outcome.rounds)


UNSAFE = [
    (
        "direct-reap",
        {"order": "literal"},
        SMALL_RINGS | SLOW_PAGES | {"reaper_ps": 30_000_000_000, "count": 3000},
        False,
    ),
    ("double-ring", {"entries": 1024, "locked": False, "race-every": 3}, {"log": "tcg"}, False),
    ("double-ring", {"entries": 1024, "late-inserts": True}, {"log": "tcg"}, False),
    ("double-ring", {"entries": 1024, "as-posted": True, "race-every": 1}, {"log": "tcg"}, True),
    ("ring-background", {"source": "kvm-ring", "rearm": "after"}, SMALL_RINGS | SLOW_PAGES, False),
    ("ring-background", {"source": "kvm-ring", "rearm": "after"}, {"log": "tcg"} | SLOW_PAGES, False),
    ("ring-background", {"background": 1, "third-branch": False}, SMALL_RINGS, False),
]


@pytest.mark.parametrize(("design", "options", "log", "devices"), UNSAFE)
def test_what_is_named_unsafe_loses_pages_and_its_safe_twin_does_not(design, options, log, devices):
    unsafe = busy(design=design, options=options, devices=devices, **log)
    safe = busy(
        design=design, options={"source": options["source"]} if "source" in options else {}, devices=devices, **log
    )
    assert run_engine(unsafe).lost_pages > 0
    assert run_engine(safe).lost_pages == 0


@pytest.mark.parametrize(
    ("spelling", "why"),
    [
        ("bitmap", None),
        ("double-ring", None),
        ("double-ring:1024,dedupe=off,exact-full=on,boot-filled=on,block-rescans=on", None),
        ("double-ring:1024,locked=off", "overwrite"),
        ("double-ring:1024,late-inserts=on", "after the swap"),
        ("double-ring:1024,atomic-clear=off", "neighbour"),
        ("double-ring:1024,multifd-flush=off", "channels"),
        ("double-ring:1024,as-posted=on", "overwrite"),
        ("direct-reap:literal", "before the reset"),
        ("ring-background:1024,source=kvm-ring,rearm=after", "before it is armed"),
        ("ring-background:1024,background=1,third-branch=off", "never serves"),
    ],
)
def test_unsafe_configurations_say_why(spelling, why):
    unsafe = parse("design", spelling).unsafe
    assert unsafe is None if why is None else why in unsafe


def test_a_vcpu_that_sends_what_it_reaped_stands_still_for_it():
    by_vcpu = run_engine(busy(design="direct-reap", options={"sender": "vcpu"}, **SMALL_RINGS))
    batches = run_engine(busy(design="direct-reap", options={"sender": "batches"}, **SMALL_RINGS))
    sends = total(by_vcpu, "producer_sends")
    assert sends > 0
    assert total(batches, "producer_sends") == 0
    assert sum(by_vcpu.guest["stall_ns"]) > sum(batches.guest["stall_ns"])
    assert total(by_vcpu, "vcpu_holds") > 0


def test_a_full_queue_stops_its_vcpus_or_makes_them_send():
    waits, sends = (
        run_engine(busy(design="ring-only", options={"entries": 4, "full": full}, log="tcg"))
        for full in ("wait", "send")
    )
    assert max(row["ring_used_max"] for row in waits.rounds) == 4
    assert total(waits, "producer_sends") == 0
    assert total(sends, "producer_sends") > 0
    assert total(sends, "vcpu_holds") == 0
    page_ns = (TABLE.prices_ps["normal_pages"] + TABLE.prices_ps["producer_sends"]) // 1000
    assert sum(sends.guest["stall_ns"]) >= total(sends, "producer_sends") * page_ns
    assert sum(waits.guest["stall_ns"]) > 20 * sum(sends.guest["stall_ns"])


@pytest.mark.parametrize("log", ["tcg", "kvm-ring"])
def test_a_queue_that_makes_producers_wait_is_never_over_full(log):
    outcome = run_engine(busy(design="ring-background", options={"entries": 64}, **(SMALL_RINGS | {"log": log})))
    assert max(row["ring_used_max"] for row in outcome.rounds) <= 64
    assert total(outcome, "vcpu_holds") > 0
    assert outcome.lost_pages == 0


def test_devices_do_not_wait():
    events = [(1_000_000 + 1000 * i, i, DMA) for i in range(500)]
    outcome = run_engine(make_case(n_pages=600, design="ring-only", options={"entries": 4}, events=events, loop=False))
    assert total(outcome, "side_marks") > 0
    assert total(outcome, "modelled_stall_ns") == 0
    assert outcome.lost_pages == 0


def test_the_background_gets_its_share():
    """With a queue that is never empty every k-th page is the background's."""
    flood = [(1_000 * i, i % 700, 0) for i in range(400_000)]
    for k in (2, 5):
        case = make_case(
            n_pages=2_000, log="tcg", design="ring-background", options={"background": k, "entries": 64, "filter": "naive"},
            events=flood, duration_ns=400_000_000, max_bandwidth=4_000_000, give_up_ns=400_000_000,
        )  # fmt: skip
        outcome = run_engine(case)
        sent = total(outcome, "background_pops") + total(outcome, "ring_pops")
        assert total(outcome, "background_pops") / sent == pytest.approx(1 / k, rel=0.05)


def test_what_needs_no_entry_is_filtered_or_left_out():
    """Page 599 is written before the pass comes by: sent twice, once for the cursor's sake, or once by the done bit."""
    common = {"n_pages": 600, "log": "tcg", "design": "ring-background", "events": [(700_000, 599, 0)], "loop": False}
    by = {way: run_engine(make_case(**common, options={"filter": way})) for way in ("naive", "cursor", "done-bit")}
    assert {way: outcome.summary["ram"]["normal"] for way, outcome in by.items()} == {
        "naive": 601,
        "cursor": 600,
        "done-bit": 600,
    }
    assert total(by["cursor"], "ring_filtered") == 1
    assert total(by["done-bit"], "background_skips") == 1
    assert total(by["naive"], "ring_pushes") == total(by["done-bit"], "ring_pushes") == 1


def test_a_fallback_is_left_by_a_scan_or_never():
    sticky, scan, chunks = (
        run_engine(busy(design="ring-fallback", options={"entries": 64, "leave": way}, log="tcg"))
        for way in ("sticky", "scan", "chunks")
    )
    assert total(sticky, "ring_pops") == 0
    assert total(sticky, "fallback_rounds") == len(sticky.rounds) - 1
    assert total(scan, "ring_refills") > 0
    assert total(scan, "ring_pops") > 0
    assert total(chunks, "summary_words") > 0
    assert total(chunks, "ring_pops") > 0


def test_where_writes_come_from_decides_how_they_are_noticed():
    """The hypervisor's own writes push without a test; DMA marks at once; vhost is read at a sync."""
    times = {"n_pages": 600, "loop": False, "max_bandwidth": 600_000, "downtime_ms": 1}
    thrice = [(2_000_000 + i, 5, host_on(1)) for i in range(3)]
    host = run_engine(make_case(**times, **SMALL_RINGS, events=thrice))
    assert total(host, "logged_writes") == 3
    assert total(host, "kring_duplicates") == 2
    assert total(run_engine(make_case(**times, log="kvm-bitmap", events=thrice)), "kring_reaped") == 0
    dma = run_engine(make_case(**times, **SMALL_RINGS, events=[(2_000_000, 5, DMA)]))
    assert total(dma, "logged_writes") == total(dma, "device_words") == 0
    assert total(dma, "fan_out") == 1
    vhost = run_engine(make_case(**times, **SMALL_RINGS, events=[(2_000_000, 5, VHOST)]))
    assert vhost.rounds[0]["device_words"] == 0
    assert vhost.rounds[1]["device_words"] == 16
    assert vhost.rounds[1]["dirty_pages"] == 1
    assert [outcome.summary["ram"]["normal"] for outcome in (host, dma, vhost)] == [601] * 3
    counted = [
        (total(o, "host_writes"), total(o, "dma_writes"), total(o, "outside_writes")) for o in (host, dma, vhost)
    ]
    assert counted == [(3, 0, 0), (0, 1, 0), (0, 0, 1)]


def test_rings_are_fetched_in_the_order_asked_for():
    """vCPU 0 writes 6 pages, then vCPU 1 two, then vCPU 0 again: the order in which the sender gets them, seen by what
    is left pending after a few pages."""
    writes = (
        [(700_000 + i, i, 0) for i in range(6)] + [(700_010 + i, 100 + i, 1) for i in range(2)] + [(700_020, 50, 0)]
    )
    logs: dict[str, list[int]] = {}
    for order in ("round-robin", "longest", "age"):
        from replay.migration.precopy import Precopy

        machine: list[Precopy] = []
        case = make_case(
            n_pages=600, design="ring-background", options={"source": "kvm-ring", "order": order, "batch": 4, "background": 0, "filter": "naive"},
            events=writes, loop=False, **SMALL_RINGS,
        )  # fmt: skip
        run_engine(case, keep=machine)
        slots = machine[0].design.slots
        logs[order] = [int(page) for page in slots[:9]]
    assert logs["age"] == [0, 1, 2, 3, 4, 5, 100, 101, 50]
    assert logs["round-robin"] == [0, 100, 1, 101, 2, 3, 4, 5, 50]
    assert logs["longest"][:5] == [0, 1, 2, 3, 4]
    assert sorted(logs["longest"]) == sorted(logs["age"])


def test_pages_that_can_not_be_found_make_the_loop_spin_not_hang():
    outcome = run_engine(
        busy(design="ring-background", options={"background": 1, "third-branch": False}, **SMALL_RINGS)
    )
    assert outcome.status == "not-converged"
    assert outcome.rounds[-1]["pending_after_pages"] > 0


def test_producers_that_send_do_not_queue_for_ever_when_the_guest_is_never_delayed():
    case = busy(design="ring-only", options={"entries": 4, "full": "send"}, log="tcg", closed_loop=False)
    outcome = run_engine(case)
    sends, page_ps = (
        total(outcome, "producer_sends"),
        TABLE.prices_ps["normal_pages"] + TABLE.prices_ps["producer_sends"],
    )
    assert sends > 0
    assert sum(outcome.guest["stall_ns"]) < 20 * sends * page_ps // 1000
