"""What all protocols share: vCPUs that write, a device that writes, KVM's dirty log, the big lock, and how it all ends.

What: `old` is the set of pages whose copy at the target is older than the page; a bit is enough, because a copy is of
the last write or it is not. A write sets it, a read by the sender clears it; if any bit is left when the migration
declares completion, pages were lost.

How, for a vCPU under `kvm-ring`: a write to an armed page traps; the trap disarms the page and pushes an entry, and
only then the store is tried again; it traps again if the page was armed meanwhile, which counts as one of the writes,
so that the number of entries is bounded too. Under `kvm-bitmap` the trap sets the page's bit in the kernel's bitmap.
A vCPU can be stopped between trap and store: the instruction has not happened. A device stores first and marks
afterwards, without the big lock, and has finished before the guest counts as stopped.

RESET arms all entries taken in one step: arming one page commutes with everything that others do to another. The KVM
ring is a set: a page is pushed once for each time it is armed.

Models: spec of writes, harvest and stop as in dirtylogs/kvm_ring.py, dirtylogs/kvm_bitmap.py and
migration/precopy.py.
"""

from __future__ import annotations

from collections.abc import Callable

from replay.safety.model import BIT, COUNT, EMPTY, NOBODY, Bounds, Model

Mark = Callable[[int, int, str, str], None]
"""mark(actor, register, place, done): at `place` the actor marks the page in `register`, and goes on at `done`."""


