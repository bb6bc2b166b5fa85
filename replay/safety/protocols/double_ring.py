"""double-ring: producers fill one ring, the sender empties the other, a sync swaps them; bitmaps behind both.

Steps of a producer: test-and-set the page's bit (a reap: L1, under the big lock; a device: L2, without), then push if
it was clear; a refused push marks the ring as overflowed. Steps of a sync, under the big lock: queue what is left
over, or refill from L3 after a fallback round; reap; entries (or after an overflow all of L1) into L2 and clear L1;
swap; entries (or all of L2) into L3; clear the entries' L2 bits.

Intended: push and swap are sections under one lock. The switches take that apart, as the posted code does:
`locked=off` pushes with a plain load, store and increment; `late_inserts` loads which ring to fill before the lock,
or the swap, can tell; `atomic_clear=off` clears L2 bits with a load and a store; `multifd_flush=off` lets copies of
one page be on two channels at once; `dedupe=off` pushes whether or not the bit was clear; `exact_full` takes a ring
that is just full for one that overflowed; `boot_filled` begins with a ring that overflowed. `as_posted` is all of
them. Rescans of the ring for each block and the second search change costs, not what others see.

RESET and fold are one step: the one concerns vCPUs, the other devices, and what these do in between commutes.
Queueing what is left over is one step: it is serialised with every push by the lock, and where there is none
(`locked=off`) the races of the single pushes are shown anyway.
"""

from __future__ import annotations

from typing import Any

from replay.safety.guest import Guest, Mark
from replay.safety.model import BIT, COUNT, EMPTY, MEMBERS, NOBODY, Bounds, Model
from replay.safety.queues import Queue

LOGS = ("kvm-ring",)


class _Rings:
    """Both rings, which is filled, and which of them overflowed."""

    def __init__(self, model: Model, config: Any, entries: int):
        posted = config.as_posted
        self.dedupe = config.dedupe and not posted
        self.exact_full = config.exact_full or posted
        self.locked = config.locked and not posted
        self.late = config.late_inserts or posted
        self.atomic_clear = config.atomic_clear and not posted
        self.flush = config.multifd_flush and not posted
        self.rings = (Queue(model, "ring0", entries), Queue(model, "ring1", entries))
        self.switch = model.number("switch")
        self.overflowed = (
            model.number("overflowed0", int(config.boot_filled or posted)),
            model.number("overflowed1"),
        )

    def over(self, s: bytearray, which: int) -> bool:
        """Whether ring `which` cannot be trusted."""
        return bool(s[self.overflowed[which]]) or (self.exact_full and self.rings[which].full(s))

    def push(self, s: bytearray, which: int, page: int) -> None:
        """Push, or mark the ring as overflowed."""
        if not self.rings[which].push(s, page):
            s[self.overflowed[which]] = 1


def build(config: Any, bounds: Bounds, *, log: str = "kvm-ring") -> Model:
    """The protocol of designs/double_ring.py with all its switches."""
    model = Model(bounds)
    guest = Guest(model, bounds, log)
    rings = _Rings(model, config, bounds.ring)
    l1, l2, l3 = model.pages("L1"), model.pages("L2"), model.pages("L3", model.everything)
    sender = model.actor("sender", "next")
    register = model.page("sender-page")
    model.done_at = (sender, "done")
    publishing: list[int] = []

    def marker(bits: int, layer: str) -> Mark:
        def mark(actor: int, page_at: int, place: str, done: str) -> None:
            def set_bit(s: bytearray, page: int) -> str:
                known = s[bits] & BIT[page]
                s[bits] |= BIT[page]
                if known and (rings.dedupe or layer == "L1"):
                    s[page_at] = NOBODY
                    return done
                return "push"

            means = "test-and-set: pushed if it was clear" if rings.dedupe or layer == "L1" else "pushed in any case"
            model.step(actor, place, f"set {layer} bit", set_bit, own=page_at, means=means)
            _add_push(model, rings, actor, page_at, done, publishing)

        return mark

    mark_slot = marker(l1, "L1")
    guest.add_devices(marker(l2, "L2"))
    guest.add_reaper(mark_slot)
    first_pass = model.number("first-pass", 1)
    wire = _Wire(guest, rings.flush)
    _add_sync(guest, rings, sender, register, (l1, l2, l3), mark_slot, wire, publishing, first_pass)
    _add_sending(guest, rings, sender, register, l3, wire, first_pass)
    return model


