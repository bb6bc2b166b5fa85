"""QEMU's monitor, one command at a time: the client of the library qemu.qmp, with time limits and plain errors."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import stat
from pathlib import Path
from typing import Any

from replay.errors import TraceError, UsageError

LIBRARY = "qemu.qmp"
GREETING_S = 5.0
COMMAND_S = 20.0
INSTALL = f"capture qemu needs the library {LIBRARY}, which is not installed: pip install {LIBRARY}"


class Gone(TraceError):
    """The connection to QEMU broke: it ended, or hangs."""


class Refused(TraceError):
    """QEMU answered a command with an error."""


class Monitor:
    """A connection to a QMP socket; a context manager. Not for several threads."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Connect. Raises UsageError naming what is wrong with the socket."""
        if not str(path):
            raise UsageError("--qmp SOCKET is missing: the socket of QEMU's -qmp unix:SOCKET,server=on,wait=off")
        self.path = Path(path)
        _check_socket(self.path)
        from qemu.qmp import ConnectError, QMPClient

        logging.getLogger(LIBRARY).addHandler(logging.NullHandler())
        self._closed = False
        self._runner = asyncio.Runner()
        self._client: Any = QMPClient("replay")
        try:
            self._runner.run(asyncio.wait_for(self._client.connect(str(self.path)), GREETING_S))
        except BaseException as error:
            self._runner.close()
            if isinstance(error, TimeoutError):
                raise UsageError(
                    f"{self.path}: no greeting within {GREETING_S:g} s. Either this is no QMP socket, or another "
                    "client is connected to it: QEMU serves one at a time, so give it a second -qmp socket"
                ) from None
            if isinstance(error, ConnectError):
                raise UsageError(f"{self.path}: {_why(error)}") from None
            raise

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """What a QMP command returns; `_` in the names of arguments stands for `-`. Raises Refused and Gone."""
        from qemu.qmp import ExecuteError, QMPError

        given = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            waiting = asyncio.wait_for(self._client.execute(command, given or None), COMMAND_S)
            return self._runner.run(waiting)
        except ExecuteError as error:
            raise Refused(f"QEMU refuses {command}: {error}") from None
        except TimeoutError:
            raise Gone(f"QEMU does not answer {command} within {COMMAND_S:g} s") from None
        except (QMPError, OSError, EOFError):
            raise Gone(f"the connection to QEMU ended at {command}") from None

    def human(self, line: str) -> str:
        """What the human monitor prints for a command."""
        return str(self.execute("human-monitor-command", command_line=line))

    def send_fd(self, name: str, fd: int) -> None:
        """Hand QEMU an open file under a name, for URIs of the form fd:NAME."""
        try:
            self._client.send_fd_scm(fd)
        except OSError as error:
            raise Gone(f"the connection to QEMU ended: {error.strerror or error}") from None
        self.execute("getfd", fdname=name)

    def close(self) -> None:
        """Disconnect; QEMU then takes another client."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(Exception):
            self._runner.run(asyncio.wait_for(self._client.disconnect(), GREETING_S))
        self._runner.close()


def _check_socket(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise UsageError(f"{path}: no such socket; start QEMU with -qmp unix:{path},server=on,wait=off") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    if not stat.S_ISSOCK(mode):
        raise UsageError(f"{path}: is no unix socket; give the one of QEMU's -qmp unix:SOCKET,server=on,wait=off")
    if importlib.util.find_spec("qemu") is None or importlib.util.find_spec(LIBRARY) is None:
        raise UsageError(INSTALL)


def _why(error: Any) -> str:
    cause = error.exc
    if isinstance(cause, ConnectionRefusedError):
        return "nobody listens there any more; is that QEMU still running?"
    if isinstance(cause, OSError):
        return cause.strerror or str(cause)
    return "whoever listens there does not speak QMP; give the socket of QEMU's -qmp, not of -monitor or -serial"
