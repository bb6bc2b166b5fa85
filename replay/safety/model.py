"""Write a concurrent protocol as actors that take small steps on shared memory, in states that are a few bytes.

What: a `Model` is a list of variables (one byte each) and a list of actors, each with a place in its program and the
steps that it can take there. A step is a function that changes a copy of the state and returns the actor's next place,
or None when it cannot be taken now (a lock is held, a queue is full): that is how an actor waits.

How: three kinds of bytes never overlap, so one table of 256 bytes renames the pages of a whole state: numbers are 0 to
63, pages 64 to 127 (`NOBODY` is no page), sets of pages 128 to 255 (`EMPTY` plus a bit a page). All pages are alike to
every protocol here, so of all renamings of a state the smallest is the one that is kept. Where the code goes through
memory in order, the model lets it take any page that it has not visited: every such run is one of the real ones with
the pages renamed.

What counts as one step: one access to memory that others write at the same time (a load, a store, an atomic
test-and-set or exchange), or a whole section under a lock that all accesses to the data inside take. Memory is
sequentially consistent.

Cost: O(actors x steps) a state. Bad for more than six pages: renamings grow as their factorial.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from replay.safety.explorer import LOSS, Step

FIRST_PAGE, NOBODY, EMPTY = 64, 127, 128
MAX_PAGES = 6
BIT = tuple(1 << (value - FIRST_PAGE) if FIRST_PAGE <= value < FIRST_PAGE + MAX_PAGES else 0 for value in range(256))
"""BIT[page]: the page's bit in a set."""
COUNT = tuple(bin(value & 127).count("1") for value in range(256))
"""COUNT[set]: how many pages are in it."""
MEMBERS = tuple(tuple(FIRST_PAGE + k for k in range(7) if value >> 7 and value >> k & 1) for value in range(256))
"""MEMBERS[set]: the pages in it."""

