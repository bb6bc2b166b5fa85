"""Puts a QEMU back as it was found: migration, its parameters and capabilities, trace events.

`Found` is a snapshot, taken before anything is changed; restoring it is a list of settings, so it may be done twice.
The capture does it when it ends. A guard does it when the capture cannot: a process of its own, deaf to Ctrl-C, that
holds the snapshot and waits at a pipe which closes when the capture dies, however it dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from replay.capturing.qmp import Gone, Monitor, Refused
from replay.capturing.qmp_guest import RUNNING, event_state
from replay.errors import ReplayError, TraceError

FD_NAME = "replay-sink"
CANCEL_S = 20.0
_DONE = "done"
_GUARD_S = 30.0
# Parameters that a capture may set; what it does not set is not put back, so that others may change it meanwhile.
PARAMETERS = ("max-bandwidth", "downtime-limit", "tls-creds")


@dataclass(kw_only=True)
class Found:
    """What was set before. `own_migration`: any migration there is at the end was started by us."""

    events: dict[str, bool] = field(default_factory=dict)
    capabilities: dict[str, bool] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    own_migration: bool = False


def snapshot(monitor: Monitor, events: tuple[str, ...], own_migration: bool) -> Found:
    """What a capture that sets these trace events, and migrates or not, has to put back."""
    states = {name: event_state(monitor, name) for name in events}
    found = Found(events={name: state == "enabled" for name, state in states.items() if state is not None})
    if own_migration:
        found.own_migration = True
        listed = monitor.execute("query-migrate-capabilities")
        found.capabilities = {item["capability"]: item["state"] for item in listed}
        parameters = monitor.execute("query-migrate-parameters")
        found.parameters = {name: parameters[name] for name in PARAMETERS if name in parameters}
    return found


def restore(monitor: Monitor, found: Found) -> None:
    """Put everything back. Raises TraceError naming what could not be, after having tried the rest."""
    failed: list[str] = []

    def attempt(what: str, command: str, **arguments: Any) -> None:
        try:
            monitor.execute(command, **arguments)
        except Refused as error:
            failed.append(f"{what}: {error}")

    for name, enable in found.events.items():
        attempt(f"trace event {name}", "trace-event-set-state", name=name, enable=enable)
    if found.own_migration:
        try:
            cancel(monitor)
        except Refused as error:
            failed.append(f"migration: {error}")
        with contextlib.suppress(Refused):  # it is there only when the capture died between two commands
            monitor.execute("closefd", fdname=FD_NAME)
        set_capabilities(monitor, found.capabilities, attempt)
        if found.parameters:
            attempt("migration parameters", "migrate-set-parameters", **found.parameters)
    if failed:
        raise TraceError("the guest runs, but QEMU could not be put back as it was: " + "; ".join(failed))


def set_capabilities(monitor: Monitor, wanted: dict[str, bool], execute: Any = None) -> None:
    """Set those capabilities that are not as wanted."""
    now = {item["capability"]: item["state"] for item in monitor.execute("query-migrate-capabilities")}
    changes = [{"capability": name, "state": on} for name, on in wanted.items() if now.get(name, on) != on]
    if changes and execute is None:
        monitor.execute("migrate-set-capabilities", capabilities=changes)
    elif changes:
        execute("migration capabilities", "migrate-set-capabilities", capabilities=changes)


def cancel(monitor: Monitor) -> str:
    """End a migration that runs, and wait until it has ended; returns its status."""
    status = str(monitor.execute("query-migrate").get("status", "none"))
    if status not in RUNNING:
        return status
    if status != "cancelling":
        monitor.execute("migrate_cancel")
    end = time.monotonic() + CANCEL_S
    while time.monotonic() < end:
        status = str(monitor.execute("query-migrate").get("status", "none"))
        if status not in RUNNING:
            return status
        time.sleep(0.001)
    raise Refused(f"a migration could not be cancelled within {CANCEL_S:g} s; it is {status}")


class Undo:
    """A context manager around everything that changes a QEMU. `thread`: one of its threads, to tell whether it lives.

    Leaving it restores. Where the connection broke and QEMU did not end, the guard restores over one of its own.
    """

    def __init__(self, monitor: Monitor, found: Found, thread: int) -> None:
        self._monitor = monitor
        self._found = found
        self._thread = thread

    def __enter__(self) -> Undo:
        package = str(Path(__file__).resolve().parents[2])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "replay.capturing.qmp_undo", str(self._monitor.path.absolute())],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, start_new_session=True,
        )  # fmt: skip
        self._tell(json.dumps(asdict(self._found)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        restored = True
        try:
            restore(self._monitor, self._found)
        except Gone:
            restored = not Path(f"/proc/{self._thread}").exists()  # with QEMU all that was set is gone too
            self._monitor.close()
        finally:
            if restored:
                self._tell(_DONE)
            self._end_guard()

    def _tell(self, line: str) -> None:
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(line.encode() + b"\n")
            self._guard.stdin.flush()

    def _end_guard(self) -> None:
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guard.wait(_GUARD_S + 5)


def guard(path: str) -> int:
    """Wait for the capture's end; restore if it did not."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    line = sys.stdin.readline()
    if not line or sys.stdin.readline().strip() == _DONE:
        return 0
    end = time.monotonic() + _GUARD_S
    while time.monotonic() < end:
        try:
            with Monitor(path) as monitor:
                restore(monitor, Found(**json.loads(line)))
            return 0
        except ReplayError:
            time.sleep(0.2)
    return 1


if __name__ == "__main__":
    sys.exit(guard(sys.argv[1]))
