"""qemu-simpletrace: the binary file of QEMU's simple trace backend, whichever byte order.

What: the same events as qemu-log, with nanoseconds. It names a process, not a thread: TCG stores are all vCPU 0's.
How: a header, then records: a mapping gives an event's number its name, an event has a time, a length and arguments,
and a dropped-events record counts what its buffer could not hold: those are lost events. Runs of one kind of page event
are decoded as one array. Cost: O(bytes), a block in memory. Bad for: a file damaged in the middle. Records have no mark
to find the next one by, so the rest is given up, and counted as lost by its size.

Models: QEMU trace/simple.c, version 4 of the file (QEMU 2.10 and later).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from replay.errors import TraceError
from replay.importing import qemu
from replay.importing.places import parse_part
from replay.importing.report import Batch, Report
from replay.importing.streams import BLOCK_BYTES, Sources
from replay.importing.tally import Tally
from replay.plugins import param

HOW = """how to record (QEMU configured with --enable-trace-backends=simple; distributions often have log alone):
  printf '%s\\n' memory_notdirty_write_access migration_bitmap_sync_end cpu_throttle_set kvm_set_user_memory \\
      > /tmp/events
  qemu-system-x86_64 -trace events=/tmp/events,file=/tmp/guest.trace ...
then, while recording, migrate and cancel every 100 ms, or calc_dirty_rate, as qemu-log --help says, and
  replay import qemu-simpletrace /tmp/guest.trace -o guest.parquet
