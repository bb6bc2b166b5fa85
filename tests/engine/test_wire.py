"""What pages take on their way out: zero pages found here, there or nowhere, and files in which each has its place."""

from __future__ import annotations

import pytest

from replay.config import RunConfig
from replay.errors import UsageError
from replay.migration import costs
from replay.migration.wire import page_bytes, prices
from replay.work import INDEX
from tests.engine.harness import TABLE, make_case, run_engine

HALF_ZERO: dict = {"n_pages": 1000, "zero": set(range(500)), "max_bandwidth": 50_000_000, "loop": False}


@pytest.mark.parametrize("formulation", ["batched", "stepping"])
@pytest.mark.parametrize(
    ("detection", "mapped", "zero", "normal", "page_bytes"),
    [
        ("legacy", False, 500, 500, 500 * 9 + 500 * 4104),
        ("none", False, 0, 1000, 1000 * 4104),
        ("multifd", False, 500, 500, 500 * 9 + 500 * 4104),
        ("legacy", True, 500, 500, 500 * 4096),
        ("none", True, 0, 1000, 1000 * 4096),
    ],
)
def test_what_an_idle_guest_takes(formulation, detection, mapped, zero, normal, page_bytes):
    outcome = run_engine(make_case(**HALF_ZERO, zero_detection=detection, mapped_ram=mapped), formulation)
    assert (outcome.summary["ram"]["duplicate"], outcome.summary["ram"]["normal"]) == (zero, normal)
    around = sum(row["iterate_calls"] for row in outcome.rounds) * 18 + sum(TABLE.fixed_bytes.values())
    assert outcome.summary["ram"]["transferred"] == page_bytes + around
    assert outcome.lost_pages == 0


def test_zero_pages_found_by_channels_cost_the_migration_thread_their_queueing():
    rows = [
        run_engine(make_case(**HALF_ZERO, zero_detection=how, channels=1)).rounds[0] for how in ("legacy", "multifd")
    ]
    saved_ns = rows[0]["modelled_send_ns"] - rows[1]["modelled_send_ns"]
    assert saved_ns == 500 * (TABLE.prices_ps["zero_pages"] - TABLE.fixed_ps["multifd_page"]) // 1000


def test_a_mapped_page_is_counted_when_it_is_written():
    """No flush of 32 pages: a window of 2 MB ends with the first page beyond it, 489, less what stood in the buffer."""
    case = make_case(n_pages=5000, max_bandwidth=20_000_000, mapped_ram=True, downtime_ms=0, loop=False)
    rows = run_engine(case).rounds
    assert rows[0]["iterate_calls"] == -(-5000 // 489)


def test_the_wire_bounds_each_page_by_what_it_takes():
    table = costs.load("generic-x86")
    for mapped in (False, True):
        price = prices(table, 1_000_000, mapped)
        normal, zero = page_bytes(mapped)
        assert price[INDEX["normal_pages"]] == normal * 10**6
        assert price[INDEX["zero_pages"]] == max(table.prices_ps["zero_pages"], zero * 10**6)


@pytest.mark.parametrize("options", [{"mapped_ram": True}, {"zero_page_detection": "none"}])
def test_what_came_with_9_is_refused_before(options):
    with pytest.raises(UsageError, match=r"came with QEMU 9.0: leave it out, or take --qemu-version 9.x"):
        RunConfig(qemu_version="7.2", **options)
