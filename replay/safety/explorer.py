"""Visit every reachable state of a small system, breadth first, and find the shortest way to a bad one.

What: a *system* gives the states that can follow a state; the explorer visits all of them once. Because it goes
breadth first, the first bad state that it meets has a shortest schedule. How: states are bytes in a dictionary that
holds each state's predecessor; of states that differ only by the names of pages one is kept (`canonical`). The
schedule is found by walking the predecessors and then doing the steps again from the start, so page names stay the
same along it.

Bad are: *loss*, a final state in which the target has an old page; *deadlock*, a state that is not final and that
nobody can leave; *livelock*, a state from which no final state can be reached although there are steps; *starvation*,
a cycle in which somebody's work waits while others are served again and again. The first two come out of the visit
itself; the others need the whole graph, so `find_livelock` and `find_starvation` keep its edges and are asked for
smaller bounds.

Cost: O(states x steps), about 5 to 10 us a step in plain Python and 200 bytes a state; the graph adds 8 bytes a step.
Running out of states or of depth is reported as such (`complete` is false), never as safe.

Models: nothing; explicit-state model checking as in Holzmann's SPIN, with symmetry after Ip and Dill.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

LOSS, DEADLOCK, LIVELOCK, STARVATION = "loss", "deadlock", "livelock", "starvation"
_REPORT_EVERY = 4096
Progress = Callable[[int, int], None]
"""Called now and then with (states visited, states waiting); raise from it to cancel."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a schedule: who did what to which page, and what that means for the migration."""

    actor: str
    step: str
    page: int | None
    means: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {"actor": self.actor, "step": self.step, "page": self.page, "means": self.means}


class System(Protocol):
    """What the explorer needs to know of a system."""

    def initial(self) -> bytes:
        """The state in which everything begins."""
        ...

    def successors(self, state: bytes) -> Sequence[bytes]:
        """Every state that one step leads to."""
        ...

    def moves(self, state: bytes) -> Sequence[tuple[Step, bytes]]:
        """The same with the steps, in the same order."""
        ...

    def canonical(self, state: bytes) -> bytes:
        """The representative of all states that differ from `state` only by names."""
        ...

    def final(self, state: bytes) -> bool:
        """Whether everything is over."""
        ...

    def lost(self, state: bytes) -> bool:
        """Whether `state` is final and the target has an old page."""
        ...

    def what(self, state: bytes) -> str:
        """The property that a lost state violates."""
        ...


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """What an exploration came to. `property` names what was violated, None if nothing was found."""

    states: int
    complete: bool
    property: str | None = None
    schedule: tuple[Step, ...] = ()
    cycle_from: int | None = None  # for starvation: the index in the schedule at which the cycle begins


def explore(
    system: System, *, max_states: int, max_depth: int | None = None, progress: Progress | None = None
) -> Exploration:
    """Look for a loss or a deadlock, in schedules of at most `max_depth` steps; `complete` says if that was all."""
    start = system.canonical(system.initial())
    seen: dict[bytes, bytes | None] = {start: None}
    successors, canonical, final, lost = system.successors, system.canonical, system.final, system.lost
    frontier, depth = [start], 0
    while frontier:
        if max_depth is not None and depth >= max_depth:
            return Exploration(states=len(seen), complete=False)
        depth += 1
        fresh: list[bytes] = []
        for state in frontier:
            children = successors(state)
            if not children and not final(state):
                return _found(system, seen, state, DEADLOCK)
            for child in children:
                if child in seen:
                    continue
                key = canonical(child)
                if key in seen:
                    continue
                seen[key] = state
                if lost(key):
                    return _found(system, seen, key, system.what(key))
                fresh.append(key)
                if len(seen) % _REPORT_EVERY == 0 and progress is not None:
                    progress(len(seen), len(fresh))
            if len(seen) > max_states:
                return Exploration(states=len(seen), complete=False)
        frontier = fresh
    return Exploration(states=len(seen), complete=True)


def _found(system: System, seen: dict[bytes, bytes | None], state: bytes, what: str) -> Exploration:
    chain: list[bytes] = []
    at: bytes | None = state
    while at is not None:
        chain.append(at)
        at = seen[at]
    schedule, _ = _retrace(system, system.initial(), chain[::-1][1:])
    return Exploration(states=len(seen), complete=True, property=what, schedule=schedule)


def _retrace(system: System, raw: bytes, chain: Sequence[bytes]) -> tuple[tuple[Step, ...], bytes]:
    """Do the steps that lead through the classes of states in `chain`, with the names that they have from `raw` on."""
    steps = []
    for wanted in chain:
        step, raw = next((step, child) for step, child in system.moves(raw) if system.canonical(child) == wanted)
        steps.append(step)
    return tuple(steps), raw


# -- questions about the whole graph ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Graph:
    states: list[bytes]
    index: dict[bytes, int]
    parent: array[int]
    source: np.ndarray  # int64 (n_steps,)
    target: np.ndarray  # int64 (n_steps,)
    complete: bool


