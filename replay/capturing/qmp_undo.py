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
_DONE, _OWN, _NOT_OWN = "done", "own migration begins", "own migration over"
_GUARD_S = 30.0
# Parameters that a capture may set; what it does not set is not put back, so that others may change it meanwhile.
PARAMETERS = ("max-bandwidth", "downtime-limit", "tls-creds")


@dataclass(kw_only=True)
class Found:
    """What was set before."""

    events: dict[str, bool] = field(default_factory=dict)
    capabilities: dict[str, bool] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    instance: str = ""  # the kernel tracer's, made by the capture


def snapshot(monitor: Monitor, events: tuple[str, ...], settings: bool) -> Found:
    """What a capture that sets these trace events, and the settings of migrations or not, has to put back."""
    states = {name: event_state(monitor, name) for name in events}
    found = Found(events={name: state == "enabled" for name, state in states.items() if state is not None})
    if settings:
        listed = monitor.execute("query-migrate-capabilities")
        found.capabilities = {item["capability"]: item["state"] for item in listed}
        parameters = monitor.execute("query-migrate-parameters")
        found.parameters = {name: parameters[name] for name in PARAMETERS if name in parameters}
    return found


def restore(monitor: Monitor, found: Found, own_migration: bool) -> None:
    """Put everything back; a migration that runs is cancelled if it is our own.

    Raises TraceError naming what could not be put back, after having tried the rest.
    """
    failed: list[str] = []
    try:
        remove_instance(found.instance)
    except OSError as error:
        failed.append(f"{found.instance}: {error.strerror}")

    def attempt(what: str, command: str, **arguments: Any) -> None:
        try:
            monitor.execute(command, **arguments)
        except Refused as error:
            failed.append(f"{what}: {error}")

    for name, enable in found.events.items():
        attempt(f"trace event {name}", "trace-event-set-state", name=name, enable=enable)
    if own_migration:
        try:
            cancel(monitor)
        except Refused as error:
            failed.append(f"migration: {error}")
        with contextlib.suppress(Refused):  # it is there only when the capture died between two commands
            monitor.execute("closefd", fdname=FD_NAME)
    put_back_settings(monitor, found, attempt)
    if failed:
        raise TraceError("the guest runs, but QEMU could not be put back as it was: " + "; ".join(failed))


def remove_instance(folder: str) -> None:
    """Take an instance of the tracer away, and with it everything that it had switched on."""
    if folder:
        with contextlib.suppress(FileNotFoundError):
            Path(folder).rmdir()


def put_back_settings(monitor: Monitor, found: Found, attempt: Any) -> None:
    """Capabilities and parameters that are not as they were; `attempt(what, command, ...)` sets them."""
    if found.capabilities:
        now = {item["capability"]: item["state"] for item in monitor.execute("query-migrate-capabilities")}
        before = found.capabilities.items()
        changes = [{"capability": name, "state": on} for name, on in before if now.get(name, on) != on]
        if changes:
            attempt("migration capabilities", "migrate-set-capabilities", capabilities=changes)
    if found.parameters:
        current = monitor.execute("query-migrate-parameters")
        if parameters := {name: value for name, value in found.parameters.items() if current.get(name) != value}:
            attempt("migration parameters", "migrate-set-parameters", **parameters)


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
    `lock`: a file descriptor that the guard keeps open as long as it may have to restore.
    """

    def __init__(self, monitor: Monitor, found: Found, thread: int, lock: int) -> None:
        self.found = found
        self._monitor = monitor
        self._thread = thread
        self._lock = lock
        self._own_migration = False
        self._over = False

    def __enter__(self) -> Undo:
        package = str(Path(__file__).resolve().parents[2])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "replay.capturing.qmp_undo", str(self._monitor.path.absolute())],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, start_new_session=True,
            pass_fds=(self._lock,),
        )  # fmt: skip
        self._tell(json.dumps(asdict(self.found)))
        return self

    def owns_migration(self, own: bool) -> None:
        """Whether a migration that runs from here on is our own, to be cancelled, or somebody else's."""
        self._own_migration = own
        self._tell(_OWN if own else _NOT_OWN)

    @property
    def alive(self) -> bool:
        """Whether QEMU still runs."""
        return Path(f"/proc/{self._thread}").exists()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.restore()

    def restore(self) -> None:
        """Put everything back, once. Raises TraceError naming what could not be."""
        if self._over:
            return
        self._over = restored = True
        try:
            restore(self._monitor, self.found, self._own_migration)
        except Gone:
            restored = not self.alive  # with QEMU all that was set is gone too
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
    line, last, own_migration = sys.stdin.readline(), "", False
    while told := sys.stdin.readline().strip():
        last = told
        own_migration = told == _OWN
    if not line or last == _DONE:
        return 0
    found, end = Found(**json.loads(line)), time.monotonic() + _GUARD_S
    with contextlib.suppress(OSError):
        remove_instance(found.instance)  # also when QEMU has ended too
    while time.monotonic() < end:
        try:
            with Monitor(path) as monitor:
                restore(monitor, found, own_migration)
            return 0
        except ReplayError:
            time.sleep(0.2)
    return 1


if __name__ == "__main__":
    sys.exit(guard(sys.argv[1]))
