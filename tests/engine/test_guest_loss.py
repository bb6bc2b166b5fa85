"""What each vCPU loses, and by what: that every cause is found where it is made, and that nothing is counted twice."""

from __future__ import annotations

import polars as pl
import pytest

import replay
from replay.analysis.guest_cost import lost, spell_lost
from replay.columns import LOSSES, LOST, LOST_PCT, LOST_SHARES, VCPUS
from replay.migration.costs import DEFAULT, load
from replay.verbs import GuestShape, write_faults
from tests.engine.harness import make_case, run_engine
from tests.engine.test_dirty_limit import WRITER

FAULT_NS = load(DEFAULT).fixed_ps["write_fault"] // 1000
GUEST = "uniform:rate=5000,memory=16M,duration=1s,vcpus=2"
SLOW = {"max_bandwidth": "8MB/s", "downtime_limit": "20ms", "give_up": "4s"}


def column(outcome, cause):
    return [row[f"modelled_{cause}_stall_ns"] for row in outcome.guest["vcpus"]]


def test_a_full_ring_and_the_sleep_of_a_dirty_limit_are_told_apart_by_vcpu():
    free, limited = (run_engine(make_case(**WRITER, dirty_limit=limit)) for limit in (None, (1, 1000, 50)))
    assert column(free, "throttle") == [0, 0]
    asleep = column(limited, "throttle")
    assert asleep[0] > 2_000_000_000
    assert asleep[1] == 0
    assert column(limited, "full")[0] > 0 == column(limited, "full")[1]
    for outcome in (free, limited):  # a lane a vCPU, and one for devices: stall is what the four causes come to
        for row, stall_ns in zip(outcome.guest["vcpus"], outcome.guest["stall_ns"], strict=False):
            parts = sum(row[f"modelled_{cause}_stall_ns"] for cause in ("full", "sync", "throttle", "fetch"))
            assert abs(parts - stall_ns) < 4


def test_a_throttle_puts_every_vcpu_to_sleep():
    calm = replay.run(GUEST, **SLOW)
    asleep = replay.run(GUEST, policy="auto-converge:initial=50,trigger=1", **SLOW | {"give_up": "9s"})
    assert calm.total("modelled_throttle_stall_ns") == 0
    first, second = asleep.vcpus["modelled_throttle_stall_ns"]
    assert first == second > 0.1 * asleep.vcpus["ran_ns"][0]
    assert abs(asleep.total("modelled_throttle_stall_ns") - first - second) <= 2
    assert asleep.total("modelled_stall_ns") < first  # which knows nothing of throttles


@pytest.mark.parametrize("log", ["tcg", "kvm-bitmap", "kvm-ring:1024,pml=off"])
def test_faults_are_those_that_the_log_noticed(log):
    result = replay.run(GUEST, log=log, **SLOW)
    faults = [ns // FAULT_NS for ns in result.vcpus["modelled_fault_stall_ns"]]
    assert sum(faults) == result.total("logged_writes") - result.total("host_writes") > 1000
    assert min(faults) > 100
    assert result.total("modelled_fault_stall_ns") == FAULT_NS * sum(faults)


def test_a_cpu_that_logs_by_itself_leaves_the_guest_once_in_512_pages():
    by_hand, by_cpu = (
        replay.run(GUEST, log=f"kvm-ring:4096,pml={pml}", **SLOW).vcpus["modelled_fault_stall_ns"].to_list()
        for pml in ("off", "on")
    )
    for many, few in zip(by_hand, by_cpu, strict=True):
        assert 0 < few < many / 400


def test_faults_cost_no_time_of_the_clock():
    dear = replay.run(GUEST, log="kvm-bitmap", costs=f"{DEFAULT}:write_fault=50000", **SLOW)
    plain = replay.run(GUEST, log="kvm-bitmap", **SLOW)
    assert dear.total("modelled_fault_stall_ns") == 50 * plain.total("modelled_fault_stall_ns")
    others = [name for name in plain.rounds.columns if not name.startswith("measured_") and "fault_stall" not in name]
    assert dear.rounds.select(others).equals(plain.rounds.select(others))


def test_kicks_of_syncs_and_waits_at_the_target():
    result = replay.run(GUEST, log="kvm-bitmap", postcopy_after="500ms", postcopy_bandwidth="20MB/s", **SLOW)
    kick_ns = load(DEFAULT).prices_ps["vcpu_kicks"] // 1000
    syncs = sum(row["vcpu_kicks"] > 0 for row in result.rows if row["cause"] not in ("final", "postcopy"))
    assert result.vcpus["modelled_sync_stall_ns"].to_list() == [syncs * kick_ns] * 2
    assert min(result.vcpus["modelled_fetch_stall_ns"]) > 0
    last = result.rows[-1]
    assert (last["cause"], last["modelled_fetch_stall_ns"]) == ("postcopy", result.total("modelled_fetch_stall_ns"))


def test_shares_are_of_the_time_in_which_vcpus_could_run(tmp_path):
    result = replay.run(GUEST, log="kvm-ring:1024", design="ring-only:256", **SLOW)
    path = tmp_path / "result.parquet"
    result.save(path)
    again = replay.load(path)
    assert again.vcpus.equals(result.vcpus)
    assert result.vcpus.schema == {c.name: getattr(pl, c.dtype) for c in VCPUS}
    for row in result.vcpus.to_dicts():
        assert abs(row["modelled_lost_ns"] - sum(row[name] for name in LOST)) < len(LOSSES)
        assert row[LOST_PCT] == pytest.approx(100 * row["modelled_lost_ns"] / row["ran_ns"], rel=1e-6)
        assert 0 < row[LOST_PCT] < 100
        assert row["ran_ns"] == result.rows[-1]["end_ns" if result.status != "completed" else "sync_begin_ns"]
    shares = lost(result.guest["vcpus"])
    assert shares[LOST_PCT] == pytest.approx(sum(shares[name] for name in LOST_SHARES), rel=1e-6)
    assert shares[LOST_PCT] == pytest.approx(result.vcpus[LOST_PCT].mean())
    assert shares["modelled_lost_most_pct"] == result.vcpus[LOST_PCT].max()


def test_a_log_of_ones_own_need_not_count_faults():
    class State:
        pass

    assert write_faults(State()) is None
    for name in ("tcg", "kvm-bitmap", "kvm-ring"):
        from replay.plugins import parse

        noticed, per_exit = write_faults(parse("log", name).build(GuestShape(n_pages=10, n_vcpus=3)))
        assert (noticed.tolist(), per_exit) == ([0, 0, 0], 512 if name == "kvm-ring" else 1)


def test_what_was_lost_in_words():
    shares = {LOST_PCT: 1.234, **dict.fromkeys(LOST_SHARES, 0.0)}
    shares |= {"modelled_fault_pct": 0.9, "modelled_sync_pct": 0.334}
    assert spell_lost(shares) == "1.23 %: fault 0.9, sync 0.33"
    assert spell_lost(shares, 1) == "1.23 % fault"
    assert spell_lost({LOST_PCT: 0.0, **dict.fromkeys(LOST_SHARES, 0.0)}) == "0 %"
    assert spell_lost({LOST_PCT: None, **dict.fromkeys(LOST_SHARES)}) == "-"