def _graph(system: System, max_states: int, progress: Progress | None) -> _Graph:
    start = system.canonical(system.initial())
    index = {start: 0}
    states, parent = [start], array("q", [-1])
    source, target = array("q"), array("q")
    at = 0
    while at < len(states) and len(states) <= max_states:
        for child in system.successors(states[at]):
            key = system.canonical(child)
            number = index.get(key)
            if number is None:
                number = index[key] = len(states)
                states.append(key)
                parent.append(at)
            source.append(at)
            target.append(number)
        at += 1
        if at % _REPORT_EVERY == 0 and progress is not None:
            progress(len(states), len(states) - at)
    return _Graph(
        states=states,
        index=index,
        parent=parent,
        source=np.array(source, dtype=np.int64),
        target=np.array(target, dtype=np.int64),
        complete=at == len(states),
    )


def _path(system: System, graph: _Graph, number: int) -> tuple[tuple[Step, ...], bytes]:
    chain = []
    while number >= 0:
        chain.append(graph.states[number])
        number = graph.parent[number]
    return _retrace(system, system.initial(), chain[::-1][1:])


def find_livelock(system: System, *, max_states: int, progress: Progress | None = None) -> Exploration:
    """Look for the nearest state from which no final state can be reached, whatever anybody does."""
    graph = _graph(system, max_states, progress)
    n_states = len(graph.states)
    if not graph.complete:
        return Exploration(states=n_states, complete=False)
    ends = np.fromiter((system.final(state) for state in graph.states), dtype=bool, count=n_states)
    while True:
        reaching = graph.source[ends[graph.target]]
        if ends[reaching].all():
            break
        ends[reaching] = True
    if ends.all():
        return Exploration(states=n_states, complete=True)
    number = int(np.flatnonzero(~ends)[0])  # states are numbered in breadth-first order
    stuck = not system.successors(graph.states[number])
    schedule, _ = _path(system, graph, number)
    return Exploration(
        states=n_states, complete=True, property=DEADLOCK if stuck else LIVELOCK, schedule=schedule, cycle_from=None
    )


def find_starvation(
    system: System,
    *,
    waits: Callable[[bytes], bool],
    serves_others: Callable[[Step], bool],
    max_states: int,
    progress: Progress | None = None,
) -> Exploration:
    """Look for a cycle all of whose states `waits` holds for, with at least one step that `serves_others`.

    What waits must wait for the same thing all along: a state in which it has been served must differ.
    """
    graph = _graph(system, max_states, progress)
    n_states = len(graph.states)
    if not graph.complete:
        return Exploration(states=n_states, complete=False)
    alive = np.fromiter((waits(state) for state in graph.states), dtype=bool, count=n_states)
    component = _components(graph, alive)
    for number in np.flatnonzero(component >= 0):
        for step, child in system.moves(graph.states[number]):
            there = graph.index[system.canonical(child)]
            if serves_others(step) and component[there] == component[number]:
                schedule, raw = _path(system, graph, int(number))
                cycle = _cycle(system, raw, waits, serves_others, max_states)
                if cycle:
                    return Exploration(
                        states=n_states,
                        complete=True,
                        property=STARVATION,
                        schedule=schedule + cycle,
                        cycle_from=len(schedule),
                    )
    return Exploration(states=n_states, complete=True)


def _components(graph: _Graph, alive: np.ndarray) -> np.ndarray:
    """Which states can reach one another within `alive` (Tarjan's algorithm without recursion): component numbers.

    A state that is not alive has -1.
    """
    inside = alive[graph.source] & alive[graph.target]
    source, target = graph.source[inside], graph.target[inside].tolist()
    first = np.searchsorted(source, np.arange(alive.size + 1)).tolist()  # steps are in the order of their states
    order, low, component = [-1] * alive.size, [0] * alive.size, [-1] * alive.size
    stack: list[int] = []
    visited = found = 0
    for root in np.flatnonzero(alive).tolist():
        if order[root] >= 0:
            continue
        order[root] = low[root] = visited
        visited += 1
        stack.append(root)
        path = [(root, first[root])]
        while path:
            state, at = path[-1]
            if at < first[state + 1]:
                path[-1] = (state, at + 1)
                after = target[at]
                if order[after] < 0:
                    order[after] = low[after] = visited
                    visited += 1
                    stack.append(after)
                    path.append((after, first[after]))
                elif component[after] < 0:
                    low[state] = min(low[state], order[after])
                continue
            path.pop()
            if path:
                low[path[-1][0]] = min(low[path[-1][0]], low[state])
            if low[state] == order[state]:
                while component[state] < 0:
                    component[stack.pop()] = found
                found += 1
    return np.array(component)


def _cycle(
    system: System, start: bytes, waits: Callable[[bytes], bool], serves: Callable[[Step], bool], max_states: int
) -> tuple[Step, ...]:
    """A shortest cycle from `start` through a serving step, within the states that wait; () if there is none."""
    first = (start, False)
    seen: dict[tuple[bytes, bool], tuple[tuple[bytes, bool], Step] | None] = {first: None}
    queue = deque([first])
    while queue and len(seen) <= max_states:
        here = queue.popleft()
        for step, child in system.moves(here[0]):
            if not waits(child):
                continue
            there = (child, here[1] or serves(step))
            if child == start and there[1]:
                steps = [step]
                link = seen[here]
                while link is not None:
                    steps.append(link[1])
                    link = seen[link[0]]
                return tuple(reversed(steps))
            if there not in seen:
                seen[there] = (here, step)
                queue.append(there)
    return ()
