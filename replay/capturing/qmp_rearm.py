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
from replay.capturing.qmp_guest import RUNNING
from replay.capturing.qmp_undo import FD_NAME, Found, Undo, cancel, put_back_settings
from replay.errors import TraceError, UsageError

SETUP_S = 20.0
_READ_BYTES = 1 << 16
_READ_EVERY_S = 0.005
_PAUSE = "pause-before-switchover"


def rearm(monitor: Monitor, undo: Undo) -> bool:
    """One start, sync and cancel. False: somebody else migrates this guest, so nothing was done.

    The settings are those of such a migration only meanwhile, so that whoever starts a migration in between finds his
    own. Raises UsageError when this guest cannot be migrated, TraceError when it fails.
    """
    if monitor.execute("query-migrate").get("status") in RUNNING:
        return False
    _set_up(monitor, undo.found)
    ours, theirs = socket.socketpair()
    with ours:
        over = threading.Event()
        reader = threading.Thread(target=_read, args=(ours, over), daemon=True)
        with theirs:
            monitor.send_fd(FD_NAME, theirs.fileno())
        reader.start()
        try:
            _start(monitor, undo)
            _wait_for_the_sync(monitor)
            cancel(monitor)
            undo.owns_migration(False)
        finally:
            over.set()
            with contextlib.suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)
            reader.join()
    put_back_settings(monitor, undo.found, lambda _, command, **arguments: monitor.execute(command, **arguments))
    return True


def _set_up(monitor: Monitor, found: Found) -> None:
    """Settings for a migration into nothing: no capabilities but that it has to ask before the switchover, no TLS."""
    off = {name: False for name, on in found.capabilities.items() if on and name != "events"}
    changes = [{"capability": name, "state": on} for name, on in {**off, _PAUSE: True}.items()]
    monitor.execute("migrate-set-capabilities", capabilities=changes)
    if found.parameters.get("tls-creds"):
        monitor.execute("migrate-set-parameters", tls_creds="")


def _start(monitor: Monitor, undo: Undo) -> None:
    undo.owns_migration(True)
    try:
        monitor.execute("migrate", uri=f"fd:{FD_NAME}")
    except Refused as error:
        undo.owns_migration(False)
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
