"""Re-arms all pages of a guest under TCG: a migration into nothing is started and cancelled at once.

Its first bitmap sync makes every page clean again, so that the next write to each is reported; what follows the sync is
not wanted. QEMU gets one end of a socket pair by QMP, so it opens no file and starts no program. The other end is read
slowly: the migration can send next to nothing, and can not hang either while it holds QEMU's main lock. It cannot
complete: it has to ask before the switchover, and nobody answers.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from replay.capturing.qmp import Monitor, Refused
from replay.capturing.qmp_undo import FD_NAME, cancel, set_capabilities
from replay.errors import TraceError, UsageError

SETUP_S = 20.0
_READ_BYTES = 1 << 16
_READ_EVERY_S = 0.005
_PAUSE = "pause-before-switchover"


def prepare(monitor: Monitor) -> None:
    """Capabilities and parameters for a migration into nothing; what was set before must be restored by the caller."""
    listed = monitor.execute("query-migrate-capabilities")
    off = {item["capability"]: False for item in listed if item["state"] and item["capability"] != "events"}
    set_capabilities(monitor, {**off, _PAUSE: True})
    if monitor.execute("query-migrate-parameters").get("tls-creds"):
        monitor.execute("migrate-set-parameters", tls_creds="")


def rearm(monitor: Monitor) -> None:
    """One start, sync and cancel. Raises UsageError when this guest cannot be migrated, TraceError when it fails."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            monitor.send_fd(FD_NAME, theirs.fileno())
        over = threading.Event()
        reader = threading.Thread(target=_read, args=(ours, over), daemon=True)
        reader.start()
        try:
            _start(monitor)
            _wait_for_the_sync(monitor)
        finally:
            cancel(monitor)
            over.set()
            with contextlib.suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)
            reader.join()


def _start(monitor: Monitor) -> None:
    try:
        monitor.execute("migrate", uri=f"fd:{FD_NAME}")
    except Refused as error:
        raise UsageError(
            f"pages are armed again by a migration that is cancelled, and this guest cannot be migrated: {error}"
        ) from None


def _wait_for_the_sync(monitor: Monitor) -> None:
    end = time.monotonic() + SETUP_S
    while time.monotonic() < end:
        now = monitor.execute("query-migrate")
        if now.get("status") == "failed":
            why = now.get("error-desc", "no reason given")
            raise TraceError(f"the migration that arms all pages again failed: {why}")
        if now.get("status") not in ("none", "setup", None):
            return
        time.sleep(0.001)
    raise TraceError(f"the migration that arms all pages again did not begin within {SETUP_S:g} s")


def _read(end: socket.socket, over: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while end.recv(_READ_BYTES) and not over.wait(_READ_EVERY_S):
            pass
