"""bitmap: three layers, a sync that carries marks down, a sender that clears a page's bit before it reads the page.

Steps: a device stores, then sets the page's bit in L2 atomically. A reap sets bits of L1 under the big lock. The sync
carries L1 to L2 (big lock), then exchanges each word of L2 with zero and ORs it into L3, which only the migration
thread touches. Under `kvm-bitmap` the page's chunk is cleared in the kernel (which protects it) between pop and read.

`read_first` is the wrong order: read, and only then clear in the kernel. A write in between is unnoticed, because the
page is not protected yet, and the bit that it would have kept alive is cleared.
"""

from __future__ import annotations

from typing import Any

from replay.safety.guest import Guest
from replay.safety.layers import add_merge, add_scan, add_sync, slot_marker
from replay.safety.model import BIT, NOBODY, Bounds, Model

LOGS = ("kvm-bitmap", "kvm-ring")
QUEUES = False


def build(config: Any, bounds: Bounds, *, log: str = "kvm-bitmap", read_first: bool = False) -> Model:
    """The protocol of designs/bitmap.py; `host_page_refind` changes nothing that others see."""
    model = Model(bounds)
    guest = Guest(model, bounds, log)
    l1, l2, l3 = model.pages("L1"), model.pages("L2"), model.pages("L3", model.everything)
    sender = model.actor("sender", "sync" if log == "kvm-bitmap" else "next")
    register = model.page("sender-page")
    model.done_at = (sender, "done")

    def mark_ram(actor: int, page_at: int, place: str, done: str) -> None:
        def mark(s: bytearray, page: int) -> str:
            s[l2] |= BIT[page]
            s[page_at] = NOBODY
            return done

        model.step(actor, place, "set L2 bit", mark, own=page_at)

    guest.add_devices(mark_ram)
    add_sync(guest, sender, register, l1, l2, slot_marker(guest, l1))
    add_merge(guest, sender, l2, l3)
    add_scan(guest, sender, register, l1, l3, read_first)
    return model
