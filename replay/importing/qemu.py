"""QEMU's trace events: what each means for a trace, however it was recorded (log backend, simple backend, ftrace).

Page events are memory_notdirty_write_access (TCG: first store to a clean page, with its ram_addr) and
kvm_dirty_ring_page (an entry taken from a KVM ring; its slot is not traced, so its place is known only where one slot
alone was logged, or the user says which). Syncs and reaps are re-arms; throttle events mark the trace as throttled.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import pairwise

from replay.errors import TraceError, UsageError
from replay.importing.places import HOST, MAX_PAGES, PAGE_BYTES, Extent, Places, parse_part
from replay.importing.report import Batch, Report
from replay.importing.rings import Rings

STORE, RING_PAGE, SLOT_MAP = "memory_notdirty_write_access", "kvm_dirty_ring_page", "kvm_set_user_memory"
RAM_ADDR = Extent("ram")
RING_SLOT = Extent("the logged slot")
NO_THREAD = 1 << 31  # stands for a thread that the recording does not name

# Argument types for the binary backend: u an integer, s a text.
ARGUMENTS = {
    STORE: "uuu", RING_PAGE: "uuu", SLOT_MAP: "uuuuuuuuu",
    "kvm_dirty_ring_reap": "uu", "kvm_dirty_ring_full": "u",
    "migration_bitmap_sync_start": "", "migration_bitmap_sync_end": "u",
    "migration_throttle": "", "cpu_throttle_set": "u", "migration_dirty_limit_guest": "u",
    "dirtylimit_throttle_pct": "uuu", "dirtylimit_set_vcpu": "uu", "dirtylimit_vcpu_execute": "uu",
    "migrate_set_state": "s",
}  # fmt: skip
THROTTLES = (
    "migration_throttle", "cpu_throttle_set", "migration_dirty_limit_guest", "dirtylimit_throttle_pct",
    "dirtylimit_vcpu_execute",
)  # fmt: skip

_LINE = re.compile(
    rb"^(?:\d{1,10}@\d{1,12}\.\d{6}:|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z )[a-z][a-z0-9_]{2,80}(?: |$)"
)
_SLOT_MAP = re.compile(
    rb"kvm_set_user_memory (?:AddrSpace#(\d{1,5}) )?Slot#(\d{1,10}) flags=0x([0-9a-f]{1,8}) gpa=0x([0-9a-f]{1,16}) "
    rb"size=0x([0-9a-f]{1,16}) ua=0x([0-9a-f]{1,16}) (?:.*? )?ret=(-?\d{1,9})\s*$"
)


def is_log_line(line: bytes) -> bool:
    """Whether this is an event with a time stamp as QEMU's log backend prints it."""
    return _LINE.match(line) is not None


def set_user_memory(line: bytes, places: Places) -> bool:
    """Take a slot map line, whatever stands before the event's name. False: it is damaged."""
    match = _SLOT_MAP.search(line)
    if match is None:
        return False
    space, slot = int(match[1] or 0), int(match[2])
    flags, gpa, size, ua = (int(match[k], 16) for k in range(3, 7))
    return slot_map(places, (space, slot, flags, gpa, size, ua), int(match[7]))


