"""process: the pages that an ordinary program writes, seen from outside, without privileges.

What: every private page that the program wrote since the last look, at the time of the look. How: the program is
started here and stopped before its first instruction to make a userfaultfd in its name; from then on its private
writable mappings are write-protected asynchronously, and every `interval` one PAGEMAP_SCAN for each mapping gives the
pages written and protects them again. Nothing is loaded into it, its output is its own, and when the capture ends
before the program, the program goes on unprotected. Cost: about 2 us for the first write to a page in each interval
(a program that rewrites much memory becomes several times slower at short intervals), and the scans, about 1 ms for
50,000 pages. Bad for: order and times within an interval, programs that do their work in child processes, shared
memory.

Models: userfaultfd write protection of the running kernel (Linux 6.7 or later), as a hypervisor's log would see it.
"""

from __future__ import annotations

import os
import queue
import shlex
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from replay.capturing.recorder import Recorder
from replay.errors import TraceError, UsageError
from replay.plugins import param
from replay.trace.schema import RamBlock
from replay.units import format_duration

if TYPE_CHECKING:
    from replay.capturing.tracee import Tracee
    from replay.capturing.written_pages import WrittenPages

COST = "a fault of about 2 us for each page the program writes in an interval; no privileges needed"
HOW = """needs Linux 6.7 or later on x86-64; the program runs as you, its output and exit code pass through:
  replay capture process -o sort.parquet -- sort big.txt -o sorted.txt
  replay capture process --interval 5ms --duration 30s -o server.parquet -- python3 -m http.server
Ctrl-C goes to the program; a second one ends the capture and leaves the program running.
"""
COMMAND = "required"


@dataclass(frozen=True, kw_only=True)
class Config:
    interval: int = param(20_000_000, "time between two looks", unit="ns", low=1_000_000, high=10_000_000_000)


def ready(config: Config, command: list[str]) -> None:
    """Raises UsageError for a command that is not there."""
    from replay.capturing.tracee import check_command

    check_command(command)


def describe(config: Config, command: list[str]) -> list[str]:
    """What it will do, and what that costs."""
    return [
        f"runs {shlex.join(command)[:80]}; it is stopped for a moment before its first instruction, has no huge pages",
        f"its first write to each page in every {format_duration(config.interval)} costs it about 2 us more",
    ]


def capture(config: Config, recorder: Recorder) -> None:
    """Record until the program ends, or the time is over. Raises TraceError where the program cannot be tracked."""
    from replay.capturing.tracee import Tracee

    _say(config, recorder)
    tracee = Tracee(recorder.command, recorder.stop.wake, to_stderr=recorder.to_stderr)
    watch = _Watch(recorder, tracee)
    try:
        passed_on = 0
        while watch.running:
            recorder.stop.wait(config.interval / 1e9)
            if recorder.stop.requests > passed_on and tracee.pid:
                passed_on = recorder.stop.requests
                if passed_on > 1:
                    break
                if not (recorder.stop.signal == signal.SIGINT and _keyboard_is_ours()):
                    tracee.send(recorder.stop.signal)
            watch.look()
            if recorder.stop.time_is_over:
                break
        left_running = watch.running
        watch.close()
        tracee.leave()
        if left_running and recorder.stop.requests < 2:
            watch.await_end()
    except BaseException:
        watch.close()
        (tracee.leave if watch.n_looks else tracee.kill)()
        raise
    watch.note()


