"""kvm-ftrace: the kernel's dirty-ring tracepoints, as ftrace, trace-cmd and perf script print them.

What: every kvm_dirty_ring_push is an event at its page, resets are re-arms, ring-full exits are kept in the
provenance. How: a line is taken apart around its event's name, because a thread's name may hold blanks and slashes; a
ring's index must go up by one, so a gap is an exact count of lost events whatever the tracer says. `ring` is the
vcpu_id given to the kernel (on x86 the APIC id). Slots become pages by a map: --slots, or QEMU's kvm_set_user_memory
lines anywhere in the files (its log may be given as a file of its own, before the others); else each slot is a block
of its own, as far as it was written. Cost: a few microseconds a line, memory for the entries between two resets. Bad
for: writes on a thread that runs no vCPU, which the ring never sees; store order under PML, where the kernel drains a
batch at a VM exit, up to Linux 6.12 newest first (--reverse-batches 2us turns batches round; without PML there are
none).

Models: Linux virt/kvm/dirty_ring.c and include/trace/events/kvm.h; text of ftrace, trace-cmd and perf.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from replay.errors import UsageError
from replay.importing import lines, qemu
from replay.importing.places import parse_numbers, parse_slots
from replay.importing.report import Batch, Report
from replay.importing.rings import Rings
from replay.importing.streams import Sources
from replay.plugins import param

HOW = """how to record (as root, on the host; the guest runs with -accel kvm,dirty-ring-size=4096):
  cd /sys/kernel/tracing
  echo mono > trace_clock; echo 65536 > buffer_size_kb
  for e in push reset exit; do echo 1 > events/kvm/kvm_dirty_ring_$e/enable; done
  cat trace_pipe > /tmp/ring.txt         # stop with Ctrl-C
pages are only logged while something asks for them: a migration, or, to measure without one, in the monitor
  calc_dirty_rate -r 60                  # dirty-ring mode, for 60 s; it also empties the rings every second
or with trace-cmd or perf instead of cat:
  trace-cmd record -C mono -e kvm:kvm_dirty_ring_* sleep 60 && trace-cmd report -t > /tmp/ring.txt
  perf record -a -e 'kvm:kvm_dirty_ring_*' sleep 60 && perf script --ns > /tmp/ring.txt
where slots lie: start QEMU with -trace kvm_set_user_memory -D /tmp/slots.log and give both files:
  replay import kvm-ftrace /tmp/slots.log /tmp/ring.txt -o guest.parquet
