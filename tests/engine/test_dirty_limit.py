"""The dirty limit: who sleeps, for how long, and that the rest of the machine does not wait."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import replay
from replay.dirtylogs import kvm_ring
from replay.errors import UsageError
from replay.verbs import GuestShape
from tests.engine.harness import difference, make_case, rounds_of, run_engine, run_reference

# vCPU 0 writes 100,000 pages a second, vCPU 1 only 1,000.
WRITER: dict = {
    "n_pages": 4000,
    "log": "kvm-ring",
    "events": sorted(
        [(10_000 * i, i * 7 % 4000, 0) for i in range(10_000)] + [(1_000_000 * i, i * 11 % 4000, 1) for i in range(100)]
    ),
    "duration_ns": 100_000_000,
    "max_bandwidth": 10_000_000,
    "give_up_ns": 7_000_000_000,
}


def ring(quota_mib: int, entries: int = 4096):
    """The state of a log whose vCPUs are limited from 0 on, measured once a second."""
    log = kvm_ring.build(kvm_ring.Config(entries=entries), GuestShape(n_pages=100, n_vcpus=2))
    kvm_ring.limit_vcpus(log, quota_mib, 10**12, 0)
    return log


def test_the_reference_agrees_where_vcpus_sleep():
    for limit in ((1, 1000, 50), (60, 200, 50)):
        case = make_case(**WRITER, dirty_limit=limit)
        theirs = run_reference(case)
        assert any(theirs.log.sleep_us)
        for formulation in ("batched", "stepping"):
            ours = run_engine(case, formulation)
            assert difference(rounds_of(ours.rounds), rounds_of(theirs.rounds)) == ""
            assert ours.guest["stall_ns"] == [ps // 1000 for ps in theirs.guest.stalled]


def test_only_who_is_too_fast_sleeps():
    free, limited = (run_engine(make_case(**WRITER, dirty_limit=limit)) for limit in (None, (1, 1000, 50)))
    assert limited.guest["stall_ns"][0] > 2_000_000_000 > 10 * free.guest["stall_ns"][0]
    assert limited.guest["stall_ns"][1] < 100_000_000
    assert limited.throttle_steps == []
    longest = max(row["sync_end_ns"] - row["sync_begin_ns"] for row in limited.rounds)
    assert longest < 10_000_000
    writes = [sum(row["guest_writes"] for row in outcome.rounds) for outcome in (free, limited)]
    assert writes[1] < writes[0] * 0.7


@pytest.mark.parametrize(
    ("mib", "sleep_us"),
    [
        (20, 0),  # within 25 MiB/s of the quota: left alone
        (100, 160_000 * 99),  # 99 % off: 99 fills of 16 MiB at 100 MiB/s, the most there is
        (40, 400_000 * 97 // 3),  # 97 % off
    ],
)
def test_the_first_sleep(mib, sleep_us):
    log = ring(1)
    log.reaped[0] = mib * 256
    kvm_ring.measure_vcpus(log, np.uint64(10**12))
    assert log.sleep_us.tolist() == [sleep_us, 0]
    assert log.reaped.tolist() == [0, 0]


def test_small_steps_near_the_quota_and_back():
    log = ring(100)
    log.reaped[0] = 140 * 256
    kvm_ring.measure_vcpus(log, np.uint64(10**12))
    step = 16 * 10**6 // 140 // 10
    assert log.sleep_us[0] == step
    log.reaped[0] = 60 * 256
    kvm_ring.measure_vcpus(log, np.uint64(2 * 10**12))
    assert log.sleep_us[0] == 0


def test_without_rings_it_says_what_to_do():
    with pytest.raises(UsageError, match="dirty-limit acts when a vCPU's dirty ring is full: take --log kvm-ring"):
        replay.run("idle:rate=1000,memory=64M,duration=1s", log="tcg", policy="dirty-limit")


def test_the_strike_rule_is_that_of_auto_converge():
    """No strike, no sleep: the guest is slower than the trigger."""
    case = make_case(**(WRITER | {"events": WRITER["events"][:20]}), dirty_limit=(1, 1000, 100))
    with_it, without = run_engine(case), run_engine(dataclasses.replace(case, dirty_limit=None))
    assert rounds_of(with_it.rounds) == rounds_of(without.rounds)