def slot_map(places: Places, values: tuple[int, ...], result: int) -> bool:
    """A slot was made, changed or (size 0) removed. False: numbers that cannot be."""
    space, slot, flags, gpa, size, ua = values
    if result < 0:
        return True
    if slot >= 1 << 16 and not space:  # older QEMU: the space is in the slot's upper half
        space, slot = divmod(slot, 1 << 16)
    if (gpa | size | ua) % PAGE_BYTES or size // PAGE_BYTES > MAX_PAGES or space > 255 or slot >= 1 << 16:
        return False
    if not size:
        places.forget(space << 16 | slot)
        return True
    extent = Extent(HOST, ua // PAGE_BYTES, size // PAGE_BYTES, gpa // PAGE_BYTES)
    places.describe(space << 16 | slot, extent, logging=bool(flags & 1))
    return True


class Blocks:
    """RAM blocks at their ram_addr, from "pc.ram@0+1G,vga.vram@1G+16M". Raises UsageError."""

    def __init__(self, text: str) -> None:
        parts = [parse_part(item, "--blocks", order) for order, item in enumerate(filter(str.strip, text.split(",")))]
        parts.sort(key=lambda part: part.first)
        self.first = [part.first for part in parts]
        self.extents = [Extent(part.space, 0, part.n_pages, order) for order, part in enumerate(parts)]
        overlaps = [a.space for a, b in pairwise(parts) if a.first + (a.n_pages or 0) > b.first]
        if overlaps or len({part.space for part in parts}) != len(parts):
            raise UsageError(f"--blocks: blocks overlap or have one name twice: {text}")

    def find(self, page: int) -> int | None:
        """Which block a page of ram_addr lies in."""
        at = bisect_right(self.first, page) - 1
        return at if at >= 0 and page - self.first[at] < (self.extents[at].n_pages or 0) else None


class Events:
    """What QEMU's events say, over a recording. `ring_slot`: what kvm_dirty_ring_page's offsets count in, if given."""

    def __init__(self, report: Report, ring_slot: str = "", blocks: str = "") -> None:
        self.report = report
        self.tally = report.tally
        self.rings = Rings(report.tally)
        self.ring_slot = parse_part(ring_slot, "--ring-slot") if ring_slot.strip() else RING_SLOT
        self.blocks = Blocks(blocks)
        self.ram = report.places.number(RAM_ADDR)
        self.block_numbers = [report.places.number(extent) for extent in self.blocks.extents]
        self.ring: int | None = None
        self.stores = 0
        self.syncs_ns: list[int] = []
        self.reaps_ns: list[int] = []
        self.starts_ns: list[int] = []

    def place(self, page: int) -> tuple[int, int] | None:
        """(extent, offset) of a page of ram_addr; None: in none of the given blocks."""
        if not self.block_numbers:
            return self.ram, page
        at = self.blocks.find(page)
        return None if at is None else (self.block_numbers[at], page - self.blocks.first[at])

    def store(self, batch: Batch, t_ns: int, ram_addr: int, thread: int) -> str | None:
        """A store to a clean page under TCG; returns why it was dropped, if it was."""
        place = self.place(ram_addr >> 12)
        if place is None:
            return "ram_addr in none of the --blocks"
        self.stores += 1
        batch.add(t_ns, *place, thread)
        return None

    def ring_page(self, batch: Batch, t_ns: int, vcpu: int, fetch: int, offset: int) -> str | None:
        """An entry taken from a vCPU's ring; returns why it was dropped, if it was."""
        if vcpu >= 8191 or fetch >= 1 << 32:
            return "damaged: vCPU or ring index out of range"
        if not self.rings.push(vcpu, (fetch + 1) & 0xFFFFFFFF, fetch & 0xFFFFFFFF, t_ns):
            return "seen before: the same ring entry twice"
        if self.ring is None:
            self.ring = self.report.places.number(self.ring_slot)
        batch.add(t_ns, self.ring, offset, NO_THREAD + 1 + vcpu)
        return None

    def note(self, event: str, t_ns: int | None, value: int | str | None) -> None:
        """An event that is no page: `value` is its only or decisive argument."""
        if event in THROTTLES:
            self.report.throttled = True
            self.tally.other["throttle events"] += 1
            if t_ns is not None:
                self.report.note_time("throttle_events_ns", t_ns)
            if event == "cpu_throttle_set" and isinstance(value, int):
                self.report.notes["highest_throttle_pct"] = max(self.report.notes.get("highest_throttle_pct", 0), value)
            return
        kind = {
            "migration_bitmap_sync_start": "syncs begun", "migration_bitmap_sync_end": "syncs",
            "kvm_dirty_ring_reap": "reaps", "kvm_dirty_ring_full": "ring-full exits", SLOT_MAP: "slot map lines",
        }.get(event, "other events")  # fmt: skip
        self.tally.other[kind] += 1
        if t_ns is None:
            return
        if event == "migration_bitmap_sync_end":
            self.syncs_ns.append(t_ns)
        elif event == "kvm_dirty_ring_reap":
            self.reaps_ns.append(t_ns)
        elif event == "kvm_dirty_ring_full":
            self.report.note_time("ring_full_exits_ns", t_ns)
        elif event == "migrate_set_state" and value == "setup":
            self.starts_ns.append(t_ns)

    def finish(self) -> None:
        """Settle what is known only at the end. Raises TraceError where ring entries have no place."""
        report = self.report
        if self.ring is not None and self.ring_slot is RING_SLOT:
            self._place_ring(report.places)
        report.rearm_ns.extend(self.syncs_ns if self.stores else self.reaps_ns if self.ring is not None else [])
        if len(self.starts_ns) == 1:
            report.migration_start_ns = self.starts_ns[0]
        if self.syncs_ns and self.stores == 0:
            report.notes["syncs_ns"] = self.syncs_ns[:10_000]
        if self.stores:
            report.limits.append("first stores to a page after each sync; later ones before the next sync are not seen")
            if not self.block_numbers:
                report.limits.append(
                    "pages are ram_addr / 4096, holes between RAM blocks included (--blocks names them)"
                )
        if self.ring is not None:
            report.limits.append("ring entries have the time at which QEMU collected them, not that of the write")
        kinds = ["TCG: memory_notdirty_write_access"] * bool(self.stores)
        kinds += ["KVM dirty rings: kvm_dirty_ring_page, at harvest"] * (self.ring is not None)
        report.capture = "QEMU trace events, " + " and ".join(kinds or ["none"])

    def _place_ring(self, places: Places) -> None:
        """Entries lie in the one slot that is logged; with several nobody knows in which."""
        assert self.ring is not None
        logged = sorted(places.logged)
        if len({places.extents[number].first for number in logged}) != 1:
            found = f"{len(logged)} logged slots" if logged else "no slot map (kvm_set_user_memory)"
            raise TraceError(
                f"kvm_dirty_ring_page does not say in which slot its offset lies, and the recording has {found}: "
                "give --ring-slot BLOCK@OFFSET+SIZE if one slot holds all logged memory, or record the kernel's "
                "kvm_dirty_ring_push instead (replay import kvm-ftrace --help)"
            )
        places.extents[self.ring] = places.extents[logged[0]]


def threads(report: Report, given: dict[int, int], met: dict[int, int]) -> None:
    """Number the vCPUs: `met` counts events by what they call their vCPU, a thread or NO_THREAD + 1 + vCPU number."""
    named = {key: key - NO_THREAD - 1 for key in met if key > NO_THREAD}
    plain = sorted(key for key in met if key < NO_THREAD)
    order = given or {thread: number for number, thread in enumerate(plain)}
    report.vcpu_names = {NO_THREAD: 0, **order, **named}
    if plain:
        report.notes["threads"] = {str(thread): met[thread] for thread in plain[:1000]}
        if not given:
            report.limits.append("vCPUs are numbered in the order of their thread ids (--threads says otherwise)")
    if NO_THREAD in met:
        report.limits.append("events name no thread: all are given to vCPU 0")
