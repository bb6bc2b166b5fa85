"""QEMU's precopy loop in virtual time: when to sync, when to sleep, when to stop the guest.

One pass of the loop: unless the window's bytes are used up, look at the estimate of what is pending; if it is below
the threshold, sync and look again; if it still is (or nothing is pending), switch over; else send for up to 50 ms.
Then close the 100 ms window if it is over (its bandwidth times the downtime limit becomes the threshold), or sleep
until it is. The threshold is 0 until the first window closes. In stop-and-copy there is no limit. At a sync a policy
(policies/) may throttle the vCPUs; a sync then waits for those that sleep. Source: QEMU 10.0.13 migration/migration.c
and ram.c by their described behaviour; names are those of `query-migrate`; versions.py says what other versions do.

All times are picoseconds since the migrate command; decisions that QEMU takes on a millisecond clock are taken on the
floor of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from replay.errors import UsageError
from replay.jit import NONE, Calls, implements, wrapping
from replay.kernels.bitmap import count_set
from replay.migration import engine, link, multifd, postcopy, record, versions, wire
from replay.migration.costs import Costs
from replay.migration.engine import EMPTY, LIMITED, OUT_OF_TIME, WANT_EVENTS
from replay.migration.feed import Feed
from replay.migration.guest import CHECK, NEXT_PS, REDUNDANT
from replay.migration.link import CHANNELS, COUNT_QUEUED, FLUSHED, LIMIT, WINDOW_MS
from replay.migration.parameters import Parameters
from replay.migration.policy import Policy, SyncRecord
from replay.migration.record import Outcome
from replay.migration.sender import CALLS, DEADLINE_PS, NOW_PS, SPENT_PS, new_sender
from replay.migration.throttle import Throttle
from replay.migration.window import Period, Window
from replay.migration.xbzrle import Encoder
from replay.units import PS_PER_MS
from replay.verbs import Meter
from replay.work import INDEX, N_COUNTERS, NORMAL_PAGES, VCPU_KICKS, XBZRLE_PAGES, ZERO_PAGES

MAX_WAIT_MS = 50
BACKGROUND_PS = 5000 * PS_PER_MS
_NEVER = int(NONE)
Progress = Callable[[int, int, int, int], None]
"""Called now and then with (virtual ns, round, pending pages, events applied); raise from it to cancel."""


class Precopy:
    """One migration: built once, run once."""

    def __init__(
        self,
        log: Any,
        design: Any,
        feed: Feed,
        parameters: Parameters,
        costs: Costs,
        n_pages: int,
        policy: Policy | None = None,
    ):
        self.log, self.design, self.feed, self.parameters, self.costs = log, design, feed, parameters, costs
        self.n_pages, self.policy = n_pages, policy
        self.version = versions.VERSIONS[parameters.version]
        self.throttle = Throttle(feed.guest, parameters.recorded_throttled, parameters.guest_busy_pct)
        price = wire.prices(costs, parameters.link_bandwidth, parameters.mapped_ram)
        price[NORMAL_PAGES] += np.uint64(costs.fixed_ps["first_copy"])
        self.meter = Meter(np.zeros(N_COUNTERS, dtype=np.uint64), price)
        self.aside = Meter(np.zeros(N_COUNTERS, dtype=np.uint64), price)
        self.stream = wire.open_stream(parameters.mapped_ram)
        if parameters.multifd is not None:
            if implements(type(design), "live"):
                raise UsageError("multifd is flushed between rounds, and this design has none: leave it out")
            self.stream = multifd.with_channels(self.stream, parameters.multifd, costs, parameters.link_bandwidth)
            multifd.price_queueing(price, parameters.multifd, costs)
        if parameters.zero_page_detection == "none":
            wire.hide_zeros(feed.guest)
        self.encoder = None if parameters.xbzrle is None else Encoder(parameters.xbzrle)
        if self.encoder is not None:
            feed.guest = feed.guest._replace(cache=self.encoder.cache)
            feed.keep_stale()
        self.stream[COUNT_QUEUED] = self.version.limit_counts_queued
        self.sender = new_sender()
        self._call = Calls()
        self.batched = self._choose_formulation()
        self.running, self.switches = True, False
        self.stopped_ps: int | None = None
        self.resumed_ps: int | None = None  # at the target, after a switch to postcopy
        self.spent = dict.fromkeys(("harvest", "sync", "wait", "other"), 0)  # modelled, ps
        self.clock = dict.fromkeys(("harvest", "sync", "send", "guest"), 0)  # measured, ns
        self.first_copies_ps = self.first_copies_aside_ps = 0
        self.iterate_calls = 0
        self.window, self.period = Window(), Period()
        self._background_ps, self._background_syncs = _NEVER, 0
        self.rounds: list[dict[str, Any]] = []
        self._opened: dict[str, Any] = {}

    def _choose_formulation(self) -> bool:
        able = implements(type(self.design), "peek") and implements(type(self.design), "take")
        return able and self.parameters.formulation != "stepping" and self.parameters.multifd is None

    # -- the course of a migration ------------------------------------------------------------------------------------

    @wrapping
    def run(self, progress: Progress | None = None) -> Outcome:
        """Migrate. Progress is reported after every pass of the loop."""
        setup_ms = self._setup()
        status = "not-converged"
        self.stream[LIMIT] = self.parameters.max_bandwidth // (1000 // WINDOW_MS)
        while int(self.now) < self.parameters.give_up_ns * 1000:
            if not link.rate_exceeded(self.stream) and self._pass():
                status = "completed"
                break
            self.limit_rate()
            if progress is not None:
                applied = int(self.aside.work[INDEX["guest_writes"]])
                progress(int(self.now) // 1000, len(self.rounds), self.pending, applied)
        downtime_ms = self._complete() if status == "completed" else None
        if downtime_ms is None:
            self.close_round()
        summary = record.summary(self, status, setup_ms, downtime_ms)
        guest = record.guest(self)
        lost, redundant = self._verify(status)
        return Outcome(
            status=status, summary=summary, rounds=self.rounds, lost_pages=lost, redundant_pages=redundant, guest=guest,
            throttle_steps=self.throttle.steps,
        )  # fmt: skip

    def _setup(self) -> int:
        fixed = self.costs.fixed_ps
        self.spend("other", fixed["connect"])
        self.window.ms = int(self.now) // PS_PER_MS
        if self.policy is not None and self.policy.background_sync and self.version.background_sync:
            self._background_ps = int(self.now) + BACKGROUND_PS
        self.spend("other", fixed["setup"] + self.n_pages * fixed["setup_page"])
        link.put_buffered(self.stream, np.uint64(self.costs.fixed_bytes["setup"]), self.meter.work)
        link.flush(self.stream, self.meter.work)
        self._flush_channels()
        self.sync("setup")
        return int(self.now) // PS_PER_MS

    def _pass(self) -> bool:
        """One iteration; True when the guest is to be stopped."""
        self.spend("other", self.costs.fixed_ps["loop_pass"])
        if self._background_ps <= int(self.now):
            self._sync_in_background()
        if (pending := self.pending * link.PAGE_BYTES) < self.window.threshold:
            self.sync("estimate")
            pending = self.pending * link.PAGE_BYTES
        sent = self._pages_sent()
        done = pending == 0 or pending < self.window.threshold + self.version.complete_at_threshold
        self.switches = postcopy.due(self) and (not done or self.version.postcopy_before_completion)
        if done or self.switches:
            return True
        self._iterate(int(self.now) + (MAX_WAIT_MS + 1) * PS_PER_MS)
        if self._pages_sent() == sent:
            self._spin()
        return False

    def _spin(self) -> None:
        """Pages are pending but none can be found: the loop turns without effect. Skipped up to the window's end."""
        self.spend("other", max(0, (self.window.ms + WINDOW_MS) * PS_PER_MS - int(self.now)))
        self._catch_up()

    def _complete(self) -> int:
        """Stop-and-copy. Returns the downtime in ms."""
        begin_ms = int(self.now) // PS_PER_MS
        self._wait_for_vcpus()
        self.spend("other", self.costs.fixed_ps["vm_stop"])
        self._catch_up()
        self.running, self.stopped_ps = False, int(self.now)
        if self.switches:
            return postcopy.run(self, begin_ms)
        self.stream[LIMIT] = 0
        self.sync("final")
        self._iterate(_NEVER)
        self._flush_channels()
        link.put_buffered(self.stream, np.uint64(self.costs.fixed_bytes["device_state"]), self.meter.work)
        link.flush(self.stream, self.meter.work)
        self.spend("other", self.costs.fixed_ps["device_state"])
        self.close_round()
        return int(self.now) // PS_PER_MS - begin_ms

    def _verify(self, status: str) -> tuple[int | None, int | None]:
        """Lost and redundant pages. A migration that was given up is finished unrecorded to see what it would lose."""
        redundant = int(self.feed.guest.state[REDUNDANT])
        if self.feed.guest.state[CHECK] == 0:
            return None, None
        if status != "completed":
            rounds, self.rounds, self._opened = self.rounds, [], {}
            self._complete()
            self.rounds = rounds
        return int(count_set(self.feed.guest.stale)), redundant

    # -- sending ------------------------------------------------------------------------------------------------------

    def _iterate(self, deadline_ps: int) -> None:
        """One call of the sender: a section header, pages, an end mark, a flush."""
        self.iterate_calls += 1
        work, guest = self.meter.work, self.feed.guest
        self._call(engine.open_section, guest.empty, guest.zeros, guest.turned, self.stream, work)
        self.sender[DEADLINE_PS], self.sender[CALLS] = deadline_ps, 0
        if self.batched or self.throttle.pct:  # stepping begins with it
            self._catch_up()
        crowds = self.running and self.throttle.crowds(guest, int(self.now))
        more_ps, before = crowds * self.costs.fixed_ps["crowded_page"], int(work[NORMAL_PAGES])
        self._reprice(more_ps)
        self._send_batched() if self.batched else self._send_stepping()
        self._reprice(-more_ps)
        self.spent["wait"] += more_ps * (int(work[NORMAL_PAGES]) - before)
        self._call(engine.close_section, self.stream, work)

    def _send_batched(self) -> None:
        status = -1
        while status not in (EMPTY, LIMITED, OUT_OF_TIME):
            begin = time.perf_counter_ns()
            status = self._call(
                engine.plan, self.log, self.design, self.feed.guest, self.stream, self.sender, self.meter
            )
            self.clock["send"] += time.perf_counter_ns() - begin
            self._merge()

    def _send_stepping(self) -> None:
        self._run("send", engine.step, self.stream, self.sender, self.meter, self.aside, self.running)
        self._catch_up()

    def _merge(self) -> None:
        self._run("guest", engine.merge, self.stream, self.sender, self.meter, self.aside, self.running)

    def _catch_up(self) -> None:
        """Let the guest run up to now."""
        if not self.running or int(self.feed.guest.state[NEXT_PS]) > int(self.now):
            return
        if self.batched:
            self._merge()
        else:
            self._run("guest", engine.catch_up, self.stream, self.aside, self.now)

    def _run(self, clock: str, function: Callable[..., Any], *more: Any) -> None:
        self.run_kernel(clock, lambda guest: self._call(function, self.log, self.design, guest, *more))

    def run_kernel(self, clock: str, kernel: Callable[[Any], Any]) -> None:
        """Call a kernel, handing it the next window of events, until it wants no more. Fetching is not its time."""
        begin = time.perf_counter_ns()
        while kernel(self.feed.guest) == WANT_EVENTS:
            self.clock[clock] += time.perf_counter_ns() - begin
            self.feed.refill()
            if self.feed.changed_kind:
                self._call.forget()
                self.feed.changed_kind = False
            begin = time.perf_counter_ns()
        self.clock[clock] += time.perf_counter_ns() - begin

    def _flush_channels(self) -> None:
        if self.stream[CHANNELS] != 0:
            done = multifd.flush_channels(self.stream, self.now, self.meter.work)
            self.spend("wait", int(done) - int(self.now))

    def limit_rate(self) -> None:
        """Close the window if it is over; sleep until it is when its bytes are used up."""
        now_ms = int(self.now) // PS_PER_MS
        multifd.settle(self.stream, self.now)
        self.window.close(self.stream, now_ms, self._pages_sent(), self.parameters.downtime_limit_ms)
        if link.rate_exceeded(self.stream):
            sleep_ms = max(0, self.window.ms + WINDOW_MS - now_ms)
            awake_ps = int(self.now) + sleep_ms * PS_PER_MS + self.costs.fixed_ps["oversleep"]
            if self._background_ps < awake_ps:
                self.spend("wait", max(0, self._background_ps - int(self.now)))
                self._sync_in_background()
            self.spend("wait", max(0, awake_ps - int(self.now)))
            self._catch_up()
            multifd.settle(self.stream, self.now)

    # -- syncs and the record -----------------------------------------------------------------------------------------

    def _sync_in_background(self) -> None:
        """The 5 s timer of auto-converge: a sync, unless there was one since it last went off."""
        self._background_ps += BACKGROUND_PS
        if 1 < len(self.rounds) + 1 == self._background_syncs:
            self.sync("background")
        self._background_syncs = len(self.rounds) + 1

    def sync(self, cause: str) -> None:
        self._catch_up()
        self.close_round()
        opened = self._opened = record.totals(self) if self.rounds else dict.fromkeys(record.totals(self), 0)
        opened.update(round=len(self.rounds) + 1, cause=cause, sync_begin_ns=int(self.now) // 1000)
        opened.update(
            pending_before_pages=self.pending, threshold_bytes=self.window.threshold, throttle_pct=self.throttle.pct
        )
        if self.running:
            self._wait_for_vcpus()
        if len(self.rounds) == 1:
            self._end_first_copies()
        kicks, spent, clock = int(self.meter.work[VCPU_KICKS]), self._worth(), time.perf_counter_ns()
        engine.collect(self.log, self.design, self.feed.guest, self.meter)
        harvested, harvested_clock = self._worth(), time.perf_counter_ns()
        new = int(engine.synchronise(self.design, self.meter))
        done, done_clock = self._worth(), time.perf_counter_ns()
        self.clock["harvest"] += harvested_clock - clock
        self.clock["sync"] += done_clock - harvested_clock
        self.spend("harvest", harvested - spent)
        self.spend("sync", done - harvested + self.costs.fixed_ps["sync"])
        opened.update(sync_end_ns=int(self.now) // 1000, dirty_pages=new, pending_after_pages=self.pending)
        if self.running:
            kicked = int(self.meter.work[VCPU_KICKS]) > kicks
            self.feed.hold(self.now, self.meter.price[VCPU_KICKS] if kicked else np.uint64(0))
        self._after_sync(new)

    def _wait_for_vcpus(self) -> None:
        """Whoever needs the vCPUs waits until their throttle sleep is over."""
        self.spend("wait", self.throttle.wait_ps(self.feed.guest, int(self.now)))
        self._catch_up()

    def _end_first_copies(self) -> None:
        """From the second sync on the target has the pages' memory: sending one costs less."""
        extra = self.costs.fixed_ps["first_copy"]
        if self.stream[CHANNELS] != 0:
            multifd.end_first_copies(self.stream, extra)
            return
        self.first_copies_ps = int(self.meter.work[NORMAL_PAGES]) * extra
        self.first_copies_aside_ps = int(self.aside.work[NORMAL_PAGES]) * extra
        self._reprice(-extra)

    def _reprice(self, more_ps: int) -> None:
        """From now on a page with content costs so much more; what was spent before stays as it was."""
        if more_ps == 0:
            return
        self.sender[SPENT_PS] = int(self.sender[SPENT_PS]) + int(self.meter.work[NORMAL_PAGES]) * more_ps
        self.meter.price[NORMAL_PAGES] = int(self.meter.price[NORMAL_PAGES]) + more_ps

    def _after_sync(self, new: int) -> None:
        """Rates of the period that a sync ends when it is longer than a second, and what the policy makes of it."""
        period, now_ms = self.period, int(self.now) // PS_PER_MS
        period.pages += new
        if self.encoder is not None:
            self.encoder.at_sync(len(self.rounds) + 1, self.running)
            self.batched = self.batched and not self.rounds  # from the second sync on what is sent depends on the guest
        flushed, long_enough = int(self.stream[FLUSHED]), period.is_over(now_ms)
        if self.policy is not None and self.running:
            pct = self.policy.at_sync(
                SyncRecord(
                    sync=len(self.rounds) + 1,
                    now_ms=now_ms,
                    dirty_pages=new,
                    pending_bytes=self.pending * link.PAGE_BYTES,
                    threshold_bytes=self.window.threshold,
                    period_over=long_enough,
                    period_dirty_bytes=period.pages * link.PAGE_BYTES,
                    period_sent_bytes=flushed - period.bytes,
                    throttle_pct=self.throttle.pct,
                )
            )
            if pct is not None:
                self.throttle.set(self.feed.guest, pct, int(self.now))
        if long_enough:
            if self.encoder is not None:
                self.encoder.end_period(self)
            period.close(now_ms, flushed)

    def close_round(self) -> None:
        """Turn what has grown since the round was opened into its row."""
        if self._opened:
            self.rounds.append(record.row(self, self._opened))

    # -- small things -------------------------------------------------------------------------------------------------

    @property
    def now(self) -> Any:
        """Host time, ps since the migrate command."""
        return self.sender[NOW_PS]

    @property
    def pending(self) -> int:
        """Pages waiting to be sent (`migration_dirty_pages`)."""
        return int(self._call(engine.pages_pending, self.log, self.design))

    def sent(self, counter: int) -> int:
        """Pages sent of one kind, by the migration thread and by those that dirtied them."""
        return self.meter.work.item(counter) + self.aside.work.item(counter)

    def _pages_sent(self) -> int:
        return self.sent(NORMAL_PAGES) + self.sent(ZERO_PAGES) + self.sent(XBZRLE_PAGES)

    def _worth(self) -> int:
        return int((self.meter.work * self.meter.price).sum())

    def spend(self, what: str, ps: int) -> None:
        """The migration thread is busy (or asleep) for `ps` with something other than sending."""
        self.spent[what] += ps
        self.sender[NOW_PS] += np.uint64(ps)