def _add_push(model: Model, rings: _Rings, actor: int, page_at: int, done: str, publishing: list[int]) -> None:
    """From place `push`: one section under the lock, or what the switches make of it."""
    plain = rings.locked and not rings.late
    loaded = -1 if plain else model.number(f"loaded-by-{actor}")
    entries = len(rings.rings[0].slots)

    def push(s: bytearray, page: int) -> str:
        rings.push(s, s[rings.switch], page)
        s[page_at] = NOBODY
        return done

    def load(s: bytearray, page: int) -> str:
        which = s[rings.switch]
        index = 0 if rings.locked else entries - rings.rings[which].room(s)
        s[loaded] = which * 8 + index
        return "store"

    def store(s: bytearray, page: int) -> str:
        which, index = divmod(s[loaded], 8)
        s[loaded] = 0
        s[page_at] = NOBODY
        if rings.locked:
            rings.push(s, which, page)
            return done
        if index >= entries:
            s[rings.overflowed[which]] = 1
            return done
        slots = rings.rings[which].slots
        s[slots[min(index, entries - rings.rings[which].room(s))]] = page
        for slot in slots[index + 1 :]:
            s[slot] = NOBODY
        return done

    if plain:
        model.step(actor, "push", "push", push, own=page_at, means="under the lock; into the ring being filled")
    elif rings.locked:
        model.step(actor, "push", "load switch", load, own=page_at, means="which ring is being filled")
        model.step(actor, "store", "push", store, own=page_at, means="into the ring that was being filled then")
    else:
        publishing.append(actor)
        model.step(actor, "push", "load index", load, own=page_at, means="where the ring ends")
        model.step(actor, "store", "store, publish", store, own=page_at, means="the ring ends after this entry")


class _Wire:
    """How a copy reaches the target: at once, or on one of two channels that may overtake one another."""

    def __init__(self, guest: Guest, flush: bool):
        self.guest, self.flush = guest, flush
        self.channels: list[tuple[int, int]] = []
        if flush:
            return
        model = guest.model
        for number in range(2):
            copy, fresh = model.page(f"channel{number}-page"), model.pages(f"channel{number}-fresh")
            guest.copies.append(fresh)
            self.channels.append((copy, fresh))
            self._add_channel(model.actor(f"channel{number}", "wait"), copy, fresh)

    def _add_channel(self, channel: int, copy: int, fresh: int) -> None:
        def deliver(s: bytearray, page: int) -> str | None:
            if page == NOBODY:
                return None
            if s[fresh] & BIT[page]:
                s[self.guest.old] &= ~BIT[page]
            else:
                s[self.guest.old] |= BIT[page]
            s[copy], s[fresh] = NOBODY, EMPTY
            return "wait"

        self.guest.model.step(channel, "wait", "deliver", deliver, own=copy, means="the target has that copy")

    def idle(self, s: bytearray) -> bool:
        """Whether everything sent has arrived."""
        return all(s[copy] == NOBODY for copy, _ in self.channels)

    def add_read(self, sender: int, register: int) -> None:
        """From place `read` to `next`."""
        model = self.guest.model
        if self.flush:
            self.guest.add_read(sender, register, "read", "next")
        for number, (copy, fresh) in enumerate(self.channels):

            def read(s: bytearray, page: int, copy: int = copy, fresh: int = fresh) -> str | None:
                if s[copy] != NOBODY:
                    return None
                s[copy], s[fresh], s[register] = page, EMPTY | BIT[page], NOBODY
                return "next"

            text = f"read, to channel {number}"
            model.step(sender, "read", text, read, own=register, means="a copy of the latest version is on its way")


