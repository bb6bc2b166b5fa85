"""ring-background: a queue, and one pass over memory in the background; no bitmaps.

Steps: a turn of the sender goes to the background or to the queue. The background moves the cursor past a page, arms
it, reads it. From the queue (`source=reaper`): pop, arm, read. From KVM's rings (`source=kvm-ring`): take up to
`batch` entries, RESET, read each; `rearm=after` reads first. A producer drops the event on a page that the cursor has
not passed (`filter=cursor`), or pushes it; an entry that finds the queue full stays in the KVM ring, a device marks a
side bitmap. `filter=done-bit`: what the queue has sent the background leaves out.

Whose turn: k=0 the queue's unless it is empty, k=1 the background's until that is exhausted, and for ever with
`third_branch=off`. For any other k every choice is tried, which covers each k and `full=prioritise`; only the search
for starvation counts turns (a k above 3 as 3), and there a queue that is full comes first if it is `full=prioritise`.

With `publish_late` the cursor moves after the read: an event between read and move is dropped, and nobody reads
again.
"""

from __future__ import annotations

from typing import Any

from replay.safety.explorer import Step
from replay.safety.guest import Guest
from replay.safety.model import BIT, COUNT, EMPTY, NOBODY, Bounds, Model
from replay.safety.queues import Queue, add_last_drain

LOGS = ("kvm-ring",)
WAITS = "unvisited"
"""The set that must not wait for ever while the sender does something else."""
MAX_TURNS = 3


def serves_others(step: Step) -> bool:
    """Whether a step serves the queue."""
    return step.actor == "sender" and step.step in ("pop", "fetch entry")


def build(config: Any, bounds: Bounds, *, log: str = "kvm-ring", publish_late: bool = False) -> Model:
    """The protocol of designs/ring_background.py."""
    model = Model(bounds)
    guest = Guest(model, bounds, log, kring=bounds.ring)
    queue = Queue(model, "queue", bounds.ring)
    side, unvisited = model.pages("side-bitmap"), model.pages(WAITS, model.everything)
    sender = model.actor("sender", "next")
    register = model.page("sender-page")
    model.done_at = (sender, "done")
    turns = _Turns(guest, config, queue, unvisited)

    def mark(actor: int, page_at: int, place: str, done: str) -> None:
        reaps = actor not in guest.devices

        def look(s: bytearray, page: int) -> str:
            if s[unvisited] & BIT[page]:
                s[page_at] = NOBODY
                return done
            return "push"

        def push(s: bytearray, page: int) -> str:
            s[page_at] = NOBODY
            if queue.push(s, page):
                return done
            if not reaps:
                s[side] |= BIT[page]
                return done
            s[guest.logged] |= BIT[page]
            s[guest.big_lock] = 0
            return "asleep"

        filtered = config.filter == "cursor"
        if filtered:
            model.step(actor, place, "load cursor", look, own=page_at, means="dropped if it is still to come")
        means = "a full queue: it stays in the KVM ring" if reaps else "a full queue: into the side bitmap"
        model.step(actor, "push" if filtered else place, "push", push, own=page_at, means=means)

    guest.add_devices(mark)
    if config.source == "reaper":
        _add_reaper(guest, mark, queue)
    else:
        _add_fetch(guest, sender, config, turns, unvisited)
    _add_sender(guest, sender, register, queue, unvisited, config, turns, publish_late)
    add_last_drain(guest, sender, queue, side, unvisited)
    return model


class _Turns:
    """Whether background or queue may be served now."""

    def __init__(self, guest: Guest, config: Any, queue: Queue, unvisited: int):
        self.guest, self.queue, self.unvisited = guest, queue, unvisited
        self.k = config.background
        self.third, self.rings, self.first_if_full = (
            config.third_branch,
            config.source == "kvm-ring",
            config.full == "prioritise",
        )
        self.counted = guest.bounds.endless and self.k > 1
        self.count = guest.model.number("turn") if self.counted else -1

    def idle(self, s: bytearray) -> bool:
        """Whether nothing is queued that the sender could take."""
        return self.queue.empty(s) and not (self.rings and s[self.guest.logged] != EMPTY)

    def full(self, s: bytearray) -> bool:
        """Whether a full queue comes first."""
        return self.first_if_full and self.queue.full(s)

    def background(self, s: bytearray) -> bool:
        """Whether the background may have this turn."""
        if self.idle(s) or s[self.guest.stopped]:
            return not s[self.guest.stopped]
        if self.full(s) and (self.counted or self.k == 1):
            return False
        return self.k == 1 or (self.k > 1 and (not self.counted or s[self.count] == 0))

    def ring(self, s: bytearray) -> bool:
        """Whether the queue may have this turn."""
        if s[self.guest.stopped] or self.k == 0 or self.full(s):
            return True
        exhausted = s[self.unvisited] == EMPTY
        if exhausted and self.third:
            return True
        return self.k > 1 and (not self.counted or s[self.count] != 0)

    def next(self, s: bytearray) -> None:
        """One turn is over."""
        if self.counted:
            s[self.count] = (s[self.count] + 1) % min(self.k, MAX_TURNS)