class _Watch:
    """The program's pages while it runs, and what became of it."""

    def __init__(self, recorder: Recorder, tracee: Tracee) -> None:
        from replay.capturing.written_pages import Numbering

        self.recorder, self.tracee = recorder, tracee
        self.numbering = Numbering()
        self.running = True
        self.pages: WrittenPages | None = None
        self.n_looks = self.n_programs = self.n_mappings = 0
        self.slowest_ns = self.last_ns = self.gap_ns = 0

    def look(self) -> None:
        """What happened since the last look."""
        if self.pages is not None:
            self._scan()
        while True:
            try:
                event = self.tracee.events.get_nowait()
            except queue.Empty:
                return
            self._take(event)

    def _take(self, event: object) -> None:
        from replay.capturing.tracee import Began, Ended, Ending, Failed
        from replay.capturing.written_pages import WrittenPages

        if isinstance(event, Began):
            if self.n_programs == 0:
                self.last_ns = self.recorder.begin()
            self.n_programs += 1
            self.close()
            try:
                self.pages = WrittenPages(self.tracee.pid, event.uffd)
                self._scan()
            except TraceError as error:
                self._failed(str(error))
            self.tracee.release()
        elif isinstance(event, Ending):
            if self.pages is not None:
                self._scan()
            self.tracee.release()
        elif isinstance(event, Ended):
            self.recorder.exit_code, self.running = event.exit_code, False
        elif isinstance(event, Failed):
            self.n_programs += 1
            self._failed(event.why)

    def _failed(self, why: str) -> None:
        """The first program must be tracked; of a later one it is said that it was not."""
        if self.n_programs == 1:
            raise TraceError(f"{self.recorder.command[0]}: cannot be tracked: {why}")
        self.close()
        self.recorder.facts.limits.append(f"a program executed later could not be tracked: {why}")

    def _scan(self) -> None:
        assert self.pages is not None
        begun_ns = time.monotonic_ns()
        numbers = self.pages.scan()
        now = time.monotonic_ns()
        if len(numbers):
            self.recorder.append(np.full(len(numbers), now), self.numbering.dense(numbers))
        self.recorder.rearmed(now)
        self.recorder.finish(now)
        self.n_looks += 1
        self.slowest_ns, self.gap_ns = max(self.slowest_ns, now - begun_ns), max(self.gap_ns, now - self.last_ns)
        self.last_ns = now

    def await_end(self) -> None:
        """The time is over, the program is not: wait for it, without looking."""
        while self.running and self.recorder.stop.requests < 2:
            before = self.recorder.stop.requests
            self.recorder.stop.wait(1)
            if self.recorder.stop.requests > before and not _keyboard_is_ours():
                self.tracee.send(self.recorder.stop.signal)
            self.look()

    def close(self) -> None:
        """The program's pages are its own again."""
        if self.pages is not None:
            self.n_mappings += self.pages.n_mappings
            self.pages.close()
            self.pages = None

    def note(self) -> None:
        """What is known only at the end."""
        facts = self.recorder.facts
        facts.rearm_gap_ns = self.gap_ns
        facts.blocks = (RamBlock("process", 0, max(self.numbering.n_pages, 1)),)
        facts.notes |= {
            "looks": self.n_looks, "longest_between_looks_ns": self.gap_ns, "slowest_look_ns": self.slowest_ns,
            "programs_executed": self.n_programs, "mappings": self.n_mappings,
            "runs_of_64_pages_by_address": [f"{run << 18:#x}" for run in list(self.numbering.runs)[:4096]],
        }  # fmt: skip


def _keyboard_is_ours() -> bool:
    """Whether Ctrl-C on the terminal reaches the program too, without being passed on."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _say(config: Config, recorder: Recorder) -> None:
    facts, every = recorder.facts, format_duration(config.interval)
    facts.n_vcpus = 1
    facts.guest = f"no guest: a program on Linux {os.uname().release}, its private writable memory, huge pages off"
    facts.workload = shlex.join(recorder.command)[:500]
    facts.clock = "the host's CLOCK_MONOTONIC at each look; it runs on while the program waits"
    facts.capture = f"asynchronous userfaultfd write protection and PAGEMAP_SCAN, one look every {every}"
    facts.limits += [
        f"times are those of the looks, {every} apart or more; within one, pages stand in the order of their addresses",
        "further writes to a page between two looks are not in it, nor is anything that child processes write",
        "pages of a new mapping count as written at the first look that finds it; one that came and went between two "
        "looks is missing, as are shared mappings",
        "pages are numbered by address, in runs of 64 in the order in which they were first seen; a page that was "
        "given back and taken again keeps its number",
        "all threads count as vCPU 0",
    ]


def check(config: Config) -> None:
    """Raises UsageError where this cannot run at all."""
    if os.uname().sysname != "Linux":
        raise UsageError("process: needs Linux")
