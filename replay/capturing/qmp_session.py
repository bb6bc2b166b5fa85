"""One recording of a QEMU: set up, a loop that reads the log, put back, the last of the log, what the trace says of it.

What arms the pages again is one of three: `Rearming` does it itself, `Waiting` leaves it to a migration that somebody
else starts, `Migrating` starts one.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from replay.capturing import qmp_rearm
from replay.capturing.qmp import Gone, Monitor, Refused
from replay.capturing.qmp_case import CaseWriter, check_folder
from replay.capturing.qmp_follow import Follower
from replay.capturing.qmp_guest import RUNNING, STORE, Guest
from replay.capturing.qmp_log import LogReader
from replay.capturing.qmp_undo import Undo, cancel, snapshot
from replay.capturing.recorder import Recorder
from replay.errors import TraceError, UsageError
from replay.trace.schema import RamBlock
from replay.units import format_duration

SECOND_NS = 1_000_000_000
POLL_S = 0.06
SYNCS = ("migration_bitmap_sync_start", "migration_bitmap_sync_end")
TCG_EVENTS = (STORE, *SYNCS, "cpu_throttle_set", "migrate_set_state")
TCG_CLOCK = "the host's real-time clock, which runs on while the guest is stopped"
TCG_METHOD = f"QEMU trace event {STORE} (log backend, read while it grew)"
# What replay calibrate and replay validate read of a migration.
STEPS = (
    "migrate_pending_estimate", "migrate_pending_exact", "migrate_transferred", "migration_rate_limit_pre",
    "migration_rate_limit_post", "migration_thread_setup_complete", "migration_thread_low_pending",
    "migration_completion_vm_stop", "migration_precopy_complete", "migration_thread_after_loop", "runstate_set",
    "savevm_state_header", "savevm_state_setup", "savevm_state_iterate", "savevm_state_cleanup",
    "vmstate_downtime_checkpoint", "vmstate_downtime_save",
)  # fmt: skip


class Driver(Protocol):
    """What happens while the log is read."""

    EVENTS: tuple[str, ...]  # QEMU's trace events, switched on
    SETTINGS: bool  # of migrations, changed and put back
    CLOCK: str

    def now_ns(self) -> int:
        """The time on the clock of the events."""

    def begin(self, session: Session) -> None:
        """Everything is on."""

    def step(self, session: Session) -> float | None:
        """Do what is due; returns in how many seconds to call again, None when the recording is over."""

    def end(self, session: Session) -> None:
        """Before everything is put back."""

    def method(self) -> str:
        """How writes were noticed, in words."""

    def settle(self, session: Session) -> None:
        """The log is read to its end."""


class Session:
    """A recording. `t0_ns`: when the migration began, in ns since 1970, if there was one. `lock`: of `alone`."""

    log: Follower

    def __init__(self, monitor: Monitor, guest: Guest, recorder: Recorder, lock: int, instance: str = "") -> None:
        self.monitor = monitor
        self.guest = guest
        self.recorder = recorder
        self.before_undo = contextlib.ExitStack()  # to be closed before anything is put back
        self.at_the_end = contextlib.ExitStack()
        self._lock = lock
        self._instance = instance
        self.t0_ns: int | None = None
        self.case: CaseWriter | None = None
        self._origin_ns = 0

    def run(self, driver: Driver) -> None:
        """Record until the driver or the recorder says stop."""
        facts = self.recorder.facts
        facts.n_vcpus = self.guest.n_vcpus
        facts.blocks = tuple(RamBlock(b.name, b.first_page, b.n_pages) for b in self.guest.blocks)
        facts.clock = driver.CLOCK
        found = snapshot(self.monitor, driver.EVENTS, driver.SETTINGS)
        found.instance = self._instance
        undo = Undo(self.monitor, found, next(iter(self.guest.threads)), self._lock)
        with self.at_the_end, undo as self.undo, self.before_undo:
            self._origin_ns = self.recorder.begin(driver.now_ns(), reorder_ns=SECOND_NS)
            for name in found.events:
                self.monitor.execute("trace-event-set-state", name=name, enable=True)
            driver.begin(self)
            self._loop(driver)
            driver.end(self)
            self.before_undo.close()
            undo.restore()
            self.drain()
            self.recorder.finish(driver.now_ns())
            self._tell(driver)
            driver.settle(self)

    def follow_log(self, keep_others: bool = False) -> None:
        """Events come from QEMU's log."""
        self.log = LogReader(self.guest, keep_others)
        self.at_the_end.callback(self.log.close)

    def drain(self) -> None:
        """Read what is left."""
        for events in self.log.rest():
            self._write(events)

    def _loop(self, driver: Driver) -> None:
        stop = self.recorder.stop
        while not stop.asked:
            try:
                seconds = driver.step(self)
            except Gone as error:
                if self.undo.alive:
                    raise
                self.recorder.facts.limits.append(f"QEMU ended while it was recorded: {error}")
                return
            if seconds is None:
                return
            due = time.monotonic() + seconds
            self._write(self.log.read())
            stop.wait(0.0 if self.log.behind else max(0.0, due - time.monotonic()))

    def _write(self, events: tuple[Any, Any, Any]) -> None:
        t_ns, page, vcpu = events
        kept = t_ns >= self._origin_ns
        self.recorder.append(t_ns[kept], page[kept], vcpu[kept])
        if self.case is not None:
            self.case.append(t_ns[kept], page[kept], vcpu[kept])

    def _tell(self, driver: Driver) -> None:
        facts, report = self.recorder.facts, self.log.report
        facts.capture = driver.method()
        facts.limits += [*report.limits, report.tally.sentence()]
        if self.guest.n_vcpus > len(self.guest.threads):
            facts.limits.append("one thread runs all vCPUs: all events are given to vCPU 0")
        if self.log.strangers:
            facts.limits.append(f"{self.log.strangers:,} events of no known vCPU or RAM block are left out")
        facts.throttled = report.throttled
        facts.rearm_gap_ns = report.rearm_gap_ns
        report.tally.events = self.recorder.n_events
        facts.notes["log"] = report.tally.to_plain()
        for t_ns in report.rearm_ns:
            self.recorder.rearmed(max(t_ns, self._origin_ns))
        if self.t0_ns is None and not driver.SETTINGS:
            self.t0_ns = report.migration_start_ns
        if self.t0_ns is not None:
            facts.migration_start_ns = max(0, self.recorder.since_start_ns(self.t0_ns))


