"""ring-only: a queue instead of bitmaps; pop clears the page's queued bit, then arms the page, then it is read.

Steps: the migration thread passes over memory once and then pops. Reaped entries and device marks are pushed: with
`dedupe=queued` the producer sets the page's queued bit first (test-and-set) and pushes only if it was clear; with
`dedupe=round` it compares a stamp with the number of the harvest, so a new harvest forgets what is queued. Pushes are
under the queue's lock. A page that a vCPU wrote stays unarmed while it is queued.

`full=wait`: an entry that finds the queue full stays in the KVM ring, whose vCPU stops when that is full too; a device
cannot wait and marks a side bitmap that is sent while the guest is stopped. `full=send`: the producer sends the page
itself, in the order of the sender: clear, arm, read.

Wrong on purpose: `clear_after_read` (the queued bit outlives the read: a mark in between is taken for queued);
`wait_with_lock` (the reaper waits for room and keeps the big lock, which the sender needs to arm a page: deadlock);
`device_does_not_arm` (a device that sends a page itself leaves out the arming because its own write did not disarm the
page: while the device held the queued bit, the reaper may have dropped an entry of the same page).
"""

from __future__ import annotations

from typing import Any

from replay.safety.guest import Guest
from replay.safety.model import BIT, EMPTY, NOBODY, Bounds, Model
from replay.safety.queues import Queue, add_last_drain

LOGS = ("kvm-ring",)


def build(
    config: Any,
    bounds: Bounds,
    *,
    log: str = "kvm-ring",
    clear_after_read: bool = False,
    wait_with_lock: bool = False,
    device_does_not_arm: bool = False,
) -> Model:
    """The protocol of designs/ring_only.py."""
    model = Model(bounds)
    guest = Guest(model, bounds, log, kring=bounds.ring)
    queue = Queue(model, "queue", bounds.ring)
    side, queued = model.pages("side-bitmap"), model.pages("queued")
    sender = model.actor("sender", "next")
    register = model.page("sender-page")
    model.done_at = (sender, "done")
    dedupe, sends = config.dedupe != "none", config.full == "send"

    def mark(actor: int, page_at: int, place: str, done: str) -> None:
        reaps = actor not in guest.devices

        def claim(s: bytearray, page: int) -> str:
            if s[queued] & BIT[page]:
                s[page_at] = NOBODY
                return done
            s[queued] |= BIT[page]
            return "push"

        def push(s: bytearray, page: int) -> str | None:
            if queue.push(s, page):
                s[page_at] = NOBODY
                return done
            if reaps and wait_with_lock:
                return None
            return "unclaim"

        def unclaim(s: bytearray, page: int) -> str:
            s[queued] &= ~BIT[page]
            if sends:
                return "send" if device_does_not_arm and not reaps else "arm"
            s[page_at] = NOBODY
            if not reaps:
                s[side] |= BIT[page]
                return done
            s[guest.logged] |= BIT[page]
            s[guest.big_lock] = 0
            return "asleep"

        def arm(s: bytearray, page: int) -> str:
            s[guest.armed] |= BIT[page]
            return "send"

        if dedupe:
            model.step(actor, place, "set queued bit", claim, own=page_at, means="pushed only if it was clear")
        model.step(actor, "push" if dedupe else place, "push", push, own=page_at)
        text = "clear queued bit" if sends else "leave it in the KVM ring" if reaps else "set side bit"
        model.step(actor, "unclaim", text, unclaim, own=page_at, means="the queue is full")
        if sends:
            model.step(actor, "arm", "arm", arm, own=page_at)
            guest.add_read(actor, page_at, "send", done)

    guest.add_devices(mark)
    _add_reaper(guest, mark, queued if config.dedupe == "round" else -1, queue)
    _add_sender(guest, sender, register, queue, queued if dedupe else -1, side, clear_after_read)
    return model


def _add_reaper(guest: Guest, mark: Any, stamps: int, queue: Queue) -> None:
    model, logged = guest.model, guest.logged
    reaper = model.actor("reaper", "asleep")
    page_at = model.page("reaper-page")

    def wake(s: bytearray, page: int) -> str | None:
        if s[guest.big_lock] or s[guest.stopped] or s[logged] == EMPTY or queue.full(s):
            return None
        s[guest.big_lock] = 1
        if stamps >= 0:
            s[stamps] = EMPTY
        return "reap"

    def take(s: bytearray, page: int) -> str:
        s[logged] &= ~BIT[page]
        s[page_at] = page
        return "mark"

    def rest(s: bytearray, page: int) -> str | None:
        if s[logged] != EMPTY:
            return None
        s[guest.big_lock] = 0
        return "asleep"

    means = "a new harvest: older stamps do not count" if stamps >= 0 else ""
    model.step(reaper, "asleep", "take the big lock", wake, means=means)
    model.step(reaper, "reap", "take entry", take, among=logged)
    mark(reaper, page_at, "mark", "reap")
    model.step(reaper, "reap", "release the big lock", rest)


def _add_sender(
    guest: Guest, sender: int, register: int, queue: Queue, queued: int, side: int, clear_after_read: bool
) -> None:
    model = guest.model
    unvisited = model.pages("unvisited", model.everything)

    def visit(s: bytearray, page: int) -> str:
        s[unvisited] &= ~BIT[page]
        s[guest.old] &= ~BIT[page]
        return "next"

    def pop(s: bytearray, page: int) -> str | None:
        if s[unvisited] != EMPTY or queue.empty(s):
            return None
        s[register] = queue.pop(s)
        return "clear" if queued >= 0 and not clear_after_read else "arm"

    def clear(s: bytearray, page: int) -> str:
        s[queued] &= ~BIT[page]
        if clear_after_read:
            s[register] = NOBODY
        return "next" if clear_after_read else "arm"

    def arm(s: bytearray, page: int) -> str | None:
        if s[guest.big_lock]:
            return None
        s[guest.armed] |= BIT[page]
        return "read"

    def read(s: bytearray, page: int) -> str:
        s[guest.old] &= ~BIT[page]
        return "clear"

    model.step(sender, "next", "background: read", visit, among=unvisited, means="the target has it")
    model.step(sender, "next", "pop", pop, shows=register)
    if queued >= 0:
        model.step(sender, "clear", "clear queued bit", clear, own=register, means="a mark from now on is pushed again")
    model.step(sender, "arm", "arm", arm, own=register, means="a write from now on traps")
    if queued >= 0 and clear_after_read:
        model.step(sender, "read", "read", read, own=register, means="the target has the latest version")
    else:
        guest.add_read(sender, register, "read", "next")
    add_last_drain(guest, sender, queue, side, unvisited)
