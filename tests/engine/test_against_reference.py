"""Engine, second formulation and plain-Python reference say the same in every column of every round."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay.columns import LOSSES
from replay.jit import DISABLED
from replay.plugins import describe, names, parse
from tests.engine.harness import (
    _ONLY_FROM_KVM_RINGS,
    OPTIONS,
    cases,
    difference,
    plugin_texts,
    rounds_of,
    run_engine,
    run_reference,
)
from tests.reference.logs import LOGS
from tests.reference.migration import DESIGNS
from tests.reference.totals import lost

PAIRS = [(log, design) for log in names("log") for design in names("design")]
EXAMPLES = 8 if DISABLED else 30


def test_the_reference_covers_every_plugin():
    assert set(LOGS) == set(names("log"))
    assert set(DESIGNS) == set(names("design"))


@pytest.mark.parametrize("design", names("design"))
def test_the_reference_covers_every_parameter(design):
    drawn = {name for name, _ in OPTIONS[design]}
    if "source" in drawn:
        drawn |= {name for name, _ in _ONLY_FROM_KVM_RINGS}
    assert drawn == {parameter.name for parameter in describe("design", design).parameters}


def is_safe(case):
    plugin = parse("design", plugin_texts(case)[1])
    return plugin.unsafe is None


@pytest.mark.parametrize(("log", "design"), PAIRS)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_all_records_are_equal(log, design, data):
    case = data.draw(cases(log, design))
    theirs = run_reference(case)
    for formulation in ("batched", "stepping"):
        ours = run_engine(case, formulation)
        assert difference(rounds_of(ours.rounds), rounds_of(theirs.rounds)) == "", formulation
        assert ours.status == ("completed" if theirs.completed else "not-converged")
        if theirs.completed:
            assert ours.summary["downtime"] == theirs.downtime_ms
        assert ours.summary["ram"]["transferred"] == theirs.rounds_transferred
        assert ours.summary["ram"]["dirty-pages-rate"] == theirs.rate["value"]
        assert ours.summary["ram"]["pages-per-second"] == int(theirs.pps)
        assert ours.guest["stall_ns"] == [ps // 1000 for ps in theirs.guest.stalled]
        for row in ours.guest["vcpus"]:
            why = lost(theirs, row["vcpu"])
            assert {name: row[f"modelled_{name}_stall_ns"] for name in LOSSES} == {n: why[n] // 1000 for n in LOSSES}
        assert ours.redundant_pages == theirs.redundant
        assert ours.throttle_steps == theirs.throttle_steps
        if theirs.completed:
            assert ours.lost_pages == theirs.lost()
        if is_safe(case):
            assert ours.lost_pages == 0


@pytest.mark.parametrize(("log", "design"), PAIRS)
@settings(max_examples=max(4, EXAMPLES // 4), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_cutting_the_trace_into_windows_changes_nothing(log, design, data):
    case = data.draw(cases(log, design))
    whole = run_engine(case)
    for window_events in (1, 7):
        cut = run_engine(case, window_events=window_events)
        assert difference(rounds_of(cut.rounds), rounds_of(whole.rounds)) == ""
        assert cut.summary == whole.summary
        assert cut.guest["stall_ns"] == whole.guest["stall_ns"]


@pytest.mark.parametrize(("log", "design"), PAIRS)
@settings(max_examples=max(4, EXAMPLES // 4), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_books_balance(log, design, data):
    """Conservation: what was sent is memory once plus what was sent again; pending is what the reference's set says."""
    case = data.draw(cases(log, design))
    ours, theirs = run_engine(case), run_reference(case)
    assert [row["pending_after_pages"] for row in ours.rounds] == theirs.pending_at_sync[: len(ours.rounds)]
    ram = ours.summary["ram"]
    for row in ours.rounds:
        assert 0 <= row["redundant_pages"] <= row["normal_pages"] + row["zero_pages"] + row["xbzrle_same"]
    for before, after in zip(ours.rounds, ours.rounds[1:], strict=False):
        assert before["end_ns"] == after["sync_begin_ns"]
    if DESIGNS[design](case).live:
        return  # pages become pending between syncs too
    dirty = sum(row["dirty_pages"] for row in ours.rounds)
    deltas = sum(row["xbzrle_pages"] - row["xbzrle_overflows"] for row in ours.rounds)
    assert ram["normal"] + ram["duplicate"] + deltas == case.n_pages + dirty - (ram["remaining"] // 4096)
    for row in ours.rounds:
        assert row["pending_before_pages"] + row["dirty_pages"] == row["pending_after_pages"]
    for before, after in zip(ours.rounds, ours.rounds[1:], strict=False):
        assert (
            before["pending_after_pages"]
            - before["normal_pages"]
            - before["zero_pages"]
            - before["xbzrle_pages"]
            + before["xbzrle_overflows"]
            == after["pending_before_pages"]
        )
