"""A program that is started here, with a userfaultfd of its own memory in our hands; nothing is loaded into it.

How: /bin/sh waits on a named pipe until this process traces it, then executes the program. At that stop, before its
first instruction, two system calls are made in its name: userfaultfd, whose descriptor is taken over (pidfd_getfd) and
closed there again, and prctl to switch huge pages off. From then on it is stopped only where a tracer is told of
something: signals (passed on at once), the next exec (the same again), its end. Tracing belongs to one
thread.

x86-64 only: registers and system call numbers are that architecture's.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import queue
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from replay.errors import TraceError, UsageError

_PEEK, _POKE, _CONT, _STEP, _GETREGS, _SETREGS, _DETACH = 1, 4, 7, 9, 12, 13, 17
_SEIZE, _LISTEN = 0x4206, 0x4208
_TRACE_EXEC, _TRACE_EXIT = 1 << 4, 1 << 6
_EVENT_EXEC, _EVENT_EXIT, _EVENT_STOP = 4, 6, 128
_REGS = struct.Struct("<27Q")
_RAX, _RDX, _RSI, _RDI, _ORIG_RAX, _RIP, _CS = 10, 12, 13, 14, 15, 16, 17
_R10, _R8, _CS_64_BIT, _SYSCALL = 7, 9, 0x33, 0x050F
_SYS_CLOSE, _SYS_PRCTL, _SYS_USERFAULTFD, _SYS_TGKILL, _SYS_PIDFD_GETFD = 3, 157, 323, 234, 438
_PR_SET_THP_DISABLE, _USER_MODE_ONLY = 41, 1
_STOP_SIGNALS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_NUDGE = signal.SIGURG  # makes a traced program stop once more; it does not get to see it
_MASK = (1 << 64) - 1
_SHELL = "/bin/sh"
_EARLY = "it cannot be executed, or was ended before it was"
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long
_libc.syscall.restype = ctypes.c_long


class Began(NamedTuple):
    """A program was executed, and stands until `release`; its memory's userfaultfd is the receiver's to close."""

    uffd: int


class Ending(NamedTuple):
    """It is about to end; its memory is still there until `release`."""


class Ended(NamedTuple):
    """It is over, with this exit code: 128 + signal when a signal ended it."""

    exit_code: int


class Failed(NamedTuple):
    """It cannot be tracked (any more)."""

    why: str


def check_command(command: list[str]) -> None:
    """Raises UsageError for a command that cannot be found, TraceError where none can be tracked."""
    if os.uname().machine != "x86_64":
        raise TraceError(f"programs can be tracked on x86-64 only, not on {os.uname().machine}")
    name = command[0]
    if shutil.which(name) is None:
        hint = "" if "/" in name else f"; one in this folder is written ./{name}"
        raise UsageError(f"{name}: no such command, or not executable{hint}")


class Tracee:
    """The program and the thread that traces it. `events` has what happened; `wake` is called after each."""

    def __init__(self, command: list[str], wake: Callable[[], None], *, to_stderr: bool = False) -> None:
        self.command, self.pid = command, 0
        self.events: queue.SimpleQueue[Began | Ending | Ended | Failed] = queue.SimpleQueue()
        self._wake, self._to_stderr = wake, to_stderr
        self._released, self._leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._trace, name="tracer", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Let a program that has `Began` or is `Ending` go on."""
        self._released.set()

    def send(self, number: int) -> None:
        """Pass a signal to the program."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def leave(self) -> None:
        """Trace no longer; the program goes on as if nothing had been. `Ended` still comes when it ends."""
        self._leave.set()
        self._released.set()
        if self.pid:
            _libc.syscall(ctypes.c_long(_SYS_TGKILL), *(ctypes.c_long(n) for n in (self.pid, self.pid, _NUDGE)))

    def kill(self) -> None:
        """End a program that must not run untracked."""
        self.send(signal.SIGKILL)
        self.leave()

    def _tell(self, event: Began | Ending | Ended | Failed) -> None:
        self.events.put(event)
        self._wake()

    def _trace(self) -> None:
        try:
            self._start()
            self._follow()
        except Exception as error:
            self._tell(Failed(_reason(error)))

    def _start(self) -> None:
        """Start, trace, and let it execute the command."""
        with tempfile.TemporaryDirectory(prefix="replay-") as folder:
            pipe = Path(folder) / "go"
            os.mkfifo(pipe)
            script = 'read _ <"$1"; shift; exec "$@"'
            self._shell = subprocess.Popen(
                [_SHELL, "-c", script, "replay", str(pipe), *self.command], stdout=2 if self._to_stderr else None
            )
            self.pid = self._shell.pid
            go = -1
            try:
                go = self._open_pipe(pipe)
                _ptrace(_SEIZE, self.pid, 0, _TRACE_EXEC | _TRACE_EXIT)
                os.write(go, b"\n")
                self._first_exec()
            except BaseException:
                self._shell.kill()
                with contextlib.suppress(OSError):  # where it stands at its end, a signal does not move it
                    _ptrace(_DETACH, self.pid, 0, 0)
                self._shell.wait()
                self.pid = 0
                raise
            finally:
                if go >= 0:
                    os.close(go)

    def _open_pipe(self, pipe: Path) -> int:
        """The pipe, once the shell has it open: its own exec is over then, and the next is the command's."""
        while self._shell.poll() is None:
            try:
                return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
            time.sleep(0.001)
        raise TraceError(_EARLY)

    def _first_exec(self) -> None:
        while True:
            status = self._wait()
            if not os.WIFSTOPPED(status) or status >> 16 == _EVENT_EXIT:
                raise TraceError(_EARLY)
            if status >> 16 == _EVENT_EXEC:
                self._equip()
                self._hold()
                self._go_on(status)
                return
            self._go_on(status)

    def _follow(self) -> None:
        """Pass everything on until it ends."""
        while True:
            status = self._wait()
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                code = os.waitstatus_to_exitcode(status)
                self._shell.returncode, self.pid = code, 0
                self._tell(Ended(128 - code if code < 0 else code))
                return
            if status >> 16 == _EVENT_EXIT:
                self._tell(Ending())
                self._hold()
            elif status >> 16 == _EVENT_EXEC and not self._leave.is_set():
                try:
                    self._equip()
                    self._hold()
                except Exception as error:
                    self._tell(Failed(_reason(error)))
            if self._leave.is_set():
                stopped_by = 0 if status >> 16 or os.WSTOPSIG(status) == _NUDGE else os.WSTOPSIG(status)
                _ptrace(_DETACH, self.pid, 0, stopped_by)
                self._leave.clear()
                continue
            self._go_on(status)

    def _hold(self) -> None:
        """Until `release`, or for good once it was left."""
        self._released.wait()
        if not self._leave.is_set():
            self._released.clear()

    def _wait(self) -> int:
        return os.waitpid(self.pid, 0)[1]

    def _go_on(self, status: int) -> None:
        event, number = status >> 16, os.WSTOPSIG(status)
        with contextlib.suppress(ProcessLookupError):
            if event == _EVENT_STOP and number in _STOP_SIGNALS:
                _ptrace(_LISTEN, self.pid, 0, 0)  # stays stopped, as its user wanted
            else:
                _ptrace(_CONT, self.pid, 0, 0 if event else number)

    def _equip(self) -> None:
        """At an exec: make the userfaultfd, take it over, switch huge pages off."""
        late: list[int] = []
        self._step(late)  # out of execve, to where the program begins
        regs = _registers(self.pid)
        if regs[_CS] != _CS_64_BIT:
            raise TraceError(f"{self.command[0]}: is a 32-bit program; only 64-bit ones can be tracked")
        remote = self._call(regs, late, _SYS_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK | _USER_MODE_ONLY)
        try:
            uffd = _take_over(self.pid, remote)
        finally:
            self._call(regs, late, _SYS_CLOSE, remote)
        self._call(regs, late, _SYS_PRCTL, _PR_SET_THP_DISABLE, 1)
        _set_registers(self.pid, regs)
        for number in late:
            os.kill(self.pid, number)
        self._tell(Began(uffd))

    def _call(self, regs: list[int], late: list[int], number: int, *arguments: int) -> int:
        """Make a system call in the program's name; its registers and code are as before afterwards."""
        at = regs[_RIP]
        word = _peek(self.pid, at)
        _ptrace(_POKE, self.pid, at, (word & ~0xFFFF) | _SYSCALL)
        try:
            changed = list(regs)
            changed[_RAX], changed[_ORIG_RAX] = number, _MASK
            for place, value in zip((_RDI, _RSI, _RDX, _R10, _R8), (*arguments, 0, 0, 0, 0), strict=False):
                changed[place] = value
            _set_registers(self.pid, changed)
            self._step(late)
            result = ctypes.c_long(_registers(self.pid)[_RAX]).value
        finally:
            _ptrace(_POKE, self.pid, at, word)
            _set_registers(self.pid, regs)
        if result < 0:
            raise OSError(-result, os.strerror(-result), _NAMES.get(number, "system call"))
        return result

    def _step(self, late: list[int]) -> None:
        """One instruction; signals that come meanwhile are kept for later."""
        while True:
            _ptrace(_STEP, self.pid, 0, 0)
            status = self._wait()
            if not os.WIFSTOPPED(status):
                raise TraceError(f"{self.command[0]}: ended before its first instruction")
            if os.WSTOPSIG(status) == signal.SIGTRAP and not status >> 16:
                return
            if not status >> 16:
                late.append(os.WSTOPSIG(status))


