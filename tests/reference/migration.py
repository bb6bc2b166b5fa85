"""A second implementation of everything the engine does, in sets, deques and Python integers.

It shares no code with the package apart from the names of counters and columns. Slow, obvious, one page at a time: what
it says a migration does, the engine must say too, in every column of every round.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from tests.reference.case import MS, Case
from tests.reference.designs import Bitmap, DoubleRing, HierarchicalBitmap
from tests.reference.guest import Guest
from tests.reference.live_designs import DirectReap, RingBackground, RingFallback, RingOnly
from tests.reference.logs import LOGS
from tests.reference.multifd import Channels
from tests.reference.postcopy import Postcopy
from tests.reference.source import Source
from tests.reference.stream import Stream
from tests.reference.throttle import Throttle
from tests.reference.totals import totals
from tests.reference.xbzrle import Cache

DESIGNS = {
    "bitmap": Bitmap, "hierarchical-bitmap": HierarchicalBitmap, "double-ring": DoubleRing, "direct-reap": DirectReap,
    "ring-only": RingOnly, "ring-fallback": RingFallback, "ring-background": RingBackground,
}  # fmt: skip


class Migration:
    def __init__(self, case: Case):
        self.normal_bytes, self.zero_bytes = 4104, 9
        if case.zero_detection == "none":
            case = replace(case, zero=set())
        if case.mapped_ram:
            self.normal_bytes, self.zero_bytes = 4096, 0
        self.case = case
        self.log, self.design = LOGS[case.log](case), DESIGNS[case.design](case)
        self.guest = Guest(case, self.log.per_vcpu or self.design.per_vcpu)
        self.source = Source(self)
        self.channel_free = self.fetching = self.locked_out = 0
        self.late_page: int | None = None
        self.stream = Stream(self.zero_bytes, case.mapped_ram)
        self.counts, self.aside = Counter(), Counter()
        self.channels = Channels(case, self.stream, self.counts) if case.channels else None
        if case.channels:
            with_zeros = ["zero_pages"] if case.zero_detection == "multifd" else []
            by_channel = dict.fromkeys(["normal_pages", *with_zeros], case.fixed["multifd_page"])
            case = self.case = replace(case, prices=case.prices | by_channel)
        self.rounds_seen = 0
        self.now = 0
        self.busy_until = 0
        self.running, self.stopped, self.resumed = True, None, None
        self.switches = False
        self.live_zero = set(case.zero)
        self.seen_zero = set(case.zero)
        self.version = [1] * case.n_pages  # of the content at the source
        self.copy = [0] * case.n_pages  # version at the target
        self.redundant = 0
        self.threshold = 0
        self.window = {"ms": 0, "bytes": 0, "pages": 0}
        self.limit = 0
        self.pps = 0.0
        self.rate = {"last": 0, "pages": 0, "value": 0}
        self.iterate_calls = 0
        self.spent = Counter()
        self.rounds: list[dict] = []
        self.opened: dict | None = None
        self.pending_at_sync: list[int] = []
        self.cache = Cache(case.xbzrle, self.stream) if case.xbzrle else None
        self.syncs = self.last_word = 0
        self.wrapped = False
        self.unpaid = 0  # work done between two pages, part of the next one's time
        self.throttle = Throttle(case.auto_converge)
        self.throttle_steps = self.throttle.steps
        self.strikes = 0  # of dirty-limit
        self.background, self.syncs_then = None, 0
        self.extra = 0 if self.channels else case.fixed["first_copy"]

    # -- sending

    def worth(self, counts):
        return sum(self.case.prices[name] * count for name, count in counts.items())

    def exceeded(self):
        used = self.stream.flushed - self.window["bytes"]
        if self.case.version == "7.2":
            used += self.stream.queued
        return self.limit and used > self.limit

    def iterate(self, budget_ms):
        self.iterate_calls += 1
        self.seen_zero &= self.live_zero
        self.stream.buffered(5)
        begin, calls = self.now, 0
        self.source.advance(self.now)
        crowded = self.case.fixed["crowded_page"] if self.running and self.throttle.crowds(self.now) else 0
        while True:
            if self.design.late:
                self.source.advance(self.now)
                self.rearm_late()
            if self.channels:
                self.channels.settle(self.now)
            if self.exceeded():
                break
            self.source.advance(self.now)
            if self.design.live:
                if self.channel_free > self.now:
                    self.locked_out += self.channel_free - self.now
                    self.now = self.channel_free
                    if budget_ms is not None and (self.now - begin) // MS > budget_ms:
                        break
                    continue
                if (wanted := self.design.appetite()) and self.fetch(wanted):
                    continue
            before = self.worth(self.counts)
            page = self.design.pop(self.counts)
            if self.channels and self.counts["round_flushes"] > self.rounds_seen:
                self.rounds_seen = self.counts["round_flushes"]
                self.wait_until(self.channels.flush(self.now))
            if page is None:
                self.wrapped |= self.syncs > 1
                self.now += self.worth(self.counts) - before + self.unpaid
                self.unpaid = 0
                break
            self.log.before_read(page, self.counts)
            if self.design.late:
                self.late_page = page
            elif self.design.live:
                self.log.rearm_page(page, self.counts)
            whole = self.counts["normal_pages"]
            counts = self.read(page, self.counts)
            self.now += self.worth(self.counts) - before + self.unpaid
            self.unpaid = 0
            if self.counts["normal_pages"] > whole:
                self.now += self.extra + crowded
                self.spent["first copies"] += self.extra
                self.spent["wait"] += crowded
            if self.channels:
                self.wait_until(self.channels.hand_over_full(self.now))
            if self.design.live:
                self.channel_free = self.now
            if not counts:
                continue
            if calls % 64 == 0 and budget_ms is not None and (self.now - begin) // MS > budget_ms:
                break
            calls += 1
        self.source.advance(self.now)
        self.stream.buffered(13)
        self.stream.flush()

    def wait_until(self, then):
        self.locked_out += then - self.now
        self.now = then

    def flush_channels(self):
        if self.channels:
            self.spend("wait", self.channels.flush(self.now) - self.now)

    def read(self, page, counts):
        """Read a page and put it into the stream; whether it counts as one sent."""
        same = self.copy[page] == self.version[page]
        self.redundant += same
        self.copy[page] = self.version[page]
        zero = page in self.seen_zero
        self.wrapped = not self.switches and (self.wrapped or (self.syncs > 1 and page // 64 < self.last_word))
        self.last_word = page // 64
        if self.cache and self.wrapped:
            whole = self.cache.compare(page, zero, same, counts, self.syncs, self.running)
            if not whole:
                return not same
        if self.channels and (not zero or self.case.zero_detection == "multifd"):
            self.channels.queue.append(zero)
        elif zero or not self.wrapped or not self.case.xbzrle or not self.running:
            self.stream.page(zero)
        else:
            self.stream.buffered(4104)
        counts["zero_pages" if zero else "normal_pages"] += 1
        return True

    def fetch(self, wanted):
        before = self.worth(self.counts)
        fetched = self.log.fetch(self.design, wanted, self.counts)
        if not self.design.late:
            self.log.reset(self.counts)
        self.take_time(self.worth(self.counts) - before)
        return fetched

    def rearm_late(self):
        if self.late_page is not None:
            before = self.worth(self.counts)
            self.log.rearm_page(self.late_page, self.counts)
            self.unpaid += self.worth(self.counts) - before
            self.late_page = None
        if not self.design.holds():
            before = self.worth(self.counts)
            self.log.reset(self.counts)
            self.take_time(self.worth(self.counts) - before)

    def take_time(self, ps):
        self.now += ps
        self.fetching += ps

    def pending(self):
        return self.design.pending() + (0 if self.design.room() is None else self.log.backlog)

    # -- syncs

    def close(self):
        if self.opened is None:
            return
        now = totals(self)
        row = {name: value - self.opened[name] for name, value in now.items()}
        row.update({name: value for name, value in self.opened.items() if name not in now})
        row.update(kring_used_max=self.log.used_max, ring_used_max=self.design.used_max, end_ns=self.now // 1000)
        self.log.used_max = self.design.used_max = 0
        self.rounds.append(row)

    def spend(self, what, ps):
        self.spent[what] += ps
        self.now += ps

    def sync(self, cause):
        self.source.advance(self.now)
        self.close()
        self.opened = totals(self) if self.rounds else dict.fromkeys(totals(self), 0)
        self.opened.update(
            round=len(self.rounds) + 1, cause=cause, sync_begin_ns=self.now // 1000,
            pending_before_pages=self.pending(), threshold_bytes=self.threshold, throttle_pct=self.throttle.pct,
        )  # fmt: skip
        if self.running:
            self.wait_for_vcpus()
        if len(self.rounds) == 1:
            self.extra = 0
            if self.channels:
                self.channels.page_ps -= self.case.fixed["first_copy"]
        kicks, before = self.counts["vcpu_kicks"], self.worth(self.counts)
        self.design.before_harvest(self.counts)
        self.log.harvest(self.design, self.counts)
        if self.source.outside_used:
            self.counts["device_words"] += self.design.padded_words
            for page in sorted(self.source.outside):
                self.counts["fan_out"] += 1
                self.design.mark_ram(page, self.counts)
            self.source.outside.clear()
        harvested = self.worth(self.counts)
        new = self.design.sync(self.counts)
        done = self.worth(self.counts)
        self.spend("harvest", harvested - before)
        self.spend("sync", done - harvested + self.case.fixed["sync"])
        self.opened.update(sync_end_ns=self.now // 1000, dirty_pages=new, pending_after_pages=self.pending())
        self.pending_at_sync.append(self.pending())
        if self.running:
            self.busy_until = self.now
            if self.counts["vcpu_kicks"] > kicks:
                for lane in set(range(len(self.guest.lanes))) - set(self.source.held):
                    self.guest.stall(lane, self.case.prices["vcpu_kicks"], "sync")
        now_ms = self.now // MS
        self.rate["pages"] += new
        self.syncs = self.opened["round"]
        if self.running and self.case.dirty_limit and now_ms > self.rate["last"] + 1000:
            quota, period_ms, trigger = self.case.dirty_limit
            if self.rate["pages"] * 4096 > (self.stream.flushed - self.rate.get("bytes", 0)) * trigger // 100:
                self.strikes += 1
                if self.strikes == 2:
                    self.log.limit(quota, period_ms * MS, now_ms * MS)
        if self.running and self.case.auto_converge and now_ms > self.rate["last"] + 1000:
            dirty, sent = self.rate["pages"] * 4096, self.stream.flushed - self.rate.get("bytes", 0)
            self.throttle.decide(self.now, dirty, sent)
        if now_ms > self.rate["last"] + 1000:
            self.rate["value"] = self.rate["pages"] * 1000 // (now_ms - self.rate["last"])
            self.rate.update(last=now_ms, pages=0, bytes=self.stream.flushed)

    def wait_for_vcpus(self):
        self.spend("wait", max(0, self.throttle.nap_end - self.now))
        self.source.advance(self.now)

    def sync_in_background(self):
        self.background += 5000 * MS
        syncs = len(self.rounds) + 1
        if syncs > 1 and syncs == self.syncs_then:
            self.sync("background")
        self.syncs_then = len(self.rounds) + 1

    # -- the loop

    def run(self):
        case = self.case
        self.spend("other", case.fixed["connect"])
        self.window["ms"] = self.now // MS
        if case.auto_converge and case.version in ("10.0", "10.2"):
            self.background = self.now + 5000 * MS
        self.spend("other", case.fixed["setup"] + case.n_pages * case.fixed["setup_page"])
        self.stream.buffered(case.fixed_bytes["setup"])
        self.stream.flush()
        self.flush_channels()
        self.sync("setup")
        self.limit = case.max_bandwidth // 10
        completed = False
        while self.now < case.give_up_ns * 1000 and not completed:
            if not self.exceeded():
                self.spend("other", case.fixed["loop_pass"])
                if self.background is not None and self.background <= self.now:
                    self.sync_in_background()
                if self.pending() * 4096 < self.threshold:
                    self.sync("estimate")
                pending = self.pending() * 4096
                completed = pending == 0 or pending < self.threshold
                if case.version == "10.2":
                    completed = pending <= self.threshold
                due = case.postcopy is not None and self.now >= case.postcopy[0] * MS
                if due and (not completed or case.version == "10.2"):
                    completed = self.switches = True
                if completed:
                    break
                sent = self.pages_sent()
                self.iterate(50)
                if self.pages_sent() == sent:
                    self.spend("other", max(0, (self.window["ms"] + 100) * MS - self.now))
                    self.source.advance(self.now)
            self.limit_rate()
        self.completed = completed
        if completed:
            self.finish()
        else:
            self.close()
            self.opened = None
        self.rounds_transferred = self.stream.flushed
        if case.version == "7.2":
            both = self.counts + self.aside
            whole = self.normal_bytes * both["normal_pages"]
            self.rounds_transferred = whole + self.zero_bytes * both["zero_pages"] + 707
            if case.xbzrle:
                deltas = both["xbzrle_pages"] - both["xbzrle_same"] - both["xbzrle_overflows"]
                self.rounds_transferred += deltas * (11 + case.xbzrle[2])
        return self

    def finish(self):
        begin_ms = self.begin_ms = self.now // MS
        self.wait_for_vcpus()
        self.spend("other", self.case.fixed["vm_stop"])
        self.source.advance(self.now)
        self.running, self.stopped, self.limit = False, self.now, 0
        if self.switches:
            Postcopy(self).run()
            return
        self.sync("final")
        self.iterate(None)
        self.flush_channels()
        self.stream.buffered(self.case.fixed_bytes["device_state"])
        self.stream.flush()
        self.spend("other", self.case.fixed["device_state"])
        self.close()
        self.downtime_ms = self.now // MS - begin_ms

    def pages_sent(self):
        both = self.counts + self.aside
        return both["normal_pages"] + both["zero_pages"] + both["xbzrle_pages"]

    def limit_rate(self):
        now_ms = self.now // MS
        if self.channels:
            self.channels.settle(self.now)
        spent = now_ms - self.window["ms"]
        if spent >= 100:
            pages = self.pages_sent()
            sent = self.stream.flushed - self.window["bytes"]
            self.threshold = int(sent / spent * self.case.downtime_ms)
            self.pps = (pages - self.window["pages"]) / (spent / 1000)
            self.window = {"ms": now_ms, "bytes": self.stream.flushed, "pages": pages}
        if self.exceeded():
            awake = self.now + max(0, self.window["ms"] + 100 - now_ms) * MS + self.case.fixed["oversleep"]
            if self.background is not None and self.background < awake:
                self.spend("wait", max(0, self.background - self.now))
                self.sync_in_background()
            self.spend("wait", max(0, awake - self.now))
            self.source.advance(self.now)
            if self.channels:
                self.channels.settle(self.now)

    def lost(self):
        """Pages whose version at the target is not the source's: asked of versions, not of any dirty tracking."""
        return sum(copy != version for copy, version in zip(self.copy, self.version, strict=True))
