"""hierarchical-bitmap: the layers of the bitmap design, and a summary bit that says where in L2 to look.

Steps: a device stores, sets the page's bit in L2, then the group's bit in the summary. The sync clears the group's
summary bit and then carries the group's words down. Both orders matter as soon as devices mark without a lock: a sync
that carries first and clears afterwards wipes out the summary bit of a page that was marked in between (`carry_first`),
and a device that sets the summary first can have it cleared before its page bit is there (`summary_first`). In the
replay a mark and a sync are each one event, so the verbs of designs/hierarchical_bitmap.py cannot meet this race.

All pages are one group. The summaries of L1 (big lock) and L3 (migration thread) have one writer at a time.
"""

from __future__ import annotations

from typing import Any

from replay.safety.guest import Guest
from replay.safety.layers import add_scan, add_sync, slot_marker
from replay.safety.model import BIT, EMPTY, NOBODY, Bounds, Model

LOGS = ("kvm-bitmap", "kvm-ring")
QUEUES = False


def build(
    config: Any,
    bounds: Bounds,
    *,
    log: str = "kvm-bitmap",
    carry_first: bool = False,
    summary_first: bool = False,
) -> Model:
    """The protocol of designs/hierarchical_bitmap.py; neither of its parameters changes what others see."""
    model = Model(bounds)
    guest = Guest(model, bounds, log)
    l1, l2, l3 = model.pages("L1"), model.pages("L2"), model.pages("L3", model.everything)
    summary = model.number("S2")
    sender = model.actor("sender", "sync" if log == "kvm-bitmap" else "next")
    register = model.page("sender-page")
    model.done_at = (sender, "done")

    def mark_ram(actor: int, page_at: int, place: str, done: str) -> None:
        def page_bit(s: bytearray, page: int) -> str:
            s[l2] |= BIT[page]
            if summary_first:
                s[page_at] = NOBODY
            return done if summary_first else "mark-summary"

        def summary_bit(s: bytearray, page: int) -> str:
            s[summary] = 1
            if not summary_first:
                s[page_at] = NOBODY
            return "mark-page" if summary_first else done

        first, second = ("mark-page", place) if summary_first else (place, "mark-summary")
        model.step(actor, first, "set L2 bit", page_bit, own=page_at)
        model.step(actor, second, "set summary bit", summary_bit, own=page_at)

    def look(s: bytearray, page: int) -> str:
        """The fold has set the summary bits of what it carried into L2, under the big lock."""
        if s[summary]:
            return "carry" if carry_first else "clear-summary"
        s[guest.big_lock] = 0
        return "next"

    def clear(s: bytearray, page: int) -> str:
        s[summary] = 0
        if not carry_first:
            return "carry"
        s[guest.big_lock] = 0
        return "next"

    def carry(s: bytearray, page: int) -> str:
        s[l3] |= s[l2]
        s[l2] = EMPTY
        if carry_first:
            return "clear-summary"
        s[guest.big_lock] = 0
        return "next"

    def summarise(s: bytearray, page: int) -> str:
        s[summary] |= s[folded]
        s[folded] = 0
        return "look"

    folded = model.number("folded")
    guest.add_devices(mark_ram)
    add_sync(guest, sender, register, l1, l2, slot_marker(guest, l1), folded=folded)
    model.step(sender, "merge", "set summary bit", summarise, means="for what the fold carried into L2")
    model.step(sender, "look", "load summary", look)
    model.step(sender, "clear-summary", "clear summary bit", clear)
    model.step(sender, "carry", "L2 into L3", carry, means="marked pages become pending; L2 is empty")
    add_scan(guest, sender, register, l1, l3)
    return model
