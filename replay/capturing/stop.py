"""When a capture ends: its time is over, or somebody asked with Ctrl-C (SIGINT) or SIGTERM.

A signal only counts: what a capture holds open (a guest, a program, a half-written trace) is put away by the capture
itself, at a moment when it can. The third signal is Python's again, for a capture that does not come to its end.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE = 2  # signals that are only counted


class Stop:
    """Asked by `ask`, by a signal while `listening`, or by the time `duration_ns` after `start` (0: never)."""

    def __init__(self, duration_ns: int = 0) -> None:
        self.duration_ns = duration_ns
        self.requests = 0  # how often it was asked; the end of the duration is not counted
        self.signal = signal.SIGINT  # the last one that asked
        self.started_ns = time.monotonic_ns()
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def start(self) -> None:
        """The duration counts from now on."""
        self.started_ns = time.monotonic_ns()

    def ask(self) -> None:
        """Stop as soon as possible; from any thread or signal handler."""
        self.requests += 1
        self.wake()

    def wake(self) -> None:
        """End a `wait` now, without asking to stop."""
        with contextlib.suppress(OSError):
            os.write(self._write, b"x")

    @property
    def time_is_over(self) -> bool:
        """Whether the duration has passed."""
        return bool(self.duration_ns) and time.monotonic_ns() - self.started_ns >= self.duration_ns

    @property
    def asked(self) -> bool:
        """Whether to stop, for either reason."""
        return self.requests > 0 or self.time_is_over

    @property
    def reason(self) -> str:
        """Why it was or will be over: "interrupted", "duration", or "end" of what was recorded."""
        return "interrupted" if self.requests else "duration" if self.time_is_over else "end"

    def fileno(self) -> int:
        """Readable once `ask` was called and not waited for; for select with other files."""
        return self._read

    def wait(self, seconds: float) -> bool:
        """Sleep, but no longer than until the end is asked for (again) or the duration is over; returns `asked`."""
        if self.duration_ns:
            left_ns = self.started_ns + self.duration_ns - time.monotonic_ns()
            seconds = min(seconds, max(left_ns, 0) / 1e9) if left_ns > 0 else seconds
        if select.select([self._read], [], [], max(seconds, 0))[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self._read, 4096)
        return self.asked

    def close(self) -> None:
        """Give the pipe back."""
        for end in (self._read, self._write):
            with contextlib.suppress(OSError):
                os.close(end)

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stop]:
        """Signals ask to stop while this is entered in the main thread; elsewhere only `ask` does."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return

        def handle(number: int, frame: FrameType | None) -> None:
            self.signal = signal.Signals(number)
            self.ask()
            if self.requests > _PATIENCE:
                raise KeyboardInterrupt

        before = {number: signal.signal(number, handle) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
