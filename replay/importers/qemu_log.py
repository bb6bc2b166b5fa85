"""qemu-log: trace events in QEMU's log, with either form of time stamp, or none.

What: memory_notdirty_write_access (TCG) and kvm_dirty_ring_page become events; the ends of syncs, or reaps, become the
re-arms; throttle events mark the trace. How: one line is one event; the thread that wrote it is the vCPU (numbered in
the order of thread ids, as QEMU makes them, unless --threads says otherwise). QEMU 10.2 prints UTC times and no thread:
all is given to vCPU 0. Without times events are put --step apart, which keeps their order and nothing else. Cost: a few
microseconds a line, bounded memory. Bad for: kvm_dirty_ring_page with several logged slots, because QEMU does not print
the slot: that is refused.

Models: QEMU 7.2 to 10.2, util/log.c and the log trace backend.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from replay.errors import TraceError
from replay.importing import lines, qemu
from replay.importing.places import parse_numbers, parse_part
from replay.importing.report import Batch, Report
from replay.importing.streams import Sources
from replay.plugins import param

HOW = """how to record (TCG guests need QEMU 9.0 or later: 7.2 misses writes):
  printf '%s\\n' memory_notdirty_write_access migration_bitmap_sync_start migration_bitmap_sync_end \\
      cpu_throttle_set kvm_set_user_memory > /tmp/events
  qemu-system-x86_64 -accel tcg,thread=multi -trace events=/tmp/events -D /tmp/guest.log -msg timestamp=on ...
or in a running QEMU's monitor: trace-event memory_notdirty_write_access on
each page is reported once after every sync: migrate while recording (a migration to exec:cat>/dev/null, cancelled and
started again every 100 ms, re-arms all pages each time), then
  replay import qemu-log /tmp/guest.log -o guest.parquet