class Syncing:
    """Reads the log of a guest under TCG, whose pages are armed again by the bitmap syncs of a migration."""

    EVENTS: tuple[str, ...] = TCG_EVENTS
    CLOCK = TCG_CLOCK
    now_ns = staticmethod(time.time_ns)
    SETTINGS = True

    def end(self, session: Session) -> None:
        """Nothing is left to do."""

    def method(self) -> str:
        """How pages were armed again."""
        return f"{TCG_METHOD}; pages armed again by the bitmap syncs of a real migration"

    def settle(self, session: Session) -> None:
        """Nothing is left to do."""


class Rearming(Syncing):
    """Arms all pages again every so often, by migrations into nothing; leaves it to a real migration when one runs."""

    def __init__(self, config: Any) -> None:
        self._interval_ns = int(config.interval)
        self._due_ns = 0
        self._taken_ns: list[int] = []
        self._waiting: Waiting | None = None

    def begin(self, session: Session) -> None:
        """The first re-arm is due at once."""
        session.follow_log()
        self._due_ns = time.monotonic_ns()

    def step(self, session: Session) -> float | None:
        """Re-arm when it is time to. One that comes late is not made up for."""
        if self._waiting is not None:
            return self._waiting.step(session)
        now = time.monotonic_ns()
        if now >= self._due_ns:
            if not qmp_rearm.rearm(session.monitor, session.undo):
                self._waiting = Waiting(None)
                return self._waiting.step(session)
            after = time.monotonic_ns()
            self._taken_ns.append(after - now)
            self._due_ns += self._interval_ns * max(1, -(-(after - self._due_ns) // self._interval_ns))
        return min(max(0, self._due_ns - time.monotonic_ns()) / SECOND_NS, POLL_S)

    def method(self) -> str:
        """How pages were armed again, and how long that took."""
        each = format_duration(int(np.median(self._taken_ns))) if self._taken_ns else "unknown"
        own = (
            f"{TCG_METHOD}; all pages armed again every {format_duration(self._interval_ns)} by a migration into "
            f"nothing, cancelled (median {each})"
        )
        return own if self._waiting is None else f"{own}; at the end by the bitmap syncs of a real migration"

    def settle(self, session: Session) -> None:
        """What it took is in the provenance."""
        taken = np.array(self._taken_ns or [0])
        session.recorder.facts.notes["rearm"] = {
            "n": len(self._taken_ns), "median_ns": int(np.median(taken)), "max_ns": int(taken.max()),
        }  # fmt: skip


class Waiting(Syncing):
    """Leaves QEMU's migrations to whoever starts them; over when one has ended."""

    SETTINGS = False

    def __init__(self, config: Any) -> None:
        self._running = False

    def begin(self, session: Session) -> None:
        """Join a migration that runs already."""
        session.follow_log()
        self._running = session.guest.migrating

    def step(self, session: Session) -> float | None:
        """Look whether there is a migration, or whether it is over."""
        now = session.monitor.execute("query-migrate")
        running = now.get("status") in RUNNING
        if self._running and not running:
            session.recorder.facts.notes["migration"] = now
            return None
        self._running = running
        return POLL_S


class Migrating(Syncing):
    """Starts a migration and records it; over when it has ended."""

    EVENTS: tuple[str, ...] = (*TCG_EVENTS, *STEPS)

    def __init__(self, config: Any) -> None:
        self._config = config
        self._folder = Path(config.case) if config.case else None
        if self._folder is not None:
            check_folder(self._folder)
        self._last: dict[str, Any] = {}
        self._before: dict[str, Any] | None = None

    def begin(self, session: Session) -> None:
        """Set the limits and start."""
        session.follow_log(keep_others=True)
        config, monitor = self._config, session.monitor
        limits: dict[str, int] = {}
        if config.bandwidth:
            limits["max_bandwidth"] = config.bandwidth
        if config.downtime_limit:
            limits["downtime_limit"] = config.downtime_limit // 1_000_000
        if limits:
            monitor.execute("migrate-set-parameters", **limits)
        t0_ns = session.t0_ns = time.time_ns()
        if self._folder is not None:
            session.case = CaseWriter(self._folder, session.guest, t0_ns)
            session.at_the_end.callback(session.case.abandon)
            session.case.note_settings(monitor, give_up_ns=config.give_up)
        session.undo.owns_migration(True)
        try:
            monitor.execute("migrate", uri=config.migrate_to)
        except Refused as error:
            raise UsageError(f"{error}; is a QEMU with -incoming {config.migrate_to} there?") from None

    def step(self, session: Session) -> float | None:
        """Look how far it is; cancel it when its time is over."""
        assert session.t0_ns is not None
        now = session.monitor.execute("query-migrate")
        since_ns = time.time_ns() - session.t0_ns
        if session.case is not None:
            session.case.poll(since_ns, now)
        if now.get("status") not in RUNNING:
            self._last = now
            return None
        if since_ns >= self._config.give_up:
            cancel(session.monitor)
            self._last = session.monitor.execute("query-migrate")
            self._before = None if self._last.get("status") == "completed" else now
            return None
        return POLL_S

    def end(self, session: Session) -> None:
        """A migration that failed is no recording."""
        if self._last.get("status") == "failed":
            why = self._last.get("error-desc", "no reason given")
            raise TraceError(f"the migration to {self._config.migrate_to} failed: {why}; the guest runs on here")

    def settle(self, session: Session) -> None:
        """Write the case, if it was a whole migration."""
        facts = session.recorder.facts
        facts.notes["migration"] = self._last
        if not self._last:
            without = "" if session.case is None else ", so no case is written"
            facts.limits.append(f"the migration was interrupted and cancelled{without}")
        elif session.case is not None:
            session.case.finish(session.log.others, self._last, self._before, session.recorder.workload)
