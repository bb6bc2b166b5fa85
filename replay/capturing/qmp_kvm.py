"""A guest under KVM: its dirty rings as the kernel's tracer sees them, filled by QEMU's measurements of the dirty rate.

Pages are logged only while something asks for them. A measurement (calc-dirty-rate, mode dirty-ring) does: it
write-protects all pages, empties the rings while it runs, and takes what is left at its end; measurements follow one
another. The tracer works in an instance of its own, on a clock of its own, for the threads of this QEMU alone. Where
slots lie in memory QEMU says (kvm_set_user_memory) when the first measurement begins. The tracer's lines are read by
the importer kvm-ftrace.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from replay.capturing.qmp import Gone, Monitor, Refused
from replay.capturing.qmp_follow import READ_BYTES, Follower
from replay.capturing.qmp_guest import Guest
from replay.capturing.qmp_log import open_log
from replay.errors import TraceError, UsageError
from replay.importing.places import HOST
from replay.importing.streams import Chunk
from replay.importing.tally import Tally

SLOTS = "kvm_set_user_memory"
BUFFER_KB = 8192
MILLISECONDS_SINCE = (8, 2)
SHORTEST_NS, LONGEST_NS, SECOND_NS = 50_000_000, 60_000_000_000, 1_000_000_000
_POINTS = ("kvm_dirty_ring_push", "kvm_dirty_ring_reset", "kvm_dirty_ring_exit")
_MAP_S = 3.0


def check_tracer() -> Path:
    """Where tracefs is mounted. Raises UsageError saying how to have it."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    root = next((Path(words[1]) for words in mounts if words[2] == "tracefs"), None)
    if root is None:
        raise UsageError("the kernel's tracer is not mounted; as root: mount -t tracefs nodev /sys/kernel/tracing")
    if not os.access(root / "instances", os.R_OK | os.W_OK | os.X_OK):
        raise UsageError(f"{root}: no permission; KVM's dirty rings are traced as root")
    if not (root / "events" / "kvm" / _POINTS[0]).is_dir():
        raise UsageError(f"{root}: this kernel has no tracepoint {_POINTS[0]}; Linux 5.11 and later do")
    return root


class Tracer:
    """An instance of the tracer, made in `folder`."""

    def __init__(self, folder: Path, process: int) -> None:
        """Record the ring events of all threads of a process from now on."""
        threads = [entry.name for entry in Path(f"/proc/{process}/task").iterdir()]
        folder.mkdir()
        self._write(folder / "trace_clock", "mono")
        self._write(folder / "buffer_size_kb", str(BUFFER_KB))
        self._write(folder / "set_event_pid", " ".join(threads))
        self._write(folder / "options" / "event-fork", "1")
        for point in _POINTS:
            self._write(folder / "events" / "kvm" / point / "enable", "1")
        self._pipe = os.open(folder / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)

    def _write(self, path: Path, text: str) -> None:
        try:
            path.write_text(text)
        except OSError as error:
            raise TraceError(f"{path}: the tracer does not take {text!r}: {error.strerror}") from None

    def read(self) -> bytes:
        """What has come, not much more than READ_BYTES of it."""
        found = b""
        with contextlib.suppress(BlockingIOError):
            while len(found) < READ_BYTES and (block := os.read(self._pipe, READ_BYTES)):
                found += block
        return found

    def close(self) -> None:
        """Give the file back; Undo removes the instance."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


class RingReader(Follower):
    """Events of the dirty rings: times of CLOCK_MONOTONIC. `map_lines`: QEMU's lines that say where slots lie."""

    def __init__(self, guest: Guest, tracer: Tracer, map_lines: list[bytes]) -> None:
        self._guest = guest
        self._tracer = tracer
        self._map_lines = map_lines
        self._host_page = np.array([block.host_page for block in guest.blocks], np.int64)
        self._n_pages = np.array([block.n_pages for block in guest.blocks], np.int64)
        self._first_page = np.array([block.first_page for block in guest.blocks], np.int64)
        super().__init__("trace_pipe", "kvm-ftrace", {})

    def _dense(self, events: Any) -> tuple[Any, Any, Any]:
        extents = self.report.places.extents
        first = np.array([extent.first if extent.space == HOST else -1 for extent in extents], np.int64)[
            events["extent"]
        ]
        host_page = first + events["offset"].astype(np.int64)
        within = host_page[:, None] - self._host_page[None, :]
        inside = (within >= 0) & (within < self._n_pages[None, :])
        vcpu = events["vcpu"].astype(np.int64)
        known = inside.any(axis=1) & (first >= 0) & (vcpu < self._guest.n_vcpus)
        block = inside.argmax(axis=1)
        page = self._first_page[block] + within[np.arange(len(block)), block]
        self.strangers += int((~known).sum())
        return events["t_ns"][known], page[known], vcpu[known]

    def chunks(self, tally: Tally) -> Iterator[Chunk]:
        """First QEMU's lines, then the tracer's as they come."""
        tally.read += len(self._map_lines)
        yield Chunk(self._guest.log.name, 1, list(self._map_lines))
        yield from super().chunks(tally)

    def _new(self) -> bytes:
        return self._tracer.read()

    def close(self) -> None:
        """Give the tracer's file back."""
        self._tracer.close()


