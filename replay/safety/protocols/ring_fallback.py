"""ring-fallback: one bitmap and one ring; a ring that overflowed sends the consumer to the bitmap.

Steps of a producer: test-and-set the page's bit; if it was clear, take the ring's lock and look at the overflow flag;
if that is clear push, or set the flag when there is no room (`leave=chunks`: the flag of the page's chunk, and
pushing goes on). Between bit and push it may be preempted for long: the consumer then finds the page by a scan, and
the late entry is stale, which the consumer's test-and-clear shows. `push_first` turns the two around: the entry is
popped and dropped as stale before the bit is set, and the bit is left without an entry.

Leaving the fallback: `sticky` never; `scan` by one section under the ring's lock that empties the ring, refills it
with every set bit and clears the flag, if they fit; `chunks` clears a chunk's flag and then looks at the chunk's
bits. With `flag_last` the two happen the other way round, and without the lock: a bit set in between is never looked
at.

Marks reach the sender at once, even while the reaper that made them is still taking entries and has not reset them.
So the consumer arms a page itself between clearing its bit and reading it. With `trust_reset` it does not: the page
is read while it is not armed yet, a write goes unnoticed, and only then the RESET arms the page.
"""

from __future__ import annotations

from typing import Any

from replay.safety.guest import Guest
from replay.safety.model import BIT, COUNT, EMPTY, MEMBERS, NOBODY, Bounds, Model
from replay.safety.queues import Queue

LOGS = ("kvm-ring",)


def build(
    config: Any,
    bounds: Bounds,
    *,
    log: str = "kvm-ring",
    push_first: bool = False,
    flag_last: bool = False,
    trust_reset: bool = False,
) -> Model:
    """The protocol of designs/ring_fallback.py; a chunk is one page, or all of them if it is larger than the guest."""
    model = Model(bounds)
    guest = Guest(model, bounds, log)
    ring = Queue(model, "ring", bounds.ring)
    bitmap, flags = model.pages("bitmap", model.everything), model.pages("overflow")
    whole = config.leave != "chunks" or config.chunk >= bounds.pages
    sender = model.actor("sender", "next")
    register = model.page("sender-page")
    model.done_at = (sender, "done")

    def mark(actor: int, page_at: int, place: str, done: str) -> None:
        def set_bit(s: bytearray, page: int) -> str:
            known = s[bitmap] & BIT[page]
            s[bitmap] |= BIT[page]
            if known or push_first:
                s[page_at] = NOBODY
                return done
            return "push"

        def push(s: bytearray, page: int) -> str:
            if (config.leave == "chunks" or s[flags] == EMPTY) and not ring.push(s, page):
                s[flags] |= model.everything if whole else BIT[page]
            if push_first:
                return "set-bit"
            s[page_at] = NOBODY
            return done

        model.step(
            actor,
            "set-bit" if push_first else place,
            "set bit",
            set_bit,
            own=page_at,
            means="test-and-set: pushed if it was clear",
        )
        means = "under the ring's lock: not after an overflow; a full ring sets the flag"
        model.step(actor, place if push_first else "push", "push", push, own=page_at, means=means)

    guest.add_devices(mark)
    guest.add_reaper(mark)
    _add_sender(guest, sender, register, ring, bitmap, flags, config.leave, flag_last, trust_reset)
    _add_end(guest, sender, register, ring, bitmap, flags, mark, whole)
    return model


