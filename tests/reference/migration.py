"""A second implementation of everything the engine does, in sets, deques and Python integers.

It shares no code with the package apart from the names of counters and columns. Slow, obvious, one page at a time: what
it says a migration does, the engine must say too, in every column of every round.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from tests.reference.case import MS, Case
from tests.reference.designs import DESIGNS
from tests.reference.logs import LOGS


class Stream:
    """Bytes on their way: a list of pieces, each ("buffer", n) or ("page", 4096)."""

    def __init__(self):
        self.flushed = 0
        self.flushes = 0
        self.pieces: list[list] = []

    @property
    def queued(self):
        return sum(size for _, size in self.pieces)

    def flush(self):
        self.flushes += bool(self.pieces)
        self.flushed += self.queued
        self.pieces = []

    def buffered(self, count):
        for _ in range(count):
            if not self.pieces or self.pieces[-1][0] != "buffer":
                self.pieces.append(["buffer", 0])
            self.pieces[-1][1] += 1
            if len(self.pieces) >= 64 or sum(size for kind, size in self.pieces if kind == "buffer") == 32768:
                self.flush()

    def page(self, zero):
        if zero:
            self.buffered(9)
            return
        self.buffered(8)
        self.pieces.append(["page", 4096])
        if len(self.pieces) >= 64:
            self.flush()


@dataclass
class Guest:
    """Events of each lane in host time, delayed by the lane's own stalls."""

    case: Case
    per_vcpu: bool
    lanes: list[deque] = field(default_factory=list)
    delay: list[int] = field(default_factory=list)
    stalled: list[int] = field(default_factory=list)
    cycles: list[int] = field(default_factory=list)

    def __post_init__(self):
        count = self.case.n_vcpus + 1 if self.per_vcpu else 1
        self.delay, self.stalled = [0] * count, [0] * count
        self.all = [
            [(t, page, vcpu) for t, page, vcpu in self.case.events if count == 1 or (vcpu % count) == lane]
            for lane in range(count)
        ]
        self.lanes = [
            deque((t - self.case.start_ns, p, v) for t, p, v in own if t >= self.case.start_ns) for own in self.all
        ]
        self.cycles = [1] * count
        self.napped = 0

    def head(self, lane):
        """(host time, page, vcpu) of the lane's next event, repeating the recording when asked; None when it is over."""
        if not self.lanes[lane] and self.case.loop and self.all[lane]:
            shift = self.cycles[lane] * self.case.duration_ns - self.case.start_ns
            self.lanes[lane].extend((t + shift, p, v) for t, p, v in self.all[lane])
            self.cycles[lane] += 1
        if not self.lanes[lane]:
            return None
        t, page, vcpu = self.lanes[lane][0]
        return t * 1000 + self.delay[lane], page, vcpu

    def sleep(self, ps):
        """All lanes sleep."""
        self.napped += ps
        self.delay = [delay + ps for delay in self.delay]

    def stall(self, lane, ps):
        self.stalled[lane] += ps
        if self.case.closed_loop:
            self.delay[lane] += ps