class Guest:
    """The writers, the log and the locks of one model. Attributes are indices of variables."""

    def __init__(self, model: Model, bounds: Bounds, log: str = "kvm-ring", kring: int | None = None):
        """`kring`: entries of the KVM ring; a vCPU cannot run while it is full. None: it is never full."""
        self.model, self.bounds, self.log, self.kring_entries = model, bounds, log, kring
        everything = model.everything
        self.all = model.pages("all", everything)
        self.old = model.old = model.pages("old", everything)
        self.armed = model.pages("armed", everything if log == "kvm-ring" else EMPTY)
        self.logged = model.pages("logged", EMPTY if log == "kvm-ring" else everything)
        self.taken = model.pages("taken")
        self.left = model.number("writes-left", bounds.writes)
        self.stopped = model.number("stopped")
        self.big_lock = model.number("big-lock")
        self._taken_only_arms = False
        self.devices: list[int] = []
        self.copies: list[int] = []  # sets of pages of which a latest copy is on its way; a write takes its page out
        self._vcpus = [self._add_vcpu(f"vcpu{n}" if bounds.vcpus > 1 else "vcpu") for n in range(bounds.vcpus)]
        self._running = model.place("run")
        model.forget = self._forget

    def _forget(self, s: bytearray) -> None:
        """What is armed matters to nobody once no vCPU will write any more."""
        if s[self.stopped] or (s[self.left] == 0 and all(s[vcpu] == self._running for vcpu in self._vcpus)):
            s[self.armed] = EMPTY
            if self._taken_only_arms:
                s[self.taken] = EMPTY

    def spend(self, s: bytearray) -> bool:
        """Use up one of the writes; False when the guest has none left or is stopped."""
        if s[self.stopped] or not s[self.left]:
            return False
        if not self.bounds.endless:
            s[self.left] -= 1
        return True

    def dirty(self, s: bytearray, page: int) -> None:
        """The content of `page` changes."""
        s[self.old] |= BIT[page]
        for copy in self.copies:
            s[copy] &= ~BIT[page]

    def _add_vcpu(self, name: str) -> int:
        model, armed, logged, stopped = self.model, self.armed, self.logged, self.stopped
        vcpu = model.actor(name, "run")
        register = model.page(f"{name}-page")
        entries = self.kring_entries

        def full(s: bytearray) -> bool:
            return entries is not None and COUNT[s[logged]] >= entries

        def trap(s: bytearray, page: int) -> str | None:
            if not s[armed] & BIT[page] or full(s) or not self.spend(s):
                return None
            s[armed] &= ~BIT[page]
            s[logged] |= BIT[page]
            s[register] = page
            return "store"

        def write(s: bytearray, page: int) -> str | None:
            if s[armed] & BIT[page] or full(s) or not self.spend(s):
                return None
            self.dirty(s, page)
            return "run"

        def retry(s: bytearray, page: int) -> str | None:
            if s[stopped] or full(s):
                return None
            if s[armed] & BIT[page]:
                if not self.spend(s):
                    return None
                s[armed] &= ~BIT[page]
                s[logged] |= BIT[page]
                return "store"
            self.dirty(s, page)
            s[register] = NOBODY
            return "run"

        what = "an entry goes to the KVM ring" if self.log == "kvm-ring" else "its bit is set in the kernel"
        model.step(vcpu, "run", "write traps", trap, among=self.all, means=f"{what}; the store is not done yet")
        model.step(vcpu, "run", "write", write, among=self.all, means="unnoticed by the log; the target's copy is old")
        model.step(vcpu, "store", "store", retry, own=register, means="the target's copy is old now")
        return vcpu

    def add_devices(self, mark: Mark) -> None:
        """Devices that store and then mark. Call once."""
        for number in range(self.bounds.devices):
            name = f"device{number}" if self.bounds.devices > 1 else "device"
            device = self.model.actor(name, "idle")
            register = self.model.page(f"{name}-page")
            self.devices.append(device)
            self._add_store(device, register)
            mark(device, register, "mark", "idle")

    def _add_store(self, device: int, register: int) -> None:
        def store(s: bytearray, page: int) -> str | None:
            if not self.spend(s):
                return None
            self.dirty(s, page)
            s[register] = page
            return "mark"

        self.model.step(
            device, "idle", "store", store, among=self.all, means="the target's copy is old now; not marked yet"
        )

    def add_reaper(self, mark_slot: Mark) -> None:
        """The thread that empties the KVM rings now and then, under the big lock."""
        reaper = self.model.actor("reaper", "asleep")
        register = self.model.page("reaper-page")

        def wake(s: bytearray, page: int) -> str | None:
            if s[self.big_lock] or s[self.stopped]:
                return None
            s[self.big_lock] = 1
            return self.take(s, register, page)

        def release(s: bytearray) -> None:
            s[self.big_lock] = 0

        self.model.step(reaper, "asleep", "take lock, entry", wake, among=self.logged, means="the big lock")
        self.add_reap(reaper, register, mark_slot, "asleep", release)

    def take(self, s: bytearray, register: int, page: int) -> str:
        """Take an entry out of the KVM ring; it stays unarmed until the RESET."""
        s[self.logged] &= ~BIT[page]
        s[self.taken] |= BIT[page]
        s[register] = page
        return "mark-slot"

    def add_reap(
        self,
        actor: int,
        register: int,
        mark_slot: Mark,
        done: str,
        then: Callable[[bytearray], None] | None = None,
        *,
        text: str = "RESET",
    ) -> None:
        """From place `reap` on: mark every entry of the KVM rings, RESET, `then`, go on at `done`."""
        logged, taken, armed = self.logged, self.taken, self.armed
        self._taken_only_arms = True

        def take(s: bytearray, page: int) -> str:
            return self.take(s, register, page)

        def reset(s: bytearray, page: int) -> str | None:
            if s[logged] != EMPTY:
                return None
            s[armed] |= s[taken]
            s[taken] = EMPTY
            s[register] = NOBODY
            if then is not None:
                then(s)
            return done

        self.model.step(actor, "reap", "take entry", take, among=logged)
        mark_slot(actor, register, "mark-slot", "reap")
        self.model.step(actor, "reap", text, reset, means="all entries taken are armed again")

    def quiet(self, s: bytearray) -> bool:
        """Whether no device is between its store and its mark."""
        idle = self.model.place("idle")
        return all(s[device] == idle for device in self.devices)

    def add_stop(self, sender: int, place: str, then: str, allowed: Callable[[bytearray], bool] | None = None) -> None:
        """At `place` the sender may stop the guest, under the big lock, and goes on at `then`."""

        def stop(s: bytearray, page: int) -> str | None:
            if s[self.stopped] or s[self.big_lock] or not self.quiet(s) or (allowed is not None and not allowed(s)):
                return None
            s[self.stopped] = 1
            return then

        self.model.step(sender, place, "stop the guest", stop, means="whatever is pending fits into the downtime")

    def add_read(self, sender: int, register: int, place: str, done: str) -> None:
        """Copy the page to the wire: the target has its latest version."""

        def read(s: bytearray, page: int) -> str | None:
            s[self.old] &= ~BIT[page]
            s[register] = NOBODY
            return done

        self.model.step(sender, place, "read", read, own=register, means="the target has the latest version")

    def in_order(self, s: bytearray, members: int, page: int) -> bool:
        """While the guest is stopped nothing depends on the order of pages: take the lowest, and skip the rest."""
        return not s[self.stopped] or BIT[page] == (s[members] & -s[members])
