"""QEMU's log, followed while it grows, as events with dense pages. Its lines are read by the importer qemu-log."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from replay.capturing.qmp import Monitor
from replay.capturing.qmp_follow import READ_BYTES, Follower
from replay.capturing.qmp_guest import PAGE, STORE, Guest, event_state
from replay.errors import TraceError, UsageError
from replay.importing.qemu import NO_THREAD
from replay.importing.streams import Chunk
from replay.importing.tally import Tally

PROBE = "handle_qmp_command"
_PROBE_S = 2.0
_NEEDLE = f":{STORE} ".encode(), f" {STORE} ".encode()


def open_log(guest: Guest) -> IO[bytes]:
    """The log at its end. Raises UsageError when it cannot be read."""
    try:
        if guest.log.exists() and not guest.log.is_file():
            raise OSError(None, "is no regular file")
        file = guest.log.open("rb", buffering=0)
    except OSError as error:
        raise UsageError(f"{guest.log}: QEMU's log cannot be followed: {error.strerror}; see --log") from None
    file.seek(0, 2)
    return file


@contextlib.contextmanager
def alone(guest: Guest) -> Iterator[int]:
    """Hold the lock (flock) on QEMU's log, which every capture of a guest reads, whatever QMP socket it uses.

    Yields its file descriptor: a process that inherits it holds the lock too. When the last holder ends, however it
    ends, the lock is gone. Raises UsageError when another capture of the guest holds it.
    """
    with open_log(guest) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{guest.log}: another capture of this guest is running; wait until it has ended, or end it (Ctrl-C)"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield file.fileno()


def check_log(monitor: Monitor, guest: Guest) -> None:
    """Let QEMU log one line, and see that it comes with its time. Raises UsageError saying what is missing."""
    with open_log(guest) as file:
        state = event_state(monitor, PROBE)
        monitor.execute("trace-event-set-state", name=PROBE, enable=True)
        try:
            monitor.execute("query-status")
        finally:
            monitor.execute("trace-event-set-state", name=PROBE, enable=state == "enabled")
        text, end = b"", time.monotonic() + _PROBE_S
        while PROBE.encode() not in text and time.monotonic() < end:
            text += file.read(READ_BYTES) or b""
            time.sleep(0.01)
    line = next((line for line in text.splitlines() if PROBE.encode() in line), None)
    if line is None:
        raise UsageError(
            f"{guest.log}: trace events do not arrive there. QEMU needs the trace backend 'log' (Debian's has it) and "
            "-D FILE; if its log goes elsewhere, say so with --log"
        )
    if line.startswith(PROBE.encode()):
        raise UsageError(f"{guest.log}: its lines have no times; start QEMU with -msg timestamp=on")


class LogReader(Follower):
    """Events of a log from now on: times since 1970, threads that are no vCPU's are strangers."""

    def __init__(self, guest: Guest, keep_others: bool = False) -> None:
        self._keep = keep_others
        self._guest = guest
        self._file = open_log(guest)
        self._at = self._file.tell()
        threads = ",".join(f"{thread}={vcpu}" for thread, vcpu in guest.threads.items())
        super().__init__(guest.log.name, "qemu-log", {"blocks": _spelled(guest), "threads": threads})

    def _dense(self, events: Any) -> tuple[Any, Any, Any]:
        bases = self.report.places.layout(None).base
        page = bases[events["extent"]] + events["offset"].astype(np.int64)
        threads = {NO_THREAD: 0, **self._guest.threads}
        keys = np.array(sorted(threads), np.int64)
        at = np.minimum(np.searchsorted(keys, events["vcpu"]), len(keys) - 1)
        known = keys[at] == events["vcpu"]
        self.strangers += int((~known).sum())
        vcpu = np.array([threads[key] for key in keys.tolist()], np.int64)[at]
        return events["t_ns"][known], page[known], vcpu[known]

    def chunks(self, tally: Tally) -> Iterator[Chunk]:
        """The lines as they come; those of other events are kept, if so asked."""
        for chunk in super().chunks(tally):
            if self._keep:
                lines = (line for line in chunk.lines if line is not None)
                self.others.extend(line for line in lines if not any(needle in line[:80] for needle in _NEEDLE))
            yield chunk

    def _new(self) -> bytes:
        """At most READ_BYTES. A log that was cut off meanwhile is an error."""
        size = self._guest.log.stat().st_size if self._guest.log.exists() else 0
        if size < self._at:
            raise TraceError(f"{self._guest.log}: became shorter while it was followed; what was written is lost")
        found = self._file.read(READ_BYTES)
        self._at += len(found)
        return found

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


def _spelled(guest: Guest) -> str:
    """The RAM blocks as the importer takes them, under numbers: QEMU's names may hold what separates there."""
    parts = [f"{n}@{b.ram_page * PAGE}+{b.n_pages * PAGE}" for n, b in enumerate(guest.blocks)]
    return ",".join(parts)