class Migration:
    def __init__(self, case: Case):
        self.case = case
        self.log, self.design = LOGS[case.log](case), DESIGNS[case.design](case)
        self.guest = Guest(case, self.log.per_vcpu)
        self.stream = Stream()
        self.counts, self.aside = Counter(), Counter()
        self.now = 0
        self.busy_until = 0
        self.running, self.stopped = True, None
        self.stale = set(range(case.n_pages))
        self.live_zero = set(case.zero)
        self.seen_zero = set(case.zero)
        self.version = [1] * case.n_pages  # of the content at the source
        self.copy = [0] * case.n_pages  # version at the target
        self.redundant = 0
        self.threshold = 0
        self.window = {"ms": 0, "bytes": 0, "pages": 0}
        self.limit = 0
        self.pps = 0.0
        self.mbps = 0.0
        self.rate = {"last": 0, "pages": 0, "value": 0}
        self.iterate_calls = 0
        self.spent = Counter()
        self.rounds: list[dict] = []
        self.opened: dict | None = None
        self.pending_at_sync: list[set[int]] = []
        self.pct, self.tick, self.every, self.nap, self.nap_end = 0, None, 0, 0, 0
        self.throttle_steps: list[tuple[int, int]] = []
        self.strikes = 0
        self.background, self.syncs_then = None, 0
        self.extra = case.fixed["first_copy"]

    # -- the guest

    def advance(self, until):
        if not self.running:
            return
        while True:
            heads = [
                (head[0], lane) for lane in range(len(self.guest.lanes)) if (head := self.guest.head(lane)) is not None
            ]
            at, lane = min(heads, default=(None, None))
            wake = None if self.log.next_wake is None else max(self.log.next_wake, self.busy_until)
            tick = self.tick
            if tick is not None and tick <= until and (at is None or tick < at) and (wake is None or tick <= wake):
                self.nap_end = tick + self.nap
                self.tick += self.every
                if self.case.closed_loop and not self.case.recorded_throttled:
                    done = 10 * MS * 100 // self.case.busy_pct
                    self.guest.sleep(max(0, self.every - done))
                continue
            if wake is not None and wake <= until and (at is None or wake < at):
                self.log.wake(self.design, wake, self.aside)
                continue
            if at is None or at > until:
                return
            _, page, vcpu = self.guest.head(lane)
            self.guest.lanes[lane].popleft()
            self.aside["guest_writes"] += 1
            if vcpu < 0:
                self.design.mark_ram(page, self.aside)
                stall = 0
            else:
                stall = self.log.write(self.design, page, vcpu, self.aside)
            self.version[page] += 1
            self.stale.add(page)
            self.live_zero.discard(page)
            if stall:
                self.guest.stall(lane, stall + max(0, self.busy_until - at))

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
        self.advance(self.now)
        while not self.exceeded():
            self.advance(self.now)
            before = self.worth(self.counts)
            page = self.design.pop(self.counts)
            if page is None:
                self.now += self.worth(self.counts) - before
                break
            self.log.before_read(page, self.counts)
            self.redundant += page not in self.stale
            self.stale.discard(page)
            self.copy[page] = self.version[page]
            self.counts["zero_pages" if page in self.seen_zero else "normal_pages"] += 1
            self.stream.page(page in self.seen_zero)
            self.now += self.worth(self.counts) - before
            if page not in self.seen_zero:
                self.now += self.extra
                self.spent["first copies"] += self.extra
            if calls % 64 == 0 and budget_ms is not None and (self.now - begin) // MS > budget_ms:
                break
            calls += 1
        self.advance(self.now)
        self.stream.buffered(13)
        self.stream.flush()

    # -- syncs

    def totals(self):
        both = self.counts + self.aside
        lanes = len(self.guest.lanes)
        stalled = sum(self.guest.stalled)
        ran = self.now if self.stopped is None else self.stopped
        pages = (
            self.case.prices["normal_pages"] * self.counts["normal_pages"]
            + self.case.prices["zero_pages"] * self.counts["zero_pages"]
        )
        finding = (
            "find_calls",
            "find_words",
            "summary_words",
            "refind_calls",
            "ring_pops",
            "stale_pops",
            "clear_ioctls",
            "clear_words",
            "clear_pages",
        )
        totals = {name: both[name] for name in self.case.prices}
        totals["flushes"] = self.stream.flushes
        totals.update(
            guest_ns=(ran * lanes - stalled - lanes * self.guest.napped) // (1000 * lanes),
            sent_bytes=self.stream.flushed + self.stream.queued,
            redundant_pages=self.redundant,
            iterate_calls=self.iterate_calls,
            modelled_stall_ns=stalled // 1000,
            modelled_find_ns=sum(self.case.prices[name] * self.counts[name] for name in finding) // 1000,
            modelled_send_ns=(pages + self.spent["first copies"]) // 1000,
            modelled_aside_ns=self.worth(self.aside) // 1000,
        )
        totals.update(
            {f"modelled_{name}_ns": self.spent[name] // 1000 for name in ("harvest", "sync", "wait", "other")}
        )
        return totals

    def close(self):
        if self.opened is None:
            return
        totals = self.totals()
        row = {name: value - self.opened[name] for name, value in totals.items()}
        row.update({name: value for name, value in self.opened.items() if name not in totals})
        row.update(kring_used_max=self.log.used_max, ring_used_max=self.design.used_max, end_ns=self.now // 1000)
        self.log.used_max = self.design.used_max = 0
        self.rounds.append(row)

    def spend(self, what, ps):
        self.spent[what] += ps
        self.now += ps

    def sync(self, cause):
        self.advance(self.now)
        self.close()
        self.opened = self.totals() if self.rounds else dict.fromkeys(self.totals(), 0)
        self.opened.update(
            round=len(self.rounds) + 1, cause=cause, sync_begin_ns=self.now // 1000,
            pending_before_pages=len(self.design.waiting), threshold_bytes=self.threshold, throttle_pct=self.pct,
        )  # fmt: skip
        if self.running:
            self.wait_for_vcpus()
        if len(self.rounds) == 1:
            self.extra = 0
        kicks, before = self.counts["vcpu_kicks"], self.worth(self.counts)
        self.design.before_harvest(self.counts)
        self.log.harvest(self.design, self.counts)
        harvested = self.worth(self.counts)
        new = self.design.sync(self.counts)
        done = self.worth(self.counts)
        self.spend("harvest", harvested - before)
        self.spend("sync", done - harvested + self.case.fixed["sync"])
        self.opened.update(sync_end_ns=self.now // 1000, dirty_pages=new, pending_after_pages=len(self.design.waiting))
        self.pending_at_sync.append(set(self.design.waiting))
        if self.running:
            self.busy_until = self.now
            if self.counts["vcpu_kicks"] > kicks:
                for lane in range(len(self.guest.lanes)):
                    self.guest.stall(lane, self.case.prices["vcpu_kicks"])
        now_ms = self.now // MS
        self.rate["pages"] += new
        if self.running and self.case.auto_converge and now_ms > self.rate["last"] + 1000:
            self.decide(now_ms)
        if now_ms > self.rate["last"] + 1000:
            self.rate["value"] = self.rate["pages"] * 1000 // (now_ms - self.rate["last"])
            self.rate.update(last=now_ms, pages=0, bytes=self.stream.flushed)

    def wait_for_vcpus(self):
        self.spend("wait", max(0, self.nap_end - self.now))
        self.advance(self.now)

    def decide(self, now_ms):
        initial, increment, maximum, tailslow, trigger = self.case.auto_converge
        dirty = self.rate["pages"] * 4096
        allowed = (self.stream.flushed - self.rate.get("bytes", 0)) * trigger // 100
        if dirty <= allowed:
            return
        self.strikes += 1
        if self.strikes % 2:
            return
        step = increment
        if self.pct and tailslow:
            now = 100 - self.pct
            step = min(now - now * allowed // dirty, increment)
        pct = min(self.pct + step if self.pct else initial, maximum, 99)
        self.every, self.nap = 10 * MS * 100 // (100 - pct), 10 * MS * pct // (100 - pct)
        if self.pct == 0:
            self.tick = self.now
        self.pct = pct
        self.throttle_steps.append((now_ms, pct))

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
        self.sync("setup")
        self.limit = case.max_bandwidth // 10
        completed = False
        while self.now < case.give_up_ns * 1000 and not completed:
            if not self.exceeded():
                self.spend("other", case.fixed["loop_pass"])
                if self.background is not None and self.background <= self.now:
                    self.sync_in_background()
                if len(self.design.waiting) * 4096 < self.threshold:
                    self.sync("estimate")
                pending = len(self.design.waiting) * 4096
                completed = pending == 0 or pending < self.threshold
                if case.version == "10.2":
                    completed = pending <= self.threshold
                if completed:
                    break
                self.iterate(50)
            self.limit_rate()
        self.completed = completed
        if completed:
            self.finish()
        else:
            self.close()
            self.opened = None
        self.rounds_transferred = self.stream.flushed
        if case.version == "7.2":
            self.rounds_transferred = 4104 * self.counts["normal_pages"] + 9 * self.counts["zero_pages"] + 707
        return self

    def finish(self):
        begin_ms = self.now // MS
        self.wait_for_vcpus()
        self.spend("other", self.case.fixed["vm_stop"])
        self.advance(self.now)
        self.running, self.stopped, self.limit = False, self.now, 0
        self.sync("final")
        self.iterate(None)
        self.stream.buffered(self.case.fixed_bytes["device_state"])
        self.stream.flush()
        self.spend("other", self.case.fixed["device_state"])
        self.close()
        self.downtime_ms = self.now // MS - begin_ms

    def limit_rate(self):
        now_ms = self.now // MS
        spent = now_ms - self.window["ms"]
        if spent >= 100:
            pages = self.counts["normal_pages"] + self.counts["zero_pages"]
            sent = self.stream.flushed - self.window["bytes"]
            self.threshold = int(sent / spent * self.case.downtime_ms)
            self.mbps = sent * 8 / (spent / 1000) / 1e6
            self.pps = (pages - self.window["pages"]) / (spent / 1000)
            self.window = {"ms": now_ms, "bytes": self.stream.flushed, "pages": pages}
        if self.exceeded():
            awake = self.now + max(0, self.window["ms"] + 100 - now_ms) * MS + self.case.fixed["oversleep"]
            if self.background is not None and self.background < awake:
                self.spend("wait", max(0, self.background - self.now))
                self.sync_in_background()
            self.spend("wait", max(0, awake - self.now))
            self.advance(self.now)

    def lost(self):
        """Pages whose version at the target is not the source's: asked of versions, not of any dirty tracking."""
        return sum(copy != version for copy, version in zip(self.copy, self.version, strict=True))