other files by hand: --slots 0=pc.ram@0+640K,1=pc.ram@1M+3071M (slot 0 is the first 640 KiB of pc.ram, ...)
"""

MAX_VCPUS = 8191
MAX_RING_ENTRIES = 65536
MAX_SLOTS = 2 << 16  # the guest's address space and that of SMM
NEAR_NS = 2_000
SEEN_BEFORE = "seen before: the same ring entry twice"
_HEAD = (
    rb"^[ \t]*[^\s#].{0,15}?[-\s][ \t]*\d{1,10}[ \t]+(?:\([-\d \t]{1,12}\)[ \t]+)?\[\d{3,5}\][ \t]+"
    rb"(?:[^\s:\[\]]{1,8}[ \t]+)?(\d{1,10})\.(\d{6}|\d{9}):[ \t]+(?:kvm:)?"
)
_PUSH = re.compile(
    _HEAD + rb"kvm_dirty_ring_push:[ \t]+ring (\d{1,9}): dirty 0x([0-9a-f]{1,8}) reset 0x([0-9a-f]{1,8}) "
    rb"slot (\d{1,10}) offset 0x([0-9a-f]{1,16}) \(used (\d{1,10})\)\s*$"
)
_RESET = re.compile(rb"ring (\d{1,9}): dirty 0x([0-9a-f]{1,8}) reset 0x([0-9a-f]{1,8}) \(used (\d{1,10})\)\s*$")
_EXIT = re.compile(rb"vcpu (\d{1,9})\s*$")
_ANY = re.compile(_HEAD + rb"((?:[\w-]{1,40}:)?[\w.-]{1,64}):(.*)$", re.DOTALL)
_LOST = re.compile(rb"^\s*CPU:\s*\d+ \[(?:LOST )?(?:(\d{1,12}) )?EVENTS(?: DROPPED)?\]|PERF_RECORD_LOST\D*(\d{1,12})")
_OVERWRITTEN = re.compile(rb"entries-in-buffer/entries-written: (\d{1,15})/(\d{1,15})")


@dataclass(frozen=True, kw_only=True)
class Config:
    slots: str = param("", "where slots lie: SLOT=BLOCK@OFFSET+SIZE, with commas between, like 0=pc.ram@0+2G")
    vcpus: str = param("", "vCPU of each ring, where it is not the ring's own number: RING=VCPU,...")
    reverse_batches: int = param(
        0, "turn round the places within a batch: pushes of a ring at most this far apart; 0s: leave them",
        unit="ns", low=0, high=1_000_000_000,
    )  # fmt: skip


def check(config: Config) -> None:
    """Raises UsageError for maps that cannot be read."""
    parse_slots(config.slots)
    parse_numbers(config.vcpus, "--vcpus")


def read(config: Config, sources: Sources, report: Report) -> Iterator[Batch]:
    """The pushes, in batches of a chunk of lines."""
    reader = _Reader(config, report)
    yield from lines.batches(sources, report, reader.line)
    batch = Batch()
    reader.finish(batch)
    yield batch


class _Reader:
    """State over lines: rings, batches that are still open, what to say at the end."""

    def __init__(self, config: Config, report: Report) -> None:
        self.report = report
        self.tally = report.tally
        self.rings = Rings(report.tally)
        self.numbers = parse_numbers(config.vcpus, "--vcpus")
        self.reverse_ns = config.reverse_batches
        self.open: dict[int, list[tuple[int, int, int]]] = {}  # ring to the pushes of its current batch
        self.newest: dict[int, int] = {}  # ring to the time of its last push
        self.near = 0
        self.slots_given = bool(config.slots.strip())
        self.mapped = self.slots_given
        for slot, extent in parse_slots(config.slots).items():
            report.places.describe(slot, extent)

    def line(self, line: bytes, batch: Batch) -> str | None:
        """Take one line; returns why it was dropped, if it was."""
        match = _PUSH.match(line)
        if match is None:
            return self._other(line)
        seconds, fraction, ring_text, dirty_text, reset_text, slot, offset, used = match.groups()
        t_ns = int(seconds) * 10**9 + int(fraction) * (1000 if len(fraction) == 6 else 1)
        ring, dirty, reset, n_used = int(ring_text), int(dirty_text, 16), int(reset_text, 16), int(used)
        if ring >= MAX_VCPUS or n_used > MAX_RING_ENTRIES or (dirty - reset) & 0xFFFFFFFF != n_used:
            return "damaged: a ring's numbers contradict each other"
        slot_number = int(slot)
        if slot_number >= MAX_SLOTS:
            return "damaged: slot number beyond two address spaces"
        if reason := self.report.late(t_ns):
            return reason
        if not self.rings.push(ring, dirty, reset, t_ns):
            return SEEN_BEFORE
        extent, page = self.report.places.slot(slot_number), int(offset, 16)
        if t_ns - self.newest.get(ring, -NEAR_NS - 1) <= NEAR_NS:
            self.near += 1
        self.newest[ring] = t_ns
        if not self.reverse_ns:
            batch.add(t_ns, extent, page, ring)
            return None
        for other, pushes in self.open.items():
            if pushes and (t_ns - pushes[-1][0] > self.reverse_ns or len(pushes) >= MAX_RING_ENTRIES):
                self._close(other, batch)
        self.open.setdefault(ring, []).append((t_ns, extent, page))
        return None

    def _close(self, ring: int, batch: Batch) -> None:
        """A batch is complete: times stay, places change round."""
        pushes = self.open[ring]
        self.report.lateness_ns = max(self.report.lateness_ns, self.report.latest_ns - min(push[0] for push in pushes))
        for (t_ns, _, _), (_, extent, page) in zip(pushes, reversed(pushes), strict=True):
            batch.add(t_ns, extent, page, ring)
        self.open[ring] = []

    def _other(self, line: bytes) -> str | None:
        """A line that is no push."""
        if b"kvm_set_user_memory " in line:
            self.mapped = True
            return self._slot_line(line)
        if lost := _LOST.search(line):
            self.tally.lost["marks of the tracer"] += int(lost[1] or lost[2] or 1)
            self.tally.other["marks of lost events"] += 1
            return None
        match = _ANY.match(line)
        if match is None:
            return self._plain(line)
        event, message = match[3].removeprefix(b"kvm:"), match[4].strip()
        if event not in (b"kvm_dirty_ring_push", b"kvm_dirty_ring_reset", b"kvm_dirty_ring_exit"):
            self.tally.other["other events"] += 1
            return None
        pattern = {b"kvm_dirty_ring_reset": _RESET, b"kvm_dirty_ring_exit": _EXIT}.get(event)
        found = pattern.match(message) if pattern is not None else None
        if found is None:
            return f"damaged: {event.decode()}"
        if int(found[1]) >= MAX_VCPUS:
            return "damaged: a ring's numbers contradict each other"
        t_ns = int(match[1]) * 10**9 + int(match[2]) * (1000 if len(match[2]) == 6 else 1)
        if reason := self.report.late(t_ns):
            return reason
        if event == b"kvm_dirty_ring_exit":
            self.report.note_time("ring_full_exits_ns", t_ns)
            self.tally.other["ring-full exits"] += 1
            return None
        self.rings.reset(int(found[1]), int(found[2], 16), int(found[3], 16), t_ns)
        self.tally.other["resets"] += 1
        return None

    def _slot_line(self, line: bytes) -> str | None:
        if self.slots_given:
            self.tally.other["slot map lines, not used because of --slots"] += 1
            return None
        if not qemu.set_user_memory(line, self.report.places):
            return "damaged: kvm_set_user_memory"
        self.tally.other["slot map lines"] += 1
        return None

    def _plain(self, line: bytes) -> str | None:
        """A line without an event: a heading, or nothing that a tracer prints."""
        text = line.strip()
        if not text:
            self.tally.other["blank lines"] += 1
        elif text.startswith((b"#", b"cpus=")):
            if buffered := _OVERWRITTEN.search(line):
                self.tally.notes["older events overwritten in the buffer"] += max(
                    int(buffered[2]) - int(buffered[1]), 0
                )
            self.tally.other["headings"] += 1
        elif qemu.is_log_line(line):
            self.tally.other["other events"] += 1
        elif b"kvm_dirty_ring_" in line:
            return "damaged, or times not as seconds with 6 or 9 decimals (echo mono > trace_clock)"
        else:
            return "not a line of ftrace, trace-cmd or perf"
        return None

    def finish(self, batch: Batch) -> None:
        """Close what is open and say what is known about the trace."""
        report, rings = self.report, self.rings
        for ring, pushes in self.open.items():
            if pushes:
                self._close(ring, batch)
        rings.finish(report.latest_ns)
        report.rearm_ns, report.rearm_gap_ns = rings.rearm_ns, rings.longest_ns
        if self.numbers:
            unknown = sorted(rings.rings.keys() - self.numbers.keys())
            if unknown:
                raise UsageError(
                    f"--vcpus: no vCPU for ring {unknown[0]}; rings in the recording: {sorted(rings.rings)}"
                )
            report.vcpu_names = self.numbers
        report.clock = "the tracer's clock, which runs on while the guest is stopped"
        report.capture = (
            "KVM dirty rings: kernel tracepoints kvm_dirty_ring_push, first write to a page after its reset"
        )
        report.notes |= {
            "rings": {str(number): ring.pushes for number, ring in sorted(rings.rings.items())},
            "partial_resets": rings.partial_resets,
            "longest_unarmed_ns": rings.longest_ns,
            "pushes_near_another": self.near,
        }
        self._say()

    def _say(self) -> None:
        limits, pushes = self.report.limits, sum(ring.pushes for ring in self.rings.rings.values())
        limits.append("further writes to a page before its ring entry is reset are not seen, nor are writes by devices")
        if self.rings.partial_resets:
            limits.append(f"{self.rings.partial_resets:,} resets left entries unreset and are not listed as re-arms")
        unmapped = self.report.places.unmapped
        if unmapped:
            why = "no slot map" if not self.mapped else "not in the slot map"
            shown = ", ".join(map(str, unmapped[:8]))
            limits.append(f"{why} (slots {shown}): each such slot is a block of its own, as long as the writes reach")
        if pushes and self.near > pushes // 5:
            turned = "turned round" if self.reverse_ns else "left as printed"
            limits.append(
                f"{self.near / pushes:.0%} of pushes follow another of their ring within 2 us, as batches of a page "
                f"modification log do: their times are those of VM exits, and Linux 6.12 prints them newest first; "
                f"they were {turned}"
            )
        if sorted(self.rings.rings) != list(range(len(self.rings.rings))) and not self.numbers:
            limits.append("ring numbers (vcpu_id) have holes and are taken as vCPU numbers")