_NAMES = {_SYS_USERFAULTFD: "userfaultfd", _SYS_PRCTL: "prctl", _SYS_CLOSE: "close"}


def _reason(error: Exception) -> str:
    """What to tell of an error that stops the tracking."""
    if not isinstance(error, OSError):
        return str(error)
    what = error.filename or "tracing"
    if error.errno in (errno.EPERM, errno.EACCES):
        return f"{what}: not permitted here ({error.strerror}); a sandbox or yama's ptrace_scope may forbid tracing"
    if error.errno == errno.ENOSYS:
        return f"{what}: this kernel does not have it"
    return f"{what}: {error.strerror}"


def _ptrace(request: int, pid: int, address: int, data: int) -> int:
    ctypes.set_errno(0)
    result: int = _libc.ptrace(request, pid, address & _MASK, data & _MASK)
    if result == -1 and (number := ctypes.get_errno()):
        raise OSError(number, os.strerror(number), "ptrace")
    return result


def _peek(pid: int, address: int) -> int:
    return _ptrace(_PEEK, pid, address, 0) & _MASK


def _registers(pid: int) -> list[int]:
    buffer = ctypes.create_string_buffer(_REGS.size)
    _ptrace(_GETREGS, pid, 0, ctypes.addressof(buffer))
    return list(_REGS.unpack(buffer.raw))


def _set_registers(pid: int, regs: list[int]) -> None:
    buffer = ctypes.create_string_buffer(_REGS.pack(*regs), _REGS.size)
    _ptrace(_SETREGS, pid, 0, ctypes.addressof(buffer))


def _take_over(pid: int, remote: int) -> int:
    """A copy of another process's file descriptor."""
    pidfd = os.pidfd_open(pid)
    try:
        ctypes.set_errno(0)
        local: Any = _libc.syscall(
            ctypes.c_long(_SYS_PIDFD_GETFD), ctypes.c_long(pidfd), ctypes.c_long(remote), ctypes.c_long(0)
        )
        if local < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "pidfd_getfd")
        return int(local)
    finally:
        os.close(pidfd)