Act = Callable[[bytearray, int], str | None]


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How small a guest is: pages, entries of a queue, writes in all, vCPUs, and whether a device writes too.

    `strict`: the sender may switch over only when nothing is pending, and not whenever the rule of the design allows
    it for some threshold. `endless`: writes are not counted.
    """

    pages: int = 3
    ring: int = 2
    writes: int = 4
    vcpus: int = 1
    devices: int = 1
    strict: bool = False
    endless: bool = False


@dataclass(frozen=True, kw_only=True)
class _Rule:
    act: Act
    text: str
    means: str
    among: int  # index of the set whose members are tried, or -1
    own: int  # index of the register that holds the page, or -1
    shows: int  # index of the register that holds the page after the step, or -1


class Model:
    """A protocol: variables, actors, steps. A system for the explorer."""

    def __init__(self, bounds: Bounds):
        self.bounds = bounds
        self.everything = EMPTY | ((1 << bounds.pages) - 1)
        self._initial: list[int] = []
        self.names: list[str] = []
        self._actors: list[tuple[str, int]] = []
        self._rules: dict[int, dict[str, list[_Rule]]] = {}
        self._places: dict[str, int] = {}
        self._programs: list[tuple[int, list[list[_Rule]]]] = []
        self._renamings = [
            _renaming(order) for order in itertools.permutations(range(bounds.pages)) if list(order) != sorted(order)
        ]
        self.done_at: tuple[int, str] = (0, "")
        self.old = -1
        self.forget: Callable[[bytearray], None] | None = (
            None  # sets variables that nobody will read again to one value
        )

    # -- writing a protocol -------------------------------------------------------------------------------------------

    def number(self, name: str, value: int = 0) -> int:
        """A variable that holds 0 to 63."""
        return self._variable(name, value)

    def page(self, name: str, value: int = NOBODY) -> int:
        """A variable that holds a page, or NOBODY."""
        return self._variable(name, value)

    def pages(self, name: str, value: int = EMPTY) -> int:
        """A variable that holds a set of pages: one bit each."""
        return self._variable(name, value)

    def queue(self, name: str, entries: int) -> range:
        """`entries` slots, filled from the front, NOBODY where free."""
        first = len(self._initial)
        for slot in range(entries):
            self._variable(f"{name}[{slot}]", NOBODY)
        return range(first, first + entries)

    def actor(self, name: str, start: str) -> int:
        """Somebody with a program, who begins at place `start`."""
        actor = self._variable(name, self.place(start))
        self._actors.append((name, actor))
        self._rules[actor] = {}
        return actor

    def place(self, name: str) -> int:
        """The number of a place in a program."""
        return self._places.setdefault(name, len(self._places))

    def step(
        self,
        actor: int,
        place: str,
        text: str,
        act: Act,
        *,
        means: str = "",
        among: int = -1,
        own: int = -1,
        shows: int = -1,
    ) -> None:
        """At `place` the actor may do `act`: with each page of the set `among`, or with the page in register `own`.

        `shows`: the register that holds the step's page afterwards, where the step itself finds it.
        """
        rule = _Rule(act=act, text=text, means=means, among=among, own=own, shows=shows)
        self._rules[actor].setdefault(place, []).append(rule)

    def _variable(self, name: str, value: int) -> int:
        self.names.append(name)
        self._initial.append(value)
        return len(self._initial) - 1

    # -- what the explorer asks ---------------------------------------------------------------------------------------

    def initial(self) -> bytes:
        """The state in which everything begins."""
        for actor in self._rules:
            for place in self._rules[actor]:
                self.place(place)
        self.place(self.done_at[1])
        self._programs = [
            (actor, [self._rules[actor].get(place, []) for place in self._places]) for _, actor in self._actors
        ]
        self._done = self._places[self.done_at[1]]
        return bytes(self._initial)

    def successors(self, state: bytes) -> Sequence[bytes]:
        """Every state that one step leads to."""
        found = []
        places, forget = self._places, self.forget
        for actor, program in self._programs:
            for rule in program[state[actor]]:
                if rule.among >= 0:
                    choices: Sequence[int] = MEMBERS[state[rule.among]]
                else:
                    choices = (state[rule.own] if rule.own >= 0 else NOBODY,)
                act = rule.act
                for page in choices:
                    child = bytearray(state)
                    place = act(child, page)
                    if place is not None:
                        child[actor] = places[place]
                        if forget is not None:
                            forget(child)
                        found.append(bytes(child))
        return found

    def moves(self, state: bytes) -> Sequence[tuple[Step, bytes]]:
        """The same with the steps."""
        found = []
        for name, actor in self._actors:
            program = dict(self._programs)[actor]
            for rule in program[state[actor]]:
                choices = (
                    MEMBERS[state[rule.among]] if rule.among >= 0 else (state[rule.own] if rule.own >= 0 else NOBODY,)
                )
                for page in choices:
                    child = bytearray(state)
                    place = rule.act(child, page)
                    if place is not None:
                        child[actor] = self._places[place]
                        about = child[rule.shows] if rule.shows >= 0 else page
                        shown = about - FIRST_PAGE if about != NOBODY else None
                        if self.forget is not None:
                            self.forget(child)
                        found.append((Step(actor=name, step=rule.text, page=shown, means=rule.means), bytes(child)))
        return found

    def canonical(self, state: bytes) -> bytes:
        """The smallest of all renamings of its pages."""
        best = state
        for table in self._renamings:
            other = state.translate(table)
            if other < best:
                best = other
        return best

    def final(self, state: bytes) -> bool:
        """Whether the migration has declared completion."""
        return state[self.done_at[0]] == self._done

    def lost(self, state: bytes) -> bool:
        """Whether it has, with an old page at the target."""
        return state[self.done_at[0]] == self._done and state[self.old] != EMPTY

    def what(self, state: bytes) -> str:
        """The property that a lost state violates."""
        return LOSS

    def show(self, state: bytes) -> dict[str, int]:
        """A state with the names of its variables, for tests."""
        return dict(zip(self.names, state, strict=True))


def _renaming(order: Sequence[int]) -> bytes:
    table = list(range(256))
    for old, new in enumerate(order):
        table[FIRST_PAGE + old] = FIRST_PAGE + new
    for mask in range(128):
        kept = mask >> len(order) << len(order)
        table[EMPTY + mask] = EMPTY | kept | sum(1 << new for old, new in enumerate(order) if mask >> old & 1)
    return bytes(table)