class Measuring:
    """Has QEMU measure the dirty rate again and again; what its rings hold meanwhile is the recording."""

    EVENTS: tuple[str, ...] = (SLOTS,)
    SETTINGS = False
    CLOCK = "CLOCK_MONOTONIC of the host, which runs on while the guest is stopped"
    now_ns = staticmethod(time.monotonic_ns)

    def __init__(self, config: Any) -> None:
        self._interval_ns = min(max(int(config.interval), SHORTEST_NS), LONGEST_NS)
        self._begun_ns = 0
        self._gaps_ns: list[int] = []
        self._n = 0

    def begin(self, session: Any) -> None:
        """Start the tracer and the first measurement, which tells where slots lie."""
        guest, monitor = session.guest, session.monitor
        tracer = Tracer(Path(session.undo.found.instance), guest.process)
        session.before_undo.callback(tracer.close)
        with open_log(guest) as log:
            self._measure(monitor, guest)
            map_lines = _map_lines(log.read)
        monitor.execute("trace-event-set-state", name=SLOTS, enable=session.undo.found.events[SLOTS])
        session.log = RingReader(guest, tracer, map_lines)

    def step(self, session: Any) -> float:
        """Begin the next measurement when one is over."""
        left_ns = self._begun_ns + self._interval_ns - time.monotonic_ns()
        if left_ns > 0:
            return min(left_ns / SECOND_NS, 0.05)
        if session.monitor.execute("query-dirty-rate").get("status") == "measured":
            self._gaps_ns.append(time.monotonic_ns() - self._begun_ns - self._interval_ns)
            self._measure(session.monitor, session.guest)
        return 0.001

    def _measure(self, monitor: Monitor, guest: Guest) -> None:
        arguments: dict[str, Any] = {"calc_time": round(self._interval_ns / 1e6), "calc_time_unit": "millisecond"}
        if guest.older_than(MILLISECONDS_SINCE):
            seconds = max(1, round(self._interval_ns / SECOND_NS))
            arguments, self._interval_ns = {"calc_time": seconds}, seconds * SECOND_NS
        try:
            monitor.execute("calc-dirty-rate", mode="dirty-ring", **arguments)
        except Refused as error:
            raise UsageError(
                f"{error}. Guests under KVM are captured through dirty rings: start QEMU with "
                "-accel kvm,dirty-ring-size=4096"
            ) from None
        self._begun_ns = time.monotonic_ns()
        self._n += 1

    def end(self, session: Any) -> None:
        """Let the last measurement end: it switches logging off. Then the tracer has all there is."""
        with contextlib.suppress(Gone):
            self._wait(session.monitor)
        session.drain()

    def _wait(self, monitor: Monitor) -> None:
        end = self._begun_ns + self._interval_ns + 5 * SECOND_NS
        while time.monotonic_ns() < end:
            if monitor.execute("query-dirty-rate").get("status") == "measured":
                return
            time.sleep(0.005)

    def method(self) -> str:
        """How writes were noticed."""
        return (
            "KVM dirty rings: kernel tracepoint kvm_dirty_ring_push, read while it grew; pages logged by measurements "
            f"of the dirty rate (calc-dirty-rate) of {self._interval_ns / 1e6:g} ms, one after the other"
        )

    def settle(self, session: Any) -> None:
        """What the measurements cost the trace."""
        facts, gaps = session.recorder.facts, np.array(self._gaps_ns or [0])
        facts.notes["measurements"] = {
            "n": self._n,
            "median_gap_ns": int(np.median(gaps)),
            "max_gap_ns": int(gaps.max()),
        }
        facts.limits.append(f"nothing is logged between two measurements, for {np.median(gaps) / 1e6:.1f} ms (median)")


def _map_lines(read: Any) -> list[bytes]:
    """QEMU's lines that say where slots lie; they come when the first measurement switches logging on."""
    text, end = b"", time.monotonic() + _MAP_S
    while time.monotonic() < end:
        new = read(READ_BYTES)
        text += new
        lines = [line for line in text.split(b"\n")[:-1] if f"{SLOTS} ".encode() in line]
        if lines and not new:
            return lines
        time.sleep(0.02)
    raise TraceError(f"QEMU did not log where its memory slots lie ({SLOTS}) within {_MAP_S:g} s")