def _add_sender(
    guest: Guest,
    sender: int,
    register: int,
    ring: Queue,
    bitmap: int,
    flags: int,
    leave: str,
    flag_last: bool,
    trust_reset: bool,
) -> None:
    model = guest.model
    first_pass = model.number("first-pass", 1)
    scan = model.pages("to-scan")
    found = "read" if trust_reset else "arm"

    def claim(s: bytearray, page: int) -> str:
        if not s[bitmap] & BIT[page]:
            s[register] = NOBODY
            return "next"
        s[bitmap] &= ~BIT[page]
        return found

    def pop(s: bytearray, page: int) -> str | None:
        if s[first_pass] or ring.empty(s) or (leave != "chunks" and s[flags] != EMPTY):
            return None
        s[register] = ring.pop(s)
        return "claim"

    def find(s: bytearray, page: int) -> str | None:
        """Searching and clearing are two steps, but only the sender clears bits."""
        if not s[first_pass] and (leave == "chunks" or s[flags] == EMPTY):
            return None
        if not guest.in_order(s, bitmap, page):
            return None
        s[bitmap] &= ~BIT[page]
        s[register] = page
        return found

    def first_pass_over(s: bytearray, page: int) -> str | None:
        """Entries made meanwhile are kept: their pages may have been dirtied behind the scan."""
        if not s[first_pass] or s[bitmap] != EMPTY:
            return None
        s[first_pass] = 0
        return "next"

    def refill(s: bytearray, page: int) -> str | None:
        if s[flags] == EMPTY or s[first_pass] or COUNT[s[bitmap]] > len(ring.slots):
            return None
        ring.reset(s)
        for member in MEMBERS[s[bitmap]]:
            ring.push(s, member)
        if flag_last:
            return "leave"
        s[flags] = EMPTY
        return "next"

    def leave_late(s: bytearray, page: int) -> str:
        s[flags] = EMPTY
        return "next"

    def open_chunk(s: bytearray, page: int) -> str | None:
        if s[first_pass] or not guest.in_order(s, flags, page):
            return None
        chunk = s[flags] if s[flags] == model.everything else BIT[page] | EMPTY
        s[scan] = chunk
        if not flag_last:
            s[flags] = s[flags] & ~chunk | EMPTY
        return "scan"

    def scan_chunk(s: bytearray, page: int) -> str:
        s[scan] &= ~BIT[page]
        if not s[bitmap] & BIT[page]:
            return "scan"
        s[bitmap] &= ~BIT[page]
        s[register] = page
        return found + "-scanned"

    def arm(s: bytearray, page: int) -> str:
        s[guest.armed] |= BIT[page]
        return "read"

    def arm_scanned(s: bytearray, page: int) -> str:
        s[guest.armed] |= BIT[page]
        return "read-scanned"

    def close_chunk(s: bytearray, page: int) -> str | None:
        if s[scan] != EMPTY:
            return None
        if flag_last:
            s[flags] = EMPTY
        return "next"

    model.step(sender, "next", "find bit", find, among=bitmap, means="by a scan; the bit is cleared")
    model.step(sender, "next", "scan finds nothing", first_pass_over, means="the first pass over memory is over")
    model.step(sender, "next", "pop", pop, shows=register)
    model.step(sender, "claim", "clear bit", claim, own=register, means="test-and-clear: read if it was set")
    model.step(sender, "arm", "arm", arm, own=register, means="a write from now on traps")
    guest.add_read(sender, register, "read", "next")
    if leave == "scan":
        model.step(sender, "next", "refill the ring", refill, means="a locked scan: every set bit has an entry")
        if flag_last:
            model.step(sender, "leave", "clear overflow flag", leave_late)
    if leave == "chunks":
        model.step(
            sender, "next", "open chunk", open_chunk, among=flags, means="its flag is cleared, then it is scanned"
        )
        model.step(sender, "scan", "look at bit", scan_chunk, among=scan, means="test-and-clear: read if it was set")
        model.step(sender, "scan", "chunk is done", close_chunk)
        model.step(sender, "arm-scanned", "arm", arm_scanned, own=register, means="a write from now on traps")
        guest.add_read(sender, register, "read-scanned", "scan")


def _add_end(
    guest: Guest, sender: int, register: int, ring: Queue, bitmap: int, flags: int, mark: Any, whole: bool
) -> None:
    """The stop, the final harvest by the sender itself, and the end: the ring is empty, and nothing overflowed."""
    model = guest.model
    first_pass = model.names.index("first-pass")

    def allowed(s: bytearray) -> bool:
        return not guest.bounds.strict or s[bitmap] == EMPTY

    def finish(s: bytearray, page: int) -> str | None:
        if not s[guest.stopped] or s[first_pass]:
            return None
        if s[flags] != EMPTY:
            return "done" if whole and s[bitmap] == EMPTY else None
        return "done" if ring.empty(s) else None

    guest.add_stop(sender, "next", "reap", allowed)
    guest.add_reap(sender, register, mark, "next")
    model.step(sender, "next", "complete", finish, means="the target takes over")
