"""Steps that the bitmap designs share: L1, the sync that carries marks down, the sender's walk over L3.

Accesses to L1 are under the big lock, accesses to L3 are the migration thread's own; L2 is written by devices without
any lock, so each access to it is a step. A bitmap of the model is one word: an exchange takes all of it at once, as the
real one does for 64 pages.
"""

from __future__ import annotations

from replay.safety.guest import Guest, Mark
from replay.safety.model import BIT, EMPTY, NOBODY


def slot_marker(guest: Guest, l1: int) -> Mark:
    """How a reaped entry is marked: its bit in L1."""

    def mark_slot(actor: int, page_at: int, place: str, done: str) -> None:
        def mark(s: bytearray, page: int) -> str:
            s[l1] |= BIT[page]
            return done

        guest.model.step(actor, place, "set L1 bit", mark, own=page_at)

    return mark_slot


def add_sync(guest: Guest, sender: int, register: int, l1: int, l2: int, mark_slot: Mark, *, folded: int = -1) -> None:
    """From place `next` (at first: `sync`) to place `merge`: harvest and fold; and the stop with its final sync.

    `folded`: a number that becomes 1 when the fold carried anything.
    """
    model = guest.model
    ring = guest.log == "kvm-ring"

    def begin(s: bytearray, page: int) -> str | None:
        if s[guest.big_lock]:
            return None
        s[guest.big_lock] = 1
        return "reap" if ring else "copy"

    def begin_round(s: bytearray, page: int) -> str | None:
        return None if s[guest.stopped] else begin(s, page)

    def copy(s: bytearray, page: int) -> str:
        s[l1] = s[guest.logged]
        return "fold"

    def fold(s: bytearray, page: int) -> str:
        s[l2] |= s[l1]
        if folded >= 0:
            s[folded] = int(s[l1] != EMPTY)
        if ring:
            s[l1] = EMPTY
        return "merge"

    model.step(sender, "sync", "begin a sync", begin, means="takes the big lock")
    model.step(sender, "next", "begin a sync", begin_round, means="takes the big lock")
    guest.add_stop(sender, "next", "sync")
    if ring:
        guest.add_reaper(mark_slot)
        guest.add_reap(sender, register, mark_slot, "fold")
    else:
        model.step(sender, "copy", "copy the log", copy, means="L1 is the kernel's bitmap, which keeps its bits")
    model.step(sender, "fold", "L1 into L2", fold)


def add_merge(guest: Guest, sender: int, l2: int, l3: int) -> None:
    """From place `merge` to `next`: exchange L2 with zero, OR it into L3, release the big lock."""

    def merge(s: bytearray, page: int) -> str:
        s[l3] |= s[l2]
        s[l2] = EMPTY
        s[guest.big_lock] = 0
        return "next"

    guest.model.step(sender, "merge", "L2 into L3", merge, means="marked pages become pending; L2 is empty")


def add_scan(guest: Guest, sender: int, register: int, l1: int, l3: int, read_first: bool = False) -> None:
    """From place `next`: pop, clear in the kernel, read; and the end."""
    model = guest.model
    kernel = guest.log == "kvm-bitmap"

    def pop(s: bytearray, page: int) -> str | None:
        if not guest.in_order(s, l3, page):
            return None
        s[l3] &= ~BIT[page]
        s[register] = page
        return "clear" if kernel and not read_first else "read"

    def clear(s: bytearray, page: int) -> str:
        bits = s[l1] & ~EMPTY
        s[guest.armed] |= bits & s[guest.logged]
        s[guest.logged] &= ~bits
        s[l1] = EMPTY
        if read_first:
            s[register] = NOBODY
        return "next" if read_first else "read"

    def read_then_clear(s: bytearray, page: int) -> str:
        s[guest.old] &= ~BIT[page]
        return "clear"

    def finish(s: bytearray, page: int) -> str | None:
        return "done" if s[guest.stopped] and s[l3] == EMPTY else None

    model.step(sender, "next", "pop", pop, among=l3, means="no longer pending")
    if kernel:
        model.step(sender, "clear", "clear in the kernel", clear, own=register, means="writes are noticed again")
    if kernel and read_first:
        model.step(sender, "read", "read", read_then_clear, own=register, means="the target has the latest version")
    else:
        guest.add_read(sender, register, "read", "next")
    model.step(sender, "next", "complete", finish, means="the target takes over")
