"""A bounded queue of pages in a state: slots filled from the front, shifted at a pop.

The real queue's indices run free; what others can tell of them is the entries between them and their number, so states
that differ only in how often the indices went around are one. A push and a pop are each one step: all pushers hold the
queue's lock, and a consumer sees an entry only once its index was published.
"""

from __future__ import annotations

from replay.safety.guest import Guest
from replay.safety.model import BIT, EMPTY, NOBODY, Model


class Queue:
    """`entries` slots of a model's state."""

    def __init__(self, model: Model, name: str, entries: int):
        self.slots = model.queue(name, entries)

    def push(self, s: bytearray, page: int) -> bool:
        """Append `page`; False when there is no room."""
        for slot in self.slots:
            if s[slot] == NOBODY:
                s[slot] = page
                return True
        return False

    def pop(self, s: bytearray) -> int:
        """The oldest entry, NOBODY when there is none."""
        first, last = self.slots[0], self.slots[-1]
        page = s[first]
        s[first:last] = s[first + 1 : last + 1]
        s[last] = NOBODY
        return page

    def room(self, s: bytearray | bytes) -> int:
        """Free slots."""
        return sum(s[slot] == NOBODY for slot in self.slots)

    def empty(self, s: bytearray | bytes) -> bool:
        """Whether it has no entry."""
        return s[self.slots[0]] == NOBODY

    def full(self, s: bytearray | bytes) -> bool:
        """Whether it has no room."""
        return s[self.slots[-1]] != NOBODY

    def members(self, s: bytearray | bytes) -> list[int]:
        """Its entries, the oldest first."""
        return [s[slot] for slot in self.slots if s[slot] != NOBODY]

    def reset(self, s: bytearray) -> None:
        """Forget all entries."""
        for slot in self.slots:
            s[slot] = NOBODY


def add_last_drain(guest: Guest, sender: int, queue: Queue, side: int, unvisited: int) -> None:
    """Steps of a sender with one queue: stop the guest once memory was passed, then send what is left anywhere."""
    model = guest.model
    rest = model.pages("rest")

    def allowed(s: bytearray) -> bool:
        if guest.bounds.strict and not (queue.empty(s) and s[guest.logged] == EMPTY):
            return False
        return s[unvisited] == EMPTY

    def collect(s: bytearray, page: int) -> str | None:
        if not s[guest.stopped] or not queue.empty(s):
            return None
        s[rest] = s[guest.logged] | s[side]
        s[guest.logged] = s[side] = EMPTY
        return "drain"

    def drain(s: bytearray, page: int) -> str | None:
        if not guest.in_order(s, rest, page):
            return None
        s[rest] &= ~BIT[page]
        s[guest.old] &= ~BIT[page]
        return "drain"

    def finish(s: bytearray, page: int) -> str | None:
        return "done" if s[rest] == EMPTY else None

    guest.add_stop(sender, "next", "next", allowed)
    model.step(sender, "next", "collect the rest", collect, means="what is left in KVM rings and side bitmap")
    model.step(sender, "drain", "read", drain, among=rest, means="the target has the latest version")
    model.step(sender, "drain", "complete", finish, means="the target takes over")
