"""A second implementation of everything the engine does, in sets, deques and Python integers.

It shares no code with the package apart from the names of counters and columns. Slow, obvious, one page at a time: what
it says a migration does, the engine must say too, in every column of every round.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field, replace

from tests.reference.case import DMA, MS, VHOST, Case
from tests.reference.designs import Bitmap, DoubleRing, HierarchicalBitmap
from tests.reference.live_designs import DirectReap, RingBackground, RingFallback, RingOnly
from tests.reference.logs import HELD, LOGS, REFUSED

DESIGNS = {
    "bitmap": Bitmap, "hierarchical-bitmap": HierarchicalBitmap, "double-ring": DoubleRing, "direct-reap": DirectReap,
    "ring-only": RingOnly, "ring-fallback": RingFallback, "ring-background": RingBackground,
}  # fmt: skip


class Stream:
    """Bytes on their way: a list of pieces, each ("buffer", n) or ("page", 4096)."""

    def __init__(self, zero_bytes=9, mapped=False):
        self.zero_bytes, self.mapped = zero_bytes, mapped
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
        while count:
            if not self.pieces or self.pieces[-1][0] != "buffer":
                self.pieces.append(["buffer", 0])
            part = min(count, 32768 - sum(size for kind, size in self.pieces if kind == "buffer"))
            self.pieces[-1][1] += part
            count -= part
            if len(self.pieces) >= 64 or sum(size for kind, size in self.pieces if kind == "buffer") == 32768:
                self.flush()

    def page(self, zero):
        if zero:
            self.buffered(self.zero_bytes)
            return
        if self.mapped:
            self.flush()
            self.flushed += 4096
            return
        self.buffered(8)
        self.pieces.append(["page", 4096])
        if len(self.pieces) >= 64:
            self.flush()


class Channels:
    """multifd: packets on their way, a list of (when it has left, bytes) of at most one a channel."""

    def __init__(self, case: Case, stream: Stream, counts: Counter):
        self.case, self.stream, self.counts = case, stream, counts
        self.queue: list[bool] = []  # whether a queued page is zero
        self.under_way: list[tuple[int, int]] = []
        self.bytes = 0
        self.page_ps = case.prices["normal_pages"] + case.fixed["first_copy"]
        self.arrive(64 * case.channels)

    def arrive(self, size):
        self.stream.flushed += size
        self.bytes += size

    def settle(self, now):
        for packet in [packet for packet in self.under_way if packet[0] <= now]:
            self.under_way.remove(packet)
            self.arrive(packet[1])

    def hand_over(self, pages, now):
        """Returns when a channel took the packet."""
        if len(self.under_way) == self.case.channels:
            now = max(now, min(self.under_way)[0])
        self.settle(now)
        zero = sum(pages)
        took = (len(pages) - zero) * self.page_ps + zero * self.case.prices["zero_pages"]
        self.under_way.append((now + took, 1344 + 4096 * (len(pages) - zero)))
        self.counts["multifd_packets"] += 1
        return now

    def hand_over_full(self, now):
        if len(self.queue) <= 128:
            return now
        packet, self.queue = self.queue[:128], self.queue[128:]
        return self.hand_over(packet, now)

    def flush(self, now):
        if self.queue:
            now = self.hand_over(self.queue, now)
            self.queue = []
        now = max([now, *(left for left, _ in self.under_way)])
        self.settle(now)
        self.arrive(1344 * self.case.channels)
        self.counts["multifd_packets"] += self.case.channels
        self.stream.buffered(8)
        self.stream.flush()
        return now


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
            [(t, page, writer) for t, page, writer in self.case.events if count == 1 or self.lane_of(writer) == lane]
            for lane in range(count)
        ]
        self.lanes = [
            deque((t - self.case.start_ns, p, v) for t, p, v in own if t >= self.case.start_ns) for own in self.all
        ]
        self.cycles = [1] * count
        self.napped = 0

    def lane_of(self, writer):
        """A vCPU's lane for what happens on its thread, the last one for devices."""
        if writer in (DMA, VHOST):
            return self.case.n_vcpus
        return writer if writer >= 0 else -10 - writer

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
        self.normal_bytes, self.zero_bytes = 4104, 9
        if case.zero_detection == "none":
            case = replace(case, zero=set())
        if case.mapped_ram:
            self.normal_bytes, self.zero_bytes = 4096, 0
        self.case = case
        self.log, self.design = LOGS[case.log](case), DESIGNS[case.design](case)
        self.guest = Guest(case, self.log.per_vcpu or self.design.per_vcpu)
        self.held: dict[int, tuple[int, int]] = {}  # lane: (since when, when it tries again)
        self.outside: set[int] = set()
        self.outside_used = False
        self.channel_free = self.fetching = self.locked_out = 0
        self.late_page: int | None = None
        self.stream = Stream(self.zero_bytes, case.mapped_ram)
        self.counts, self.aside = Counter(), Counter()
        self.channels = Channels(case, self.stream, self.counts) if case.channels else None
        self.channel_prices = {}
        if case.channels:
            with_zeros = ["zero_pages"] if case.zero_detection == "multifd" else []
            self.channel_prices = dict.fromkeys(["normal_pages", *with_zeros], case.fixed["multifd_page"])
            case = self.case = replace(case, prices=case.prices | self.channel_prices)
        self.rounds_seen = 0
        self.now = 0
        self.busy_until = 0
        self.running, self.stopped, self.resumed = True, None, None
        self.switches = False
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
        self.pending_at_sync: list[int] = []
        self.cache: dict[int, tuple[int, int]] = {}  # of xbzrle: slot to (page, sync of its last use)
        self.compared = self.syncs = self.last_word = 0
        self.wrapped = False
        self.unpaid = 0  # work done between two pages, part of the next one's time
        self.pct, self.tick, self.every, self.nap, self.nap_end = 0, None, 0, 0, 0
        self.throttle_steps: list[tuple[int, int]] = []
        self.strikes = 0
        self.background, self.syncs_then = None, 0
        self.extra = 0 if self.channels else case.fixed["first_copy"]

    # -- the guest

    def advance(self, until):
        if not self.running:
            return
        while True:
            heads = [
                (self.held[lane][1] if lane in self.held else head[0], lane)
                for lane in range(len(self.guest.lanes))
                if lane in self.held or (head := self.guest.head(lane)) is not None
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
                self.send_urgent(wake)
            elif at is None or at > until:
                return
            elif lane in self.held:
                self.let_go(lane, at, until)
            else:
                self.event(lane, at, until)

    def event(self, lane, at, until):
        _, page, writer = self.guest.head(lane)
        stall = 0
        if writer >= 0:
            stall = self.log.write(self.design, page, writer, self.aside)
        elif writer == DMA:
            self.aside["fan_out"] += 1
            self.design.mark_ram(page, self.aside)
        elif writer == VHOST:
            self.outside.add(page)
            self.outside_used = True
        else:
            stall = self.log.write_host(self.design, page, -10 - writer, self.aside)
        if stall == REFUSED:
            self.aside["vcpu_holds"] += 1
            self.held[lane] = (at, until + 1)
            return
        self.guest.lanes[lane].popleft()
        self.aside["guest_writes"] += 1
        if writer < 0:
            self.aside[{DMA: "dma_writes", VHOST: "outside_writes"}.get(writer, "host_writes")] += 1
        self.version[page] += 1
        self.stale.add(page)
        self.live_zero.discard(page)
        sending = self.send_urgent(at)
        if stall == HELD:
            self.held[lane] = (at, until + 1)
            self.let_go(lane, at, until)
        elif stall or sending:
            self.guest.stall(lane, stall + sending + max(0, self.busy_until - at))

    def let_go(self, lane, at, until):
        since, _ = self.held[lane]
        took = self.log.unblock(self.design, lane, self.aside)
        if took is None:
            self.aside["vcpu_holds"] += at == since
            self.held[lane] = (since, until + 1)
            return
        took += self.send_urgent(at)
        del self.held[lane]
        self.guest.stall(lane, at - since)
        if took:
            self.guest.stall(lane, took + max(0, self.busy_until - at))

    def send_urgent(self, at):
        """Pages that whoever marked them at `at` must send itself. Returns how long it takes."""
        begin = at
        while (page := self.design.urgent()) is not None:
            self.log.rearm_page(page, self.aside)
            before, whole = self.worth(self.aside), self.aside["normal_pages"]
            self.read(page, self.aside)
            self.aside["producer_sends"] += 1
            if self.case.closed_loop:
                at = max(at, self.channel_free)
            at += self.worth(self.aside) - before
            if self.aside["normal_pages"] > whole:
                at += self.extra
                self.spent["first copies aside"] += self.extra
            self.channel_free = max(self.channel_free, at)
        return at - begin

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
        crowded = self.case.fixed["crowded_page"] if self.crowds() else 0
        while True:
            if self.design.late:
                self.advance(self.now)
                self.rearm_late()
            if self.channels:
                self.channels.settle(self.now)
            if self.exceeded():
                break
            self.advance(self.now)
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
        self.advance(self.now)
        self.stream.buffered(13)
        self.stream.flush()

    def crowds(self):
        return self.running and self.pct > 0 and self.every >= 200 * MS and self.nap_end <= self.now < self.tick

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
        self.stale.discard(page)
        self.copy[page] = self.version[page]
        zero = page in self.seen_zero
        self.wrapped = not self.switches and (self.wrapped or (self.syncs > 1 and page // 64 < self.last_word))
        self.last_word = page // 64
        if self.case.xbzrle and self.wrapped and not self.compare(page, zero, same, counts):
            return not same
        if self.channels and (not zero or self.case.zero_detection == "multifd"):
            self.channels.queue.append(zero)
        elif zero or not self.wrapped or not self.case.xbzrle or not self.running:
            self.stream.page(zero)
        else:
            self.stream.buffered(4104)
        counts["zero_pages" if zero else "normal_pages"] += 1
        return True

    def compare(self, page, zero, same, counts):
        """Look a page up in the cache of xbzrle; whether it must be sent whole."""
        slots, share, size = self.case.xbzrle
        now = self.syncs
        held, used = self.cache.get(page % slots, (None, 0))
        if zero or held != page:
            counts["xbzrle_misses"] += not zero
            free = held is None or held == page or now - used >= 2
            if free and (zero or self.running):
                self.cache[page % slots] = (page, now)
            return True
        self.cache[page % slots] = (page, now)
        counts["xbzrle_pages"] += 1
        if same:
            counts["xbzrle_same"] += 1
            return False
        self.compared += 1
        fits = self.compared * share // 10**6 > (self.compared - 1) * share // 10**6
        if not fits:
            counts["xbzrle_overflows"] += 1
            return True
        self.stream.buffered(11 + size)
        return False

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

    def totals(self):
        both = self.counts + self.aside
        lanes = len(self.guest.lanes)
        stalled = sum(self.guest.stalled)
        ran = self.now if self.stopped is None else self.stopped
        if self.resumed is not None:
            ran += max(0, self.now - self.resumed)
        pages = (
            self.case.prices["normal_pages"] * self.counts["normal_pages"]
            + self.case.prices["zero_pages"] * self.counts["zero_pages"]
            + sum(price * self.counts[name] for name, price in self.case.prices.items() if name.startswith("xbzrle"))
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
            "background_pops",
            "background_skips",
            "tlb_resets",
            "ring_refills",
            "producer_sends",
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
            modelled_aside_ns=(self.worth(self.aside) + self.spent["first copies aside"]) // 1000,
        )
        spent = self.spent + Counter(harvest=self.fetching, wait=self.locked_out)
        totals.update({f"modelled_{name}_ns": spent[name] // 1000 for name in ("harvest", "sync", "wait", "other")})
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
            pending_before_pages=self.pending(), threshold_bytes=self.threshold, throttle_pct=self.pct,
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
        if self.outside_used:
            self.counts["device_words"] += self.design.padded_words
            for page in sorted(self.outside):
                self.counts["fan_out"] += 1
                self.design.mark_ram(page, self.counts)
            self.outside.clear()
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
                for lane in set(range(len(self.guest.lanes))) - set(self.held):
                    self.guest.stall(lane, self.case.prices["vcpu_kicks"])
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
                    self.advance(self.now)
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
        self.advance(self.now)
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
            if self.channels:
                self.channels.settle(self.now)

    def lost(self):
        """Pages whose version at the target is not the source's: asked of versions, not of any dirty tracking."""
        return sum(copy != version for copy, version in zip(self.copy, self.version, strict=True))


class Postcopy:
    """The guest at the target: each lane runs, or waits for a page."""

    def __init__(self, migration: Migration):
        self.m, self.fixed = migration, migration.case.fixed
        _, self.bandwidth, self.recorded_from = migration.case.postcopy
        self.own_waits = self.recorded_from is not None or not migration.case.closed_loop
        self.missing: set[int] = set()
        self.cursor = 0
        self.waits: dict[int, tuple[int, int]] = {}  # lane: (since when, for which page)
        self.free = 0
        self.free_of: dict[int, int] = {}

    def run(self):
        m = self.m
        m.sync("postcopy")
        m.seen_zero &= m.live_zero
        before = m.worth(m.counts)
        while (page := self.next_page()) is not None:
            self.missing.add(page)
        m.unpaid += m.worth(m.counts) - before - self.fetched
        runs = sum(page - 1 not in self.missing for page in self.missing)
        m.spend("other", runs * self.fixed["discard_run"])
        m.stream.buffered(m.case.fixed_bytes["device_state"])
        m.stream.flush()
        m.spend("other", self.fixed["device_state"])
        m.downtime_ms = m.now // MS - m.begin_ms
        self.free = m.resumed = m.now + self.fixed["target_run"]
        for lane in range(len(m.guest.lanes)):
            if self.recorded_from is not None:
                m.guest.delay[lane] = self.free - self.recorded_from * 1000 + m.case.start_ns * 1000
            elif not self.own_waits:
                m.guest.delay[lane] += self.free - m.stopped
        m.spend("wait", self.fixed["target_listen"])
        m.limit = self.bandwidth // 10
        while self.missing:
            if not m.exceeded():
                m.spend("other", self.fixed["loop_pass"])
                if len(self.missing) * 4096 < m.threshold:
                    m.limit = 0
                    self.iterate(None)
                    break
                self.iterate(50)
            m.limit_rate()
        m.spend("wait", self.fixed["fault_place"])
        m.close()

    fetched = 0

    def next_page(self):
        m = self.m
        while m.design.live and (wanted := m.design.appetite()):
            before = m.worth(m.counts)
            found = m.fetch(wanted)
            self.fetched += m.worth(m.counts) - before
            if not found:
                break
        return m.design.pop(m.counts)

    def iterate(self, budget_ms):
        m = self.m
        m.iterate_calls += 1
        m.stream.buffered(5)
        begin, calls = m.now, 0
        while not m.exceeded():
            self.touch(m.now)
            asked = [wait for wait in self.waits.values() if wait[0] + self.fixed["fault_request"] <= m.now]
            asked = [wait for wait in asked if wait[1] in self.missing]
            ahead = [page for page in self.missing if page >= self.cursor]
            if not self.missing:
                break
            page = min(asked, key=lambda wait: wait[0])[1] if asked else min(ahead or self.missing)
            self.cursor = page + 1
            self.missing.discard(page)
            before, whole = m.worth(m.counts), m.counts["normal_pages"]
            m.read(page, m.counts)
            m.counts["postcopy_pages"] += 1
            m.now += m.worth(m.counts) - before + m.unpaid
            m.unpaid = 0
            if m.counts["normal_pages"] > whole:
                m.now += m.extra
                m.spent["first copies"] += m.extra
            m.wait_until(m.now + self.fixed["postcopy_page"])
            self.placed(page, m.now + self.fixed["fault_place"])
            if calls % 64 == 0 and budget_ms is not None and (m.now - begin) // MS > budget_ms:
                break
            calls += 1
        m.stream.buffered(13)
        m.stream.flush()

    def touch(self, until):
        guest = self.m.guest
        while True:
            heads = [
                (max(head[0], self.free_of.get(lane, self.free)), lane)
                for lane in range(len(guest.lanes))
                if lane not in self.waits and (head := guest.head(lane)) is not None
            ]
            at, lane = min(heads, default=(until + 1, None))
            if at > until:
                return
            t, page, _ = guest.lanes[lane][0]
            if self.recorded_from is not None and t + self.m.case.start_ns < self.recorded_from:
                guest.lanes[lane].popleft()
            elif page in self.missing:
                self.waits[lane] = (at, page)
                self.m.counts["postcopy_faults"] += 1
            else:
                guest.lanes[lane].popleft()

    def placed(self, page, time):
        guest = self.m.guest
        for lane in [lane for lane, (_, wanted) in self.waits.items() if wanted == page]:
            since, _ = self.waits.pop(lane)
            guest.lanes[lane].popleft()
            self.free_of[lane] = time
            guest.stalled[lane] += time - since
            if not self.own_waits:
                guest.delay[lane] += time - since
