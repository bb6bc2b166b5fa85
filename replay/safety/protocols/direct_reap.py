"""direct-reap: whoever reaps a KVM ring sends its pages; the migration thread makes one linear pass over memory.

Steps, `order=safe`: under the big lock take up to `batch` entries, RESET (which arms them), then read and send each.
`order=literal` reads each entry as it is taken and resets afterwards: a write in between is not noticed, and not sent.
`sender=batches` hands the pages to the migration thread instead: after the RESET if safe, before it if literal. Devices
mark a side bitmap that is sent while the guest is stopped. A full KVM ring stops its vCPU until it is reaped.

The stream belongs to whoever holds the channel lock: reading a page and putting it on the wire is one section under it.
With `read_outside_lock` the linear pass reads first and waits for the stream with the copy in hand: a newer copy can
then be sent before it, and be overwritten at the target.

The guest may be stopped once the linear pass is over.
"""

from __future__ import annotations

from typing import Any

from replay.safety.guest import Guest
from replay.safety.model import BIT, COUNT, EMPTY, NOBODY, Bounds, Model

LOGS = ("kvm-ring",)


def build(config: Any, bounds: Bounds, *, log: str = "kvm-ring", read_outside_lock: bool = False) -> Model:
    """The protocol of designs/direct_reap.py."""
    model = Model(bounds)
    guest = Guest(model, bounds, log, kring=bounds.ring)
    literal, by_vcpu = config.order == "literal", config.sender == "vcpu"
    batch = min(config.batch, bounds.pages) if config.batch else bounds.pages
    side, unvisited = model.pages("side-bitmap"), model.pages("unvisited", model.everything)
    ready = model.pages("handed-over")  # or, where the reaper sends: armed and not read yet
    sender = model.actor("sender", "next")
    register = model.page("sender-page")
    model.done_at = (sender, "done")

    def mark_side(actor: int, page_at: int, place: str, done: str) -> None:
        def mark(s: bytearray, page: int) -> str:
            s[side] |= BIT[page]
            s[page_at] = NOBODY
            return done

        model.step(actor, place, "set side bit", mark, own=page_at)

    guest.add_devices(mark_side)
    _add_reaper(guest, ready, literal=literal, by_vcpu=by_vcpu, batch=batch)

    def pass_on(s: bytearray, page: int) -> str | None:
        if s[guest.stopped]:
            return None
        s[unvisited] &= ~BIT[page]
        s[guest.old] &= ~BIT[page]
        return "next"

    def copy(s: bytearray, page: int) -> str | None:
        s[unvisited] &= ~BIT[page]
        s[fresh] |= BIT[page]
        s[register] = page
        return "put"

    def put(s: bytearray, page: int) -> str:
        if s[fresh] & BIT[page]:
            s[guest.old] &= ~BIT[page]
        else:
            s[guest.old] |= BIT[page]
        s[fresh] &= ~BIT[page]
        s[register] = NOBODY
        return "next"

    def pop(s: bytearray, page: int) -> str | None:
        if not guest.in_order(s, ready, page):
            return None
        s[ready] &= ~BIT[page]
        s[register] = page
        return "read"

    def passed(s: bytearray) -> bool:
        if bounds.strict and not s[guest.logged] == s[ready] == EMPTY:
            return False
        return s[unvisited] == EMPTY

    def collect(s: bytearray, page: int) -> str:
        s[ready] |= s[guest.logged] | s[side]
        s[guest.logged] = s[side] = EMPTY
        return "drain"

    def finish(s: bytearray, page: int) -> str | None:
        return "done" if s[ready] == EMPTY else None

    if read_outside_lock:
        fresh = model.pages("fresh")
        guest.copies.append(fresh)
        model.step(sender, "next", "linear pass: read", copy, among=unvisited, means="not on the wire yet")
        model.step(sender, "put", "linear pass: send", put, own=register, means="the target has the copy read before")
    else:
        model.step(sender, "next", "linear pass: read", pass_on, among=unvisited, means="the target has it")
    if not by_vcpu:
        model.step(sender, "next", "pop", pop, among=ready)
        guest.add_read(sender, register, "read", "next")
    guest.add_stop(sender, "next", "collect", passed)
    model.step(sender, "collect", "reap, collect", collect, means="all that is left, the side bitmap too")
    model.step(sender, "drain", "read", _read_all(guest, ready), among=ready, means="the target has the latest version")
    model.step(sender, "drain", "complete", finish, means="the target takes over")
    return model


def _read_all(guest: Guest, ready: int) -> Any:
    def read(s: bytearray, page: int) -> str | None:
        if not guest.in_order(s, ready, page):
            return None
        s[ready] &= ~BIT[page]
        s[guest.old] &= ~BIT[page]
        return "drain"

    return read


def _add_reaper(guest: Guest, ready: int, *, literal: bool, by_vcpu: bool, batch: int) -> None:
    """The thread that reaps, be it the vCPU whose ring is full or the reaper: both hold the big lock all along."""
    model, logged, taken, armed = guest.model, guest.logged, guest.taken, guest.armed
    reaper = model.actor("reaper", "asleep")

    def wake(s: bytearray, page: int) -> str | None:
        if s[guest.big_lock] or s[guest.stopped] or s[logged] == EMPTY:
            return None
        s[guest.big_lock] = 1
        return "reap"

    def take(s: bytearray, page: int) -> str | None:
        if COUNT[s[taken]] >= batch:
            return None
        s[logged] &= ~BIT[page]
        s[taken] |= BIT[page]
        if literal and by_vcpu:
            s[guest.old] &= ~BIT[page]
        elif literal:
            s[ready] |= BIT[page]
        return "reap"

    def reset(s: bytearray, page: int) -> str | None:
        if s[logged] != EMPTY and COUNT[s[taken]] < batch:
            return None
        s[armed] |= s[taken]
        if not literal:
            s[ready] |= s[taken]
        s[taken] = EMPTY
        if by_vcpu and not literal:
            return "send"
        s[guest.big_lock] = 0
        return "asleep"

    def send(s: bytearray, page: int) -> str | None:
        s[ready] &= ~BIT[page]
        s[guest.old] &= ~BIT[page]
        if s[ready] != EMPTY:
            return "send"
        s[guest.big_lock] = 0
        return "asleep"

    text = "take entry"
    if literal:
        text = "take entry, read it" if by_vcpu else "take entry, hand over"
    model.step(reaper, "asleep", "take the big lock", wake)
    model.step(reaper, "reap", text, take, among=logged)
    model.step(reaper, "reap", "RESET", reset, means="all entries taken are armed again")
    if by_vcpu and not literal:
        model.step(reaper, "send", "read", send, among=ready, means="the target has the latest version")
