"""multifd: packets, what counts against the limit and when, flushes between rounds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import replay
from replay.config import RunConfig
from replay.errors import UsageError
from replay.migration import costs, multifd
from replay.migration.link import CHANNEL_BYTES, IN_PACKET, new_stream, put_page
from replay.units import PS_PER_MS
from replay.work import INDEX, N_COUNTERS
from tests.engine.harness import TABLE, make_case, run_engine

PACKET = 1344 + 128 * 4096
LIMITED: dict = {"n_pages": 20_000, "max_bandwidth": 60_000_000, "downtime_ms": 0, "loop": False}


@pytest.mark.parametrize(("channels", "packets"), [(1, 13), (2, 14), (4, 16)])
def test_a_window_carries_the_packets_that_were_on_their_way(channels, packets):
    """12 packets exceed 6 MB; each channel but the one that brought the last has one more, and one is handed over."""
    outcome = run_engine(make_case(**LIMITED, channels=channels))
    row = outcome.rounds[0]
    full_windows = -(-20_000 // (128 * packets))
    assert row["iterate_calls"] == full_windows
    assert outcome.summary["ram"]["multifd-bytes"] > 20_000 * 4096
    assert outcome.lost_pages == 0


def test_bytes_of_an_idle_guest_with_zeros():
    """Greeting, 8 packets (two of zeros cost their header only), and headers at setup, between rounds and at the end."""
    outcome = run_engine(
        make_case(n_pages=1024, zero=set(range(256)), channels=2, zero_detection="multifd", max_bandwidth=0, loop=False)
    )
    flushes = 1 + sum(row["round_flushes"] for row in outcome.rounds) + 1
    packets = 8 + 2 * flushes
    assert sum(row["multifd_packets"] for row in outcome.rounds) == packets
    assert outcome.summary["ram"]["multifd-bytes"] == 2 * 64 + packets * 1344 + 768 * 4096
    assert (outcome.summary["ram"]["normal"], outcome.summary["ram"]["duplicate"]) == (768, 256)


def test_zeros_found_by_the_migration_thread_take_nine_bytes_beside_the_channels():
    case = make_case(
        n_pages=1024, zero=set(range(256)), channels=2, zero_detection="legacy", max_bandwidth=0, loop=False
    )
    ram = run_engine(case).summary["ram"]
    assert (ram["multifd-bytes"] - 2 * 64 - 768 * 4096) % 1344 == 0
    assert ram["transferred"] - ram["multifd-bytes"] > 256 * 9 + sum(TABLE.fixed_bytes.values())


def test_more_channels_are_faster_until_the_migration_thread_is_the_slower_part():
    slow = TABLE.prices_ps | {"normal_pages": 20_000_000}
    times = [
        run_engine(make_case(n_pages=20_000, max_bandwidth=0, loop=False, prices=slow, channels=n)).summary[
            "total-time"
        ]
        for n in (1, 2, 4, 255)
    ]
    assert times[0] > 1.9 * times[1] > 3.5 * times[2]
    assert times[3] >= 20_000 * TABLE.fixed_ps["multifd_page"] // PS_PER_MS


def test_channels_share_the_wire():
    table = dataclasses.replace(costs.load("generic-x86"), prices_ps=TABLE.prices_ps | {"normal_pages": 1})
    stream = multifd.with_channels(new_stream(), multifd.Channels(count=8, find_zeros=False), table, 10**9)
    work, now = np.zeros(N_COUNTERS, dtype=np.uint64), np.uint64(0)
    for _ in range(1280):
        put_page(stream, False, work)
        now = multifd.hand_over_full(stream, now, work)
    done = multifd.flush_channels(stream, now, work)
    assert work[INDEX["multifd_packets"]] == 10 + 8
    assert int(done) == (10 * PACKET + 8 * 1344) * 1000  # ps: a nanosecond a byte
    assert int(stream[CHANNEL_BYTES]) == 10 * PACKET + 8 * 1344 + 8 * 64
    assert stream[IN_PACKET] == 0


def test_a_posted_double_ring_does_not_flush_after_ring_rounds():
    events = [(t * 100_000, t * 7 % 4000, 0) for t in range(20_000)]
    busy = {**LIMITED, "n_pages": 4000, "events": events, "duration_ns": 2 * 10**9, "loop": True, "channels": 2}
    flushes = [
        sum(row["round_flushes"] for row in run_engine(make_case(**busy, design="double-ring", options=options)).rounds)
        for options in ({"multifd-flush": True}, {"multifd-flush": False})
    ]
    assert flushes[0] > flushes[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"multifd_channels": 2, "mapped_ram": True}, "not modelled"),
        ({"multifd_channels": 2, "qemu_version": "7.2"}, "take --qemu-version 9.x or later"),
        ({"multifd_channels": 256}, "take 0"),
        ({"multifd_channels": "two"}, "take 0"),
        ({"multifd_channels": 2, "xbzrle": "64M"}, "together with --multifd-channels"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        RunConfig(**options)


def test_a_design_without_rounds_is_refused():
    with pytest.raises(UsageError, match="this design has none"):
        replay.run("idle-1g", design="ring-background", multifd_channels=2)