its buffer holds some 5,000 records and drops what comes faster: what it dropped is counted, and too much is an error
"""

MAGIC = 0xF2B177CB0AA429B4
HEADER_ID = (1 << 64) - 1
DROPPED_ID = (1 << 64) - 2
VERSION = 4
MAPPING, EVENT = 0, 1
EVENT_HEAD = 32  # type, then id, time, length and pid; the length counts all but the type
MAX_RECORD = 1 << 16
RUN = 1 << 14


@dataclass(frozen=True, kw_only=True)
class Config:
    blocks: str = param("", "RAM blocks at their ram_addr: BLOCK@ADDRESS+SIZE,... (info ramblock)")
    ring_slot: str = param("", "where kvm_dirty_ring_page's offsets count from: BLOCK@OFFSET+SIZE")


def check(config: Config) -> None:
    """Raises UsageError for maps that cannot be read."""
    qemu.Blocks(config.blocks)
    if config.ring_slot.strip():
        parse_part(config.ring_slot, "--ring-slot")


def read(config: Config, sources: Sources, report: Report) -> Iterator[Batch]:
    """The page events of all files, in batches."""
    report.tally = Tally("record")
    events = qemu.Events(report, config.ring_slot, config.blocks)
    met: Counter[int] = Counter()
    for name in sources.names:
        with sources.open(name) as stream:
            yield from _File(name, stream, events, met).batches()
    events.finish()
    qemu.threads(report, {}, met)
    report.clock = "the host's monotonic clock, which runs on while the guest is stopped"


class _File:
    """One file: a window of bytes that moves along, and the names of event numbers."""

    def __init__(self, name: str, stream: IO[bytes], events: qemu.Events, met: Counter[int]) -> None:
        self.name = name
        self.stream = stream
        self.events = events
        self.report = events.report
        self.tally = events.report.tally
        self.met = met
        self.data = b""
        self.at = 0
        self.passed = 0  # bytes before the window
        self.names: dict[int, str] = {}
        self.order = "<"

    def _have(self, n: int) -> bool:
        """Whether n bytes are in the window from here on, after reading more."""
        while len(self.data) - self.at < n:
            more = self.stream.read(BLOCK_BYTES)
            if not more:
                return False
            self.passed += self.at
            self.data, self.at = self.data[self.at :] + more, 0
        return True

    @property
    def where(self) -> str:
        return f"{self.name} at byte {self.passed + self.at:,}"

    def batches(self) -> Iterator[Batch]:
        """Check the header, then all records. Raises TraceError for what is no such file."""
        self._header()
        batch = Batch()
        while self._have(1):
            if not self._record(batch):
                self._give_up()
                break
            if len(batch) >= RUN:
                yield batch
                batch = Batch()
        yield batch

    def _header(self) -> None:
        if not self._have(24):
            raise TraceError(f"{self.name}: too short for a file of QEMU's simple trace backend (24 bytes of header)")
        for self.order in "<>":
            first, magic, version = struct.unpack_from(self.order + "QQQ", self.data)
            if (first, magic) == (HEADER_ID, MAGIC):
                break
        else:
            raise TraceError(
                f"{self.name}: not a file of QEMU's simple trace backend (its first 16 bytes say otherwise)"
            )
        if version != VERSION:
            raise TraceError(f"{self.name}: version {version} of the simple trace format; only {VERSION} is known")
        self.at = 24

    def _record(self, batch: Batch) -> bool:
        """One record, or a run of page events. False: damage."""
        if not self._have(8):
            return False
        (kind,) = struct.unpack_from(self.order + "Q", self.data, self.at)
        if kind == MAPPING:
            return self._mapping()
        if kind != EVENT or not self._have(EVENT_HEAD):
            return False
        number, t_ns, length, _ = struct.unpack_from(self.order + "QQII", self.data, self.at + 8)
        if not EVENT_HEAD - 8 <= length <= MAX_RECORD or not self._have(8 + length):
            return False
        name = "dropped" if number == DROPPED_ID else self.names.get(number)
        if name in (qemu.STORE, qemu.RING_PAGE) and length == EVENT_HEAD - 8 + 24:
            self._run(name, number, length, batch)
            return True
        text = self.data[self.at + EVENT_HEAD : self.at + 8 + length]
        self.tally.read += 1
        reason = self._single(name, t_ns, text)
        if reason is not None:
            self.tally.drop(reason, self.where)
        self.at += 8 + length
        return True

    def _mapping(self) -> bool:
        if not self._have(20):
            return False
        number, length = struct.unpack_from(self.order + "QI", self.data, self.at + 8)
        if length > 1024 or not self._have(20 + length):
            return False
        self.names[number] = self.data[self.at + 20 : self.at + 20 + length].decode("ascii", "replace")
        self.tally.read += 1
        self.tally.other["names of events"] += 1
        self.at += 20 + length
        return True

    def _single(self, name: str | None, t_ns: int, text: bytes) -> str | None:
        """A record by itself; returns why it was dropped, if it was."""
        if name is None:
            return "an event whose name the file does not give"
        if name == "dropped":
            if len(text) < 8:
                return "damaged: dropped-events record"
            self.tally.lost["records that QEMU dropped"] += struct.unpack_from(self.order + "Q", text)[0]
            self.tally.other["dropped-events records"] += 1
            return None
        if name not in qemu.ARGUMENTS:
            self.tally.other["other events"] += 1
            return None
        values = self._arguments(qemu.ARGUMENTS[name], text)
        if values is None or name in (qemu.STORE, qemu.RING_PAGE):
            return f"damaged: {name}"
        if reason := self.report.late(t_ns):
            return reason
        if name == qemu.SLOT_MAP:
            result = values[8] - (1 << 64 if values[8] >> 63 else 0)
            if not qemu.slot_map(self.report.places, tuple(values[:6]), result):
                return f"damaged: {name}"
        self.events.note(name, t_ns, values[0] if values else None)
        return None

    def _arguments(self, kinds: str, text: bytes) -> list[Any] | None:
        """Arguments of a record: integers and texts. None: they do not fit."""
        values: list[Any] = []
        at = 0
        for kind in kinds:
            size = 8 if kind == "u" else 4
            if at + size > len(text):
                return None
            number = int.from_bytes(text[at : at + size], "little" if self.order == "<" else "big")
            at += size
            if kind == "u":
                values.append(number)
            elif at + number > len(text):
                return None
            else:
                values.append(text[at : at + number].decode("utf-8", "replace"))
                at += number
        return values

    def _run(self, name: str, number: int, length: int, batch: Batch) -> None:
        """As many records like this one as follow each other in the window."""
        shape = np.dtype(
            [("type", "u8"), ("id", "u8"), ("t_ns", "u8"), ("length", "u4"), ("pid", "u4"), ("args", "u8", (3,))]
        ).newbyteorder("<" if self.order == "<" else ">")
        most = min((len(self.data) - self.at) // (8 + length), RUN)
        found = np.frombuffer(self.data, shape, most, self.at)
        same = (found["type"] == EVENT) & (found["id"] == number) & (found["length"] == length)
        n = most if same.all() else int(np.argmin(same))
        for t_ns, args in zip(found["t_ns"][:n].tolist(), found["args"][:n].tolist(), strict=True):
            self.tally.read += 1
            if reason := self.report.late(t_ns) or self._page(name, t_ns, args, batch):
                self.tally.drop(reason, self.where)
            self.at += 8 + length

    def _page(self, name: str, t_ns: int, args: list[int], batch: Batch) -> str | None:
        if name == qemu.STORE:
            reason = self.events.store(batch, t_ns, args[1], qemu.NO_THREAD)
            caller = qemu.NO_THREAD
        else:
            reason = self.events.ring_page(batch, t_ns, args[0], args[1], args[2])
            caller = qemu.NO_THREAD + 1 + args[0]
        if reason is None:
            self.met[caller] += 1
        return reason

    def _give_up(self) -> None:
        """The rest cannot be told apart: count it as one dropped record, and as lost what may be in it."""
        begin = self.where
        left = len(self.data) - self.at
        while more := self.stream.read(BLOCK_BYTES):
            left += len(more)
        self.tally.read += 1
        self.tally.drop("cut off, or damaged: nothing after this can be told apart", begin)
        if left >= 2 * EVENT_HEAD:
            self.tally.lost[f"bytes after the damage, as records of {EVENT_HEAD + 24}"] += left // (EVENT_HEAD + 24)
