"""Postcopy: what is left goes after the switch, stores to missing pages wait for them, nothing is lost."""

from __future__ import annotations

import pytest

import replay
from replay.config import RunConfig
from replay.errors import UsageError
from replay.units import PS_PER_MS
from tests.engine.harness import OPTIONS, TABLE, make_case, run_engine

FIXED = TABLE.fixed_ps
BUSY: dict = {
    "n_pages": 4000, "events": [(t * 100_000, t * t * 7919 % 3989, t % 2) for t in range(20_000)],
    "duration_ns": 2 * 10**9, "max_bandwidth": 50_000_000, "give_up_ns": 10**10,
}  # fmt: skip


def last(outcome):
    row = outcome.rounds[-1]
    assert row["cause"] == "postcopy"
    return row


@pytest.mark.parametrize("design", sorted(OPTIONS))
def test_no_design_loses_a_page_and_each_missing_one_is_sent_once(design):
    outcome = run_engine(make_case(**BUSY, design=design, postcopy=(300, 0, None)))
    row = last(outcome)
    assert outcome.status == "completed"
    assert outcome.lost_pages == 0
    assert row["postcopy_pages"] == row["normal_pages"] + row["zero_pages"] <= 4000
    assert row["postcopy_pages"] > 1000
    assert outcome.summary["ram"]["postcopy-requests"] == row["postcopy_faults"] > 0
    assert sum(outcome.guest["stall_ns"]) > 0


def test_a_guest_that_never_converges_is_through_after_the_switch():
    never = make_case(**(BUSY | {"max_bandwidth": 5_000_000, "downtime_ms": 1}))
    assert run_engine(never).status == "not-converged"
    switched = run_engine(
        make_case(**(BUSY | {"max_bandwidth": 5_000_000, "downtime_ms": 1}), postcopy=(1000, 0, None))
    )
    assert switched.status == "completed"
    assert switched.summary["downtime"] < 20  # the pages are not in it
    assert 1000 <= switched.summary["total-time"] < 1200


def test_one_store_waits_for_its_request_its_page_and_its_placing():
    """An idle guest, switched in the first pass; the only store, to the last page, comes long after the guest runs."""
    slow = TABLE.prices_ps | {"normal_pages": PS_PER_MS}
    store_ns = 400 * 10**6
    outcome = run_engine(
        make_case(
            n_pages=1000, events=[(store_ns, 999, 0)], duration_ns=2 * 10**9, loop=False, prices=slow,
            max_bandwidth=1_000_000, postcopy=(100, 0, None),
        )
    )  # fmt: skip
    row = last(outcome)
    assert row["postcopy_faults"] == 1
    page_ps = PS_PER_MS + FIXED["postcopy_page"]
    waited_ps = sum(outcome.guest["stall_ns"]) * 1000
    # the page in progress is finished first
    assert FIXED["fault_request"] + page_ps + FIXED["fault_place"] <= waited_ps + 1000
    assert waited_ps <= FIXED["fault_request"] + 2 * page_ps + FIXED["fault_place"] + 1000


def test_its_bandwidth_is_its_own():
    fast, slow = (
        run_engine(make_case(**(BUSY | {"downtime_ms": 0}), postcopy=(300, rate, None))) for rate in (0, 2_000_000)
    )
    windows = last(slow)["postcopy_pages"] // 64  # two flushes of 32 pages exceed 200 kB
    assert slow.summary["total-time"] - fast.summary["total-time"] == pytest.approx(windows * 100, abs=200)
    assert slow.lost_pages == 0


@pytest.mark.parametrize(("version", "cause"), [("10.0", "final"), ("10.2", "postcopy")])
def test_which_is_considered_first(version, cause):
    """An idle guest is done when the switch is due: 10.2 switches all the same."""
    slow = TABLE.prices_ps | {"normal_pages": PS_PER_MS // 100}
    case = make_case(n_pages=100, loop=False, max_bandwidth=0, version=version, prices=slow, postcopy=(2, 0, None))
    assert run_engine(case).rounds[-1]["cause"] == cause


def test_a_trace_recorded_through_the_switch_is_not_delayed_twice():
    recorded, delayed = (
        run_engine(make_case(**BUSY, loop=False, postcopy=(300, 4_000_000, since))) for since in (300 * 10**6, None)
    )
    assert last(recorded)["postcopy_faults"] > last(delayed)["postcopy_faults"]
    assert recorded.lost_pages == delayed.lost_pages == 0


@pytest.mark.parametrize("options", [{"multifd_channels": 2}, {"mapped_ram": True}])
def test_what_is_refused(options):
    with pytest.raises(UsageError, match="QEMU refuses postcopy together with --m"):
        RunConfig(postcopy_after="1s", **options)


def test_from_python():
    result = replay.run("rand-1g", log="tcg", max_bandwidth="60MB/s", downtime_limit="10ms", postcopy_after="5s")
    assert result.status == "completed"
    assert result.lost_pages == 0
    assert result.rows[-1]["cause"] == "postcopy"
    assert 5000 <= result.summary["total-time"] < 6000