several RAM blocks (info ramblock): --blocks pc.ram@0+1G,vga.vram@1G+16M
KVM guests: prefer kvm-ftrace; kvm_dirty_ring_page does not say which slot a page is in
"""

MAX_WRITERS = 8191
NO_TIME = "no time stamp, where others have one"
_PREFIX = rb"^(?:(\d{1,10})@(\d{1,10})\.(\d{6}):|(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z )?"
_STORE = re.compile(
    _PREFIX + rb"memory_notdirty_write_access 0x[0-9a-f]{1,16} ram_addr 0x([0-9a-f]{1,16}) size \d{1,5}\s*$"
)
_ANY = re.compile(_PREFIX + rb"([a-z][a-z0-9]*(?:_[a-z0-9]+)+)(?: (.*))?$", re.DOTALL)
_RING_PAGE = re.compile(rb"vcpu (\d{1,9}) fetch (\d{1,10}) offset 0x([0-9a-f]{1,16})\s*$")
_SHAPES = {
    "migration_bitmap_sync_start": re.compile(rb"\s*$"),
    "migration_bitmap_sync_end": re.compile(rb"dirty_pages (\d{1,20})\s*$"),
    "kvm_dirty_ring_reap": re.compile(rb"reaped (\d{1,20}) pages"),
    "kvm_dirty_ring_full": re.compile(rb"vcpu (\d{1,9})\s*$"),
    "cpu_throttle_set": re.compile(rb"set guest CPU throttled by (\d{1,3})%"),
    "migrate_set_state": re.compile(rb"new state ([\w-]{1,40})"),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    threads: str = param("", "vCPU of each thread: THREAD=VCPU,... (info cpus; default: in the order of their ids)")
    blocks: str = param("", "RAM blocks at their ram_addr: BLOCK@ADDRESS+SIZE,... (info ramblock)")
    ring_slot: str = param("", "where kvm_dirty_ring_page's offsets count from: BLOCK@OFFSET+SIZE")
    step: int = param(1000, "time between events of a log without times", unit="ns", low=1, high=1_000_000_000)


def check(config: Config) -> None:
    """Raises UsageError for maps that cannot be read."""
    parse_numbers(config.threads, "--threads")
    qemu.Blocks(config.blocks)
    if config.ring_slot.strip():
        parse_part(config.ring_slot, "--ring-slot")


def read(config: Config, sources: Sources, report: Report) -> Iterator[Batch]:
    """The page events, in batches of a chunk of lines."""
    reader = _Reader(config, report)
    yield from lines.batches(sources, report, reader.line)
    reader.finish()


class _Reader:
    """State over lines: which form of times, what the day's second is, who wrote."""

    def __init__(self, config: Config, report: Report) -> None:
        self.report = report
        self.tally = report.tally
        self.events = qemu.Events(report, config.ring_slot, config.blocks)
        self.given = parse_numbers(config.threads, "--threads")
        self.step_ns = config.step
        self.form: str | None = None  # "thread", "utc" or "none", as the first event has it
        self.untimed_ns = 0
        self.met: Counter[int] = Counter()
        self.day = (b"", 0)  # the last UTC second's text, and its time in seconds

    def line(self, line: bytes, batch: Batch) -> str | None:
        """Take one line; returns why it was dropped, if it was."""
        match = _STORE.match(line)
        if match is None:
            return self._other(line, batch)
        t_ns, reason = self._time(match)
        if reason is not None:
            return reason
        ram_addr = int(match[6], 16)
        thread = int(match[1]) if match[1] else qemu.NO_THREAD
        if thread > qemu.NO_THREAD:
            return "damaged: thread id"
        if thread not in self.met and len(self.met) == MAX_WRITERS:
            raise TraceError(f"more than {MAX_WRITERS:,} threads wrote; this is no log of one guest")
        reason = self.events.store(batch, t_ns, ram_addr, thread)
        if reason is None:
            self.met[thread] += 1
        return reason

    def _time(self, match: re.Match[bytes]) -> tuple[int, str | None]:
        """(time, why the line must be dropped)."""
        seconds, fraction, utc, utc_fraction = match[2], match[3], match[4], match[5]
        if seconds is not None:
            form, t_ns = "thread", int(seconds) * 10**9 + int(fraction) * 1000
        elif utc is not None:
            second = self._utc(utc)
            if second is None:
                return 0, "damaged: no such date"
            form, t_ns = "utc", second * 10**9 + int((utc_fraction or b"0").ljust(9, b"0"))
        else:
            form, t_ns = "none", self.untimed_ns
            self.untimed_ns += self.step_ns
        if self.form is None:
            self.form = form
        elif (form == "none") != (self.form == "none"):
            return 0, NO_TIME if form == "none" else "a time stamp, where others have none"
        return t_ns, self.report.late(t_ns)

    def _utc(self, text: bytes) -> int | None:
        if text != self.day[0]:
            try:
                when = datetime.datetime.fromisoformat(text.decode() + "+00:00")
            except ValueError:
                return None
            self.day = (text, int(when.timestamp()))
        return self.day[1] if self.day[1] >= 0 else None

    def _other(self, line: bytes, batch: Batch) -> str | None:
        match = _ANY.match(line)
        timed = match is not None and (match[2] or match[4]) is not None
        if match is None or not (timed or match[6].decode() in qemu.ARGUMENTS):
            return self._plain(line, match)
        event, message = match[6].decode(), match[7] or b""
        if event == qemu.SLOT_MAP:
            if not qemu.set_user_memory(line, self.report.places):
                return f"damaged: {event}"
            self.tally.other["slot map lines"] += 1
            return None
        if event == qemu.RING_PAGE:
            return self._ring_page(match, message, batch)
        if event not in qemu.ARGUMENTS:
            damaged = qemu.STORE.startswith(event) or event.startswith(qemu.STORE)
            self.tally.other["other events"] += not damaged
            return f"damaged: {qemu.STORE}" if damaged else None
        shape = _SHAPES.get(event)
        found = shape.match(message) if shape is not None else None
        if event == qemu.STORE or (shape is not None and found is None):
            return f"damaged: {event}"
        t_ns = None
        if timed:
            t_ns, reason = self._time(match)
            if reason is not None:
                return reason
        text = found[1].decode() if found is not None and found.groups() else ""
        self.events.note(event, t_ns, int(text) if text.isdigit() else text)
        return None

    def _ring_page(self, match: re.Match[bytes], message: bytes, batch: Batch) -> str | None:
        found = _RING_PAGE.match(message)
        if found is None:
            return f"damaged: {qemu.RING_PAGE}"
        t_ns, reason = self._time(match)
        if reason is not None:
            return reason
        vcpu = int(found[1])
        reason = self.events.ring_page(batch, t_ns, vcpu, int(found[2]), int(found[3], 16))
        if reason is None:
            self.met[qemu.NO_THREAD + 1 + vcpu] += 1
        return reason

    def _plain(self, line: bytes, match: re.Match[bytes] | None) -> str | None:
        """A line that is no event we know: QEMU's own messages, blank lines, or damage."""
        text = line.strip()
        if not text:
            self.tally.other["blank lines"] += 1
        elif text.startswith(b"qemu") and b": " in text[:120]:
            self.tally.other["messages of QEMU"] += 1
        elif match is not None and self.form == "none":
            self.tally.other["other events"] += 1
        else:
            return "not a line of QEMU's log"
        return None

    def finish(self) -> None:
        """Number the vCPUs and say what the times are."""
        report = self.report
        self.events.finish()
        qemu.threads(report, self.given, self.met)
        if self.form == "none":
            report.clock = f"none: events are put {self.step_ns} ns apart"
            report.limits.append(
                "the log has no times: only the order of events is true (record with -msg timestamp=on)"
            )
        else:
            report.clock = "the host's real-time clock, which runs on while the guest is stopped"
            report.wall_clock = True