def _add_reaper(guest: Guest, mark: Any, queue: Queue) -> None:
    model, logged = guest.model, guest.logged
    reaper = model.actor("reaper", "asleep")
    page_at = model.page("reaper-page")

    def wake(s: bytearray, page: int) -> str | None:
        if s[guest.big_lock] or s[guest.stopped] or queue.full(s):
            return None
        s[guest.big_lock] = 1
        return take(s, page)

    def take(s: bytearray, page: int) -> str:
        s[logged] &= ~BIT[page]
        s[page_at] = page
        return "mark"

    def rest(s: bytearray, page: int) -> str | None:
        if s[logged] != EMPTY:
            return None
        s[guest.big_lock] = 0
        return "asleep"

    model.step(reaper, "asleep", "take lock, entry", wake, among=logged, means="the big lock")
    model.step(reaper, "reap", "take entry", take, among=logged)
    mark(reaper, page_at, "mark", "reap")
    model.step(reaper, "reap", "release the big lock", rest)


def _add_fetch(guest: Guest, sender: int, config: Any, turns: _Turns, unvisited: int) -> None:
    """The sender takes entries out of KVM's rings itself."""
    model, logged, taken = guest.model, guest.logged, guest.taken
    ready = model.pages("fetched")
    late, batch = config.rearm == "after", config.batch

    def begin(s: bytearray, page: int) -> str | None:
        if not turns.ring(s) or not turns.queue.empty(s) or s[guest.stopped]:
            return None
        turns.next(s)
        return take(s, page)

    def take(s: bytearray, page: int) -> str | None:
        if COUNT[s[taken]] >= batch:
            return None
        s[logged] &= ~BIT[page]
        s[taken] |= BIT[page]
        if config.filter != "cursor" or not s[unvisited] & BIT[page]:
            s[ready] |= BIT[page]
        if config.filter == "done-bit":
            s[unvisited] &= ~BIT[page]
        return "fetch"

    def fetched(s: bytearray, page: int) -> str:
        if not late:
            s[guest.armed] |= s[taken]
            s[taken] = EMPTY
        return "read-fetched"

    def read(s: bytearray, page: int) -> str:
        s[ready] &= ~BIT[page]
        s[guest.old] &= ~BIT[page]
        return "read-fetched"

    def finish(s: bytearray, page: int) -> str | None:
        if s[ready] != EMPTY:
            return None
        s[guest.armed] |= s[taken]
        s[taken] = EMPTY
        return "next"

    model.step(sender, "next", "fetch entry", begin, among=logged, means="out of a KVM ring")
    model.step(sender, "fetch", "fetch entry", take, among=logged, means="out of a KVM ring")
    means = "" if late else "all that were fetched are armed again"
    model.step(sender, "fetch", "end of batch" if late else "RESET", fetched, means=means)
    model.step(sender, "read-fetched", "read", read, among=ready, means="the target has the latest version")
    means = "all that were fetched are armed again" if late else ""
    model.step(sender, "read-fetched", "RESET" if late else "batch is sent", finish, means=means)


def _add_sender(
    guest: Guest, sender: int, register: int, queue: Queue, unvisited: int, config: Any, turns: _Turns, late: bool
) -> None:
    model = guest.model

    def visit(s: bytearray, page: int) -> str | None:
        if not turns.background(s):
            return None
        turns.next(s)
        s[register] = page
        if late:
            return "read-ahead"
        s[unvisited] &= ~BIT[page]
        return "arm"

    def read_ahead(s: bytearray, page: int) -> str:
        s[guest.old] &= ~BIT[page]
        return "publish"

    def publish(s: bytearray, page: int) -> str:
        s[unvisited] &= ~BIT[page]
        s[register] = NOBODY
        return "next"

    def nothing(s: bytearray, page: int) -> str | None:
        if s[unvisited] != EMPTY or s[guest.stopped] or not turns.background(s) or turns.idle(s):
            return None
        turns.next(s)
        return "next"

    def pop(s: bytearray, page: int) -> str | None:
        if queue.empty(s) or not turns.ring(s):
            return None
        turns.next(s)
        s[register] = page = queue.pop(s)
        if config.filter == "done-bit":
            s[unvisited] &= ~BIT[page]
        return "arm"

    def arm(s: bytearray, page: int) -> str:
        s[guest.armed] |= BIT[page]
        return "read-ahead" if late and s[unvisited] & BIT[page] else "read"

    text, means = ("background: next page", "") if late else ("background: move cursor", "events on it are queued now")
    model.step(sender, "next", text, visit, among=unvisited, means=means)
    if late:
        model.step(sender, "read-ahead", "read", read_ahead, own=register, means="the target has the latest version")
        model.step(sender, "publish", "move cursor", publish, own=register, means="events on it are queued from now on")
    if not config.third_branch:
        model.step(sender, "next", "background: nothing left", nothing, means="the turn is wasted")
    model.step(sender, "next", "pop", pop, shows=register)
    model.step(sender, "arm", "arm", arm, own=register, means="a write from now on traps")
    guest.add_read(sender, register, "read", "next")
