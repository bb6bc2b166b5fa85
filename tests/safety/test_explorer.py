"""The explorer finds what is there, finds nothing where nothing is, and finds the shortest."""

from __future__ import annotations

import pytest

from replay.safety.explorer import _graph, explore, find_livelock, find_starvation
from replay.safety.model import EMPTY, FIRST_PAGE, MEMBERS, Bounds
from replay.safety.protocols import bitmap, double_ring, ring_only
from tests.safety.toys import lost_update, mutual_exclusion, spinner, two_queues
from tests.safety.variants import config

MANY = 10**6


def test_a_lost_update_in_four_steps_and_none_under_a_lock():
    found = explore(lost_update(), max_states=MANY)
    assert (found.property, len(found.schedule)) == ("loss", 5)
    assert [step.step for step in found.schedule] == ["load", "load", "store", "store", "look"]
    assert explore(lost_update(locked=True), max_states=MANY).property is None


def test_petersons_lock_holds_and_the_naive_one_does_not():
    assert explore(mutual_exclusion("peterson"), max_states=MANY).property is None
    found = find_livelock(mutual_exclusion("peterson"), max_states=MANY)
    assert (found.property, found.complete) == (None, True)
    model = mutual_exclusion("check-then-set")
    assert explore(model, max_states=MANY).property == "loss"


def test_two_polite_actors_are_a_deadlock():
    found = explore(mutual_exclusion("polite"), max_states=MANY)
    assert (found.property, len(found.schedule)) == ("deadlock", 2)
    assert find_livelock(mutual_exclusion("polite"), max_states=MANY).property == "deadlock"


def test_a_livelock_is_a_state_without_a_way_out():
    assert find_livelock(spinner(way_out=True), max_states=MANY).property is None
    found = find_livelock(spinner(way_out=False), max_states=MANY)
    assert (found.property, len(found.schedule)) == ("livelock", 1)


@pytest.mark.parametrize("fair", [True, False])
def test_starvation_is_a_cycle_in_which_others_are_served(fair):
    model = two_queues(fair)
    model.initial()
    waiting = model.names.index("waiting")
    found = find_starvation(
        model,
        waits=lambda state: state[waiting] != EMPTY,
        serves_others=lambda step: step.step == "serve others",
        max_states=MANY,
    )
    if fair:
        # a fair server may still choose: "serve" is only possible on its turn, and nothing else is then
        assert found.property is None
    else:
        assert (found.property, found.cycle_from) == ("starvation", 0)
        assert [step.step for step in found.schedule] == ["serve others"]


def test_running_out_of_states_is_not_safety():
    found = explore(bitmap.build(None, Bounds()), max_states=100)
    assert (found.property, found.complete) == (None, False)
    for search in (find_livelock,):
        assert not search(bitmap.build(None, Bounds()), max_states=100).complete


def shortest_by_deepening(model, limit):
    """The length of a shortest schedule to a loss, by iterative deepening without hashing names away."""
    start = model.initial()
    for depth in range(1, limit + 1):
        best: dict[bytes, int] = {}

        def search(state, left, best=best):
            if model.lost(state):
                return True
            if left == 0 or best.get(state, -1) >= left:
                return False
            best[state] = left
            return any(search(child, left - 1) for child in model.successors(state))

        if search(start, depth):
            return depth
    return None


@pytest.mark.parametrize(
    "build",
    [
        lambda: bitmap.build(None, Bounds(pages=1, writes=2), read_first=True),
        lambda: bitmap.build(None, Bounds(pages=2, writes=1), read_first=True),
        lambda: ring_only.build(config("ring_only"), Bounds(pages=1, ring=1, writes=2), clear_after_read=True),
        lambda: double_ring.build(config("double_ring", late_inserts=True), Bounds(pages=1, ring=1, writes=2)),
        lambda: lost_update(),
    ],
)
def test_schedules_are_as_short_as_an_independent_search_finds(build):
    found = explore(build(), max_states=MANY)
    assert found.property == "loss"
    assert len(found.schedule) == shortest_by_deepening(build(), len(found.schedule))


@pytest.mark.parametrize("pages", [2, 3])
def test_renaming_pages_loses_no_behaviour(pages):
    """Without symmetry there are more states, and their representatives are exactly those found with it."""
    model = bitmap.build(None, Bounds(pages=pages, writes=2), log="kvm-ring")
    start = model.initial()
    seen, stack = {start}, [start]
    while stack:
        for child in model.successors(stack.pop()):
            if child not in seen:
                seen.add(child)
                stack.append(child)
    kept = set(_graph(model, MANY, None).states)
    stopped = model.names.index("stopped")
    assert {state for state in kept if not state[stopped]} == {
        model.canonical(state) for state in seen if not state[stopped]
    }
    assert kept <= {model.canonical(state) for state in seen}
    assert len(kept) < len(seen)


def test_sets_and_pages_do_not_get_mixed_up():
    assert MEMBERS[EMPTY] == ()
    assert MEMBERS[EMPTY | 5] == (FIRST_PAGE, FIRST_PAGE + 2)
    model = bitmap.build(None, Bounds(pages=3))
    state = model.initial()
    assert model.canonical(state) == state
