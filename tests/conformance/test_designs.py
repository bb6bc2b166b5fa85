"""What any design must keep, asked of all shipped ones, or of one of yours:

    python -m pytest tests/conformance --design path/to/my_design.py:PARAMS

It runs on every dirty log, on random small guests with every kind of writer, and needs no reference implementation:
what the target ends up with is compared with what the source wrote.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay.jit import DISABLED
from replay.migration.precopy import Precopy
from replay.plugins import names, parse
from tests.engine.harness import cases, difference, make_case, random_events, rounds_of, run_engine

EXAMPLES = 6 if DISABLED else 15
HYPOTHESIS = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
FEWER = settings(HYPOTHESIS, max_examples=5)  # several runs each, and a window of one event costs a refill an event


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Pairs of a log and a design: the ones on the command line, or all that are shipped and claim to be safe."""
    given = metafunc.config.getoption("--design")
    designs = given or [name for name in names("design") if parse("design", name).unsafe is None]
    if "log" in metafunc.fixturenames:
        metafunc.parametrize(("log", "design"), [(log, design) for log in names("log") for design in designs])
    else:
        metafunc.parametrize("design", designs)


def test_it_is_documented(design):
    text = parse("design", design).module.__doc__ or ""
    assert "Cost:" in text
    assert "Models:" in text


@HYPOTHESIS
@given(data=st.data())
def test_no_page_is_lost(log, design, data):
    outcome = run_engine(data.draw(cases(log, design, vary_options=False)))
    assert outcome.lost_pages == 0
    if outcome.status == "completed":
        assert outcome.summary["ram"]["remaining"] == 0


@HYPOTHESIS
@given(data=st.data())
def test_both_formulations_say_the_same(log, design, data):
    case = data.draw(cases(log, design, vary_options=False))
    ours, theirs = run_engine(case, "auto"), run_engine(case, "stepping")
    assert difference(rounds_of(ours.rounds), rounds_of(theirs.rounds)) == ""
    assert ours.summary == theirs.summary


@FEWER
@given(data=st.data())
def test_the_same_run_twice_and_cut_into_windows_says_the_same(log, design, data):
    case = data.draw(cases(log, design, vary_options=False))
    whole = run_engine(case)
    for window_events in (None, 1, 7):
        again = run_engine(case, window_events=window_events)
        assert difference(rounds_of(again.rounds), rounds_of(whole.rounds)) == ""


def test_pages_sent_are_at_least_all_pages(log, design):
    events = random_events(5, 700, 2, 3000, 500_000_000, hot=50, devices=True, burst=False)
    outcome = run_engine(make_case(n_pages=700, log=log, design=design, events=events, loop=False))
    ram = outcome.summary["ram"]
    assert outcome.status == "completed"
    assert ram["normal"] + ram["duplicate"] >= 700
    assert outcome.redundant_pages <= ram["normal"] + ram["duplicate"] - 700


def test_an_idle_guest_is_sent_once(log, design):
    outcome = run_engine(make_case(n_pages=700, log=log, design=design, max_bandwidth=0, give_up_ns=10**11))
    ram = outcome.summary["ram"]
    assert (outcome.status, outcome.lost_pages) == ("completed", 0)
    assert ram["normal"] + ram["duplicate"] == 700
    assert outcome.redundant_pages == 0


def test_pending_falls_to_nothing(log, design):
    """`pending` is what the loop decides by: too high and a migration never ends, too low and it ends too early."""
    machine: list[Precopy] = []
    case = make_case(
        n_pages=300, log=log, design=design, events=[(2_000_000 + i, i % 9, 0) for i in range(200)], loop=False
    )
    outcome = run_engine(case, keep=machine)
    assert outcome.status == "completed"
    assert machine[0].pending == 0