def _add_sync(
    guest: Guest,
    rings: _Rings,
    sender: int,
    register: int,
    layers: tuple[int, int, int],
    mark_slot: Mark,
    wire: _Wire,
    publishing: list[int],
    first_pass: int,
) -> None:
    model, (l1, l2, l3) = guest.model, layers
    copied = model.pages("copied")
    word = -1 if rings.atomic_clear else model.pages("loaded-L2")
    storing = model.place("store")

    def begin(s: bytearray, page: int) -> str | None:
        scanned = s[first_pass] or rings.over(s, 1 - s[rings.switch])
        if s[guest.big_lock] or (scanned and not wire.idle(s)):
            return None
        s[guest.big_lock] = 1
        leftovers(s)
        return "reap"

    def begin_round(s: bytearray, page: int) -> str | None:
        return None if s[guest.stopped] else begin(s, page)

    def leftovers(s: bytearray) -> None:
        filling = s[rings.switch]
        draining = 1 - filling
        if rings.over(s, draining):
            s[rings.overflowed[draining]] = 0
            if rings.over(s, filling) or rings.rings[filling].room(s) < COUNT[s[l3]]:
                s[rings.overflowed[filling]] = 1
            else:
                for member in MEMBERS[s[l3]]:
                    rings.push(s, filling, member)
        else:
            for member in rings.rings[draining].members(s):
                if s[l3] & BIT[member]:
                    rings.push(s, filling, member)
        rings.rings[draining].reset(s)

    def fold(s: bytearray) -> None:
        filling = s[rings.switch]
        if rings.over(s, filling):
            s[l2] |= s[l1]
        else:
            for member in rings.rings[filling].members(s):
                s[l2] |= BIT[member]
        s[l1] = EMPTY

    def swap(s: bytearray, page: int) -> str | None:
        if not rings.late and any(s[actor] == storing for actor in publishing):
            return None
        s[rings.switch] ^= 1
        return "merge" if rings.late else merge(s, page)

    def merge(s: bytearray, page: int) -> str:
        draining = 1 - s[rings.switch]
        if rings.over(s, draining):
            s[l3] |= s[l2]
            s[l2] = EMPTY
            s[guest.big_lock] = 0
            return "next"
        for member in rings.rings[draining].members(s):
            s[copied] |= BIT[member]
        s[l3] |= s[copied]
        return "clear" if rings.atomic_clear else "load-L2"

    def load(s: bytearray, page: int) -> str:
        s[word] = s[l2]
        return "clear"

    def clear(s: bytearray, page: int) -> str:
        before = s[l2] if rings.atomic_clear else s[word]
        s[l2] = (before & ~s[copied]) | EMPTY
        s[copied] = EMPTY
        if not rings.atomic_clear:
            s[word] = EMPTY
        s[guest.big_lock] = 0
        return "next"

    means = "takes the big lock; what is still pending is queued, or the ring has overflowed"
    model.step(sender, "sync", "begin a sync", begin, means=means)
    model.step(sender, "next", "begin a sync", begin_round, means=means)
    guest.add_stop(sender, "next", "sync", lambda s: not guest.bounds.strict or s[l3] == EMPTY)
    guest.add_reap(sender, register, mark_slot, "swap", fold, text="RESET, fold")
    means = "entries become pending; after an overflow all of L2 does"
    model.step(sender, "swap", "swap the rings" if rings.late else "swap, ring into L3", swap, means=means)
    if rings.late:
        model.step(sender, "merge", "ring into L3", merge, means=means)
    if not rings.atomic_clear:
        model.step(sender, "load-L2", "load L2 word", load)
    model.step(sender, "clear", "clear L2 bits", clear, means="of the entries")


def _add_sending(
    guest: Guest, rings: _Rings, sender: int, register: int, l3: int, wire: _Wire, first_pass: int
) -> None:
    model = guest.model

    def scans(s: bytearray) -> bool:
        return bool(s[first_pass]) or rings.over(s, 1 - s[rings.switch])

    def find(s: bytearray, page: int) -> str | None:
        if not scans(s) or not guest.in_order(s, l3, page):
            return None
        s[l3] &= ~BIT[page]
        s[register] = page
        return "read"

    def first_pass_over(s: bytearray, page: int) -> str | None:
        if not s[first_pass] or s[l3] != EMPTY or not wire.idle(s):
            return None
        s[first_pass] = 0
        return "next"

    def pop(s: bytearray, page: int) -> str | None:
        draining = rings.rings[1 - s[rings.switch]]
        if scans(s) or draining.empty(s):
            return None
        page = draining.pop(s)
        if not s[l3] & BIT[page]:
            return "next"
        s[l3] &= ~BIT[page]
        s[register] = page
        return "read"

    def finish(s: bytearray, page: int) -> str | None:
        if not s[guest.stopped] or s[first_pass] or not wire.idle(s):
            return None
        left = s[l3] != EMPTY if scans(s) else not rings.rings[1 - s[rings.switch]].empty(s)
        return None if left else "done"

    model.step(sender, "next", "find bit", find, among=l3, means="by a scan of L3; no longer pending")
    model.step(sender, "next", "scan finds nothing", first_pass_over, means="the first pass over memory is over")
    model.step(sender, "next", "pop", pop, shows=register, means="no longer pending; dropped if it was not")
    wire.add_read(sender, register)
    model.step(sender, "next", "complete", finish, means="the target takes over")
