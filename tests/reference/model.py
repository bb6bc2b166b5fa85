"""A second implementation of everything the engine does, in sets, deques and Python integers.

It shares no code with the package apart from the names of counters and columns. Slow, obvious, one page at a time: what
it says a migration does, the engine must say too, in every column of every round.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

MS = 1_000_000_000  # picoseconds


@dataclass
class Case:
    """One migration of a small guest. Times in ns, bandwidth in bytes a second."""

    n_pages: int
    n_vcpus: int
    events: list[tuple[int, int, int]]  # (t_ns, page, vcpu), ascending; vcpu -1: a device
    duration_ns: int
    zero: set[int]
    log: str
    design: str
    max_bandwidth: int
    downtime_ms: int
    prices: dict[str, int]
    fixed: dict[str, int]
    fixed_bytes: int
    kring_entries: int = 1024
    kring_reserved: int = 576
    reaper_ps: int = 10**12
    ring_entries: int = 1024
    group: int = 64
    refind: bool = True
    loop: bool = True
    closed_loop: bool = True
    give_up_ns: int = 60_000_000_000
    start_ns: int = 0


def words_of(pages: set[int]) -> int:
    return len({page // 64 for page in pages})


def span(first_page: int, last_page: int) -> int:
    """Words that a look from one page to another touches."""
    return last_page // 64 - first_page // 64 + 1


class Tcg:
    per_vcpu = False

    def __init__(self, case: Case):
        self.n_pages = case.n_pages
        self.armed = set(range(case.n_pages))
        self.next_wake = None
        self.used_max = 0

    def write(self, design, page, vcpu, counts):
        if page in self.armed:
            self.armed.discard(page)
            counts["logged_writes"] += 1
            design.mark_ram(page, counts)
        return 0

    def harvest(self, design, counts):
        self.armed = set(range(self.n_pages))

    def before_read(self, page, counts):
        pass


class KvmBitmap:
    per_vcpu = False
    CHUNK = 1 << 18

    def __init__(self, case: Case):
        self.n_pages, self.n_vcpus = case.n_pages, case.n_vcpus
        self.kernel = set(range(case.n_pages))
        self.snapshot: set[int] = set()
        self.to_clear: set[int] = set()
        self.next_wake = None
        self.used_max = 0

    def write(self, design, page, vcpu, counts):
        if page not in self.kernel:
            self.kernel.add(page)
            counts["logged_writes"] += 1
        return 0

    def harvest(self, design, counts):
        self.snapshot = set(self.kernel)
        self.to_clear = {page // self.CHUNK for page in range(self.n_pages)} | {self.n_pages // self.CHUNK}
        counts["vcpu_kicks"] += self.n_vcpus
        counts["log_ioctls"] += 1
        counts["l0_words"] += -(-self.n_pages // 64)
        design.fold(self.snapshot, True, counts)

    def before_read(self, page, counts):
        chunk = page // self.CHUNK
        if chunk not in self.to_clear:
            return
        self.to_clear.discard(chunk)
        first, stop = chunk * self.CHUNK, min((chunk + 1) * self.CHUNK, self.n_pages)
        cleared = {p for p in self.snapshot if first <= p < stop}
        self.kernel -= cleared
        self.snapshot -= cleared
        counts["clear_ioctls"] += 1
        counts["clear_words"] += -(-stop // 64) - first // 64
        counts["clear_pages"] += len(cleared)


class KvmRing:
    per_vcpu = True

    def __init__(self, case: Case):
        self.case = case
        self.rings = [deque() for _ in range(case.n_vcpus)]
        self.armed = set(range(case.n_pages))
        self.slots: set[int] = set()
        self.next_wake = case.reaper_ps
        self.used_max = 0

    def write(self, design, page, vcpu, counts):
        if page not in self.armed:
            return 0
        self.armed.discard(page)
        self.rings[vcpu].append(page)
        counts["logged_writes"] += 1
        self.used_max = max(self.used_max, len(self.rings[vcpu]))
        if len(self.rings[vcpu]) < self.case.kring_entries - self.case.kring_reserved:
            return 0
        mine = Counter({"kring_full_exits": 1})
        self.reap(design, mine)
        counts.update(mine)
        return sum(self.case.prices[name] * count for name, count in mine.items())

    def reap(self, design, counts):
        reaped = False
        for entries in self.rings:
            base, offsets = None, set()
            for page in entries:
                reaped = True
                if page in self.slots:
                    counts["kring_duplicates"] += 1
                design.mark_slot(self.slots, page, counts)
                self.armed.add(page)
                counts["kring_reaped"] += 1
                lowest = page if base is None else min(base, page)
                if base is not None and all(p - lowest < 64 for p in offsets | {page}):
                    base = lowest
                    offsets.add(page)
                else:
                    counts["kring_masks"] += 1
                    base, offsets = page, {page}
            entries.clear()
        if reaped:
            counts["kring_resets"] += 1

    def wake(self, design, now, counts):
        mine = Counter({"reaper_wakes": 1})
        self.reap(design, mine)
        counts.update(mine)
        took = sum(self.case.prices[name] * count for name, count in mine.items())
        self.next_wake = now + took + self.case.reaper_ps

    def harvest(self, design, counts):
        counts["vcpu_kicks"] += self.case.n_vcpus
        self.reap(design, counts)
        design.fold(self.slots, False, counts)

    def before_read(self, page, counts):
        pass


class Bitmap:
    def __init__(self, case: Case):
        self.n_pages, self.refind = case.n_pages, case.refind
        self.n_words = -(-case.n_pages // 64)
        self.ram: set[int] = set()
        self.waiting = set(range(case.n_pages))
        self.cursor = 0
        self.used_max = 0

    def mark_ram(self, page, counts):
        self.ram.add(page)

    def mark_slot(self, slots, page, counts):
        slots.add(page)

    def before_harvest(self, counts):
        pass

    def fold(self, slots, keep, counts):
        counts["l1_words"] += self.n_words
        counts["l1_touched"] += words_of(slots)
        counts["l1_pages"] += len(slots)
        self.ram |= slots
        if not keep:
            counts["l1_zeroed"] += self.n_words
            slots.clear()

    def merge(self, counts):
        counts["l2_words"] += self.n_words
        counts["l2_touched"] += words_of(self.ram)
        counts["l2_pages"] += len(self.ram)
        new = len(self.ram - self.waiting)
        self.waiting |= self.ram
        self.ram = set()
        return new

    sync = merge

    def search(self, counts):
        """The next waiting page at or after the cursor, or None (then the cursor is back at 0)."""
        counts["find_calls"] += 1
        ahead = [page for page in self.waiting if page >= self.cursor]
        if self.cursor < self.n_pages:
            counts["find_words"] += span(self.cursor, min(ahead, default=self.n_pages - 1))
        if not ahead:
            self.cursor = 0
            return None
        page = min(ahead)
        self.cursor = page + 1
        return self.sent(page, counts)

    def sent(self, page, counts):
        self.waiting.discard(page)
        counts["refind_calls"] += int(self.refind)
        return page

    def pop(self, counts):
        page = self.search(counts)
        return self.search(counts) if page is None else page


class DoubleRing(Bitmap):
    def __init__(self, case: Case):
        super().__init__(case)
        self.size = case.ring_entries
        self.filling: deque[int] = deque()
        self.draining: deque[int] = deque()
        self.filling_overflowed = self.draining_overflowed = False
        self.first_pass = True

    def enqueue(self, page, counts):
        if len(self.filling) < self.size:
            self.filling.append(page)
            counts["ring_pushes"] += 1
            self.used_max = max(self.used_max, len(self.filling))
        else:
            counts["ring_rejected"] += 1
            self.filling_overflowed = True

    def mark_ram(self, page, counts):
        if page not in self.ram:
            self.ram.add(page)
            self.enqueue(page, counts)

    def mark_slot(self, slots, page, counts):
        if page not in slots:
            slots.add(page)
            self.enqueue(page, counts)

    def before_harvest(self, counts):
        if self.draining_overflowed:
            self.draining_overflowed = False
            if self.filling_overflowed or self.size - len(self.filling) < len(self.waiting):
                self.filling_overflowed = True
            else:
                for page in sorted(self.waiting):
                    self.enqueue(page, counts)
                    counts["ring_requeued"] += 1
                counts["refill_words"] += max(self.waiting, default=-64) // 64 + 1
        else:
            for page in self.draining:
                if page in self.waiting:
                    counts["ring_requeued"] += 1
                    self.enqueue(page, counts)
        self.draining.clear()

    def fold(self, slots, keep, counts):
        if keep:
            counts["l1_words"] += self.n_words
            counts["l1_touched"] += words_of(slots)
            for page in sorted(slots):
                counts["l1_pages"] += 1
                self.mark_ram(page, counts)
        elif self.filling_overflowed:
            super().fold(slots, False, counts)
        else:
            self.ram |= set(self.filling)
            counts["ring_merged"] += len(self.filling)
            counts["l1_zeroed"] += self.n_words
            slots.clear()

    def sync(self, counts):
        self.filling, self.draining = self.draining, self.filling
        self.filling_overflowed, self.draining_overflowed = False, self.filling_overflowed
        counts["ring_swaps"] += 1
        if self.draining_overflowed:
            counts["fallback_rounds"] += 1
            return self.merge(counts)
        counts["ring_merged"] += len(self.draining)
        fresh = set(self.draining) - self.waiting
        self.waiting |= fresh
        self.ram -= set(self.draining)
        return len(fresh)

    def pop(self, counts):
        if self.first_pass:
            page = self.search(counts)
            if page is not None:
                return page
            self.first_pass = False
        if self.draining_overflowed:
            return super().pop(counts)
        while self.draining:
            page = self.draining.popleft()
            counts["ring_pops"] += 1
            if page in self.waiting:
                return self.sent(page, counts)
            counts["stale_pops"] += 1
        return None


class HierarchicalBitmap(Bitmap):
    """Groups that may hold a dirty page are three more sets."""

    def __init__(self, case: Case):
        super().__init__(case)
        self.group = case.group
        self.n_groups = -(-case.n_pages // case.group)
        self.slot_groups: set[int] = set()
        self.ram_groups: set[int] = set()
        self.groups = set(range(self.n_groups))

    def words_in(self, group):
        return span(group * self.group, min((group + 1) * self.group, self.n_pages) - 1)

    def mark_ram(self, page, counts):
        self.ram.add(page)
        self.ram_groups.add(page // self.group)

    def mark_slot(self, slots, page, counts):
        slots.add(page)
        self.slot_groups.add(page // self.group)

    def fold(self, slots, keep, counts):
        counts["l1_touched"] += words_of(slots)
        counts["l1_pages"] += len(slots)
        self.ram |= slots
        self.ram_groups |= {page // self.group for page in slots} | self.slot_groups
        if keep:
            counts["l1_words"] += self.n_words
            return
        counts["sync_summary_words"] += -(-self.n_groups // 64)
        counts["l1_words"] += sum(self.words_in(group) for group in self.slot_groups)
        counts["l1_zeroed"] += sum(self.words_in(group) for group in self.slot_groups)
        self.slot_groups.clear()
        slots.clear()

    def sync(self, counts):
        counts["sync_summary_words"] += -(-self.n_groups // 64)
        counts["l2_words"] += sum(self.words_in(group) for group in self.ram_groups)
        counts["l2_touched"] += words_of(self.ram)
        counts["l2_pages"] += len(self.ram)
        new = len(self.ram - self.waiting)
        self.waiting |= self.ram
        self.groups |= self.ram_groups
        self.ram, self.ram_groups = set(), set()
        return new

    def search(self, counts):
        counts["find_calls"] += 1
        looked = position = self.cursor // self.group
        counts["summary_words"] += int(self.cursor < self.n_pages)
        while self.cursor < self.n_pages:
            found = min((group for group in self.groups if group >= position), default=None)
            reached = self.n_groups - 1 if found is None else found
            counts["summary_words"] += reached // 64 - looked // 64
            looked = reached
            if found is None:
                break
            first, last = found * self.group, min((found + 1) * self.group, self.n_pages) - 1
            start = max(first, self.cursor)
            inside = [page for page in self.waiting if start <= page <= last]
            counts["find_words"] += span(start, min(inside, default=last))
            if inside:
                self.cursor = min(inside) + 1
                return self.sent(min(inside), counts)
            if start == first:
                self.groups.discard(found)
            position = found + 1
        self.cursor = 0
        return None


LOGS = {"tcg": Tcg, "kvm-bitmap": KvmBitmap, "kvm-ring": KvmRing}
DESIGNS = {"bitmap": Bitmap, "double-ring": DoubleRing, "hierarchical-bitmap": HierarchicalBitmap}


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
        return self.limit and self.stream.flushed - self.window["bytes"] > self.limit

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
            guest_ns=(ran * lanes - stalled) // (1000 * lanes),
            sent_bytes=self.stream.flushed + self.stream.queued,
            redundant_pages=self.redundant,
            iterate_calls=self.iterate_calls,
            modelled_stall_ns=stalled // 1000,
            modelled_find_ns=sum(self.case.prices[name] * self.counts[name] for name in finding) // 1000,
            modelled_send_ns=pages // 1000,
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
            pending_before_pages=len(self.design.waiting), threshold_bytes=self.threshold,
        )  # fmt: skip
        kicks, before = self.counts["vcpu_kicks"], self.worth(self.counts)
        self.design.before_harvest(self.counts)
        self.log.harvest(self.design, self.counts)
        harvested = self.worth(self.counts)
        new = self.design.sync(self.counts)
        done = self.worth(self.counts)
        self.spend("harvest", harvested - before)
        self.spend("sync", done - harvested)
        self.opened.update(sync_end_ns=self.now // 1000, dirty_pages=new, pending_after_pages=len(self.design.waiting))
        self.pending_at_sync.append(set(self.design.waiting))
        if self.running:
            self.busy_until = self.now
            if self.counts["vcpu_kicks"] > kicks:
                for lane in range(len(self.guest.lanes)):
                    self.guest.stall(lane, self.case.prices["vcpu_kicks"])
        now_ms = self.now // MS
        self.rate["pages"] += new
        if now_ms > self.rate["last"] + 1000:
            self.rate["value"] = self.rate["pages"] * 1000 // (now_ms - self.rate["last"])
            self.rate.update(last=now_ms, pages=0)

    # -- the loop

    def run(self):
        case = self.case
        self.spend("other", case.fixed["setup"] + case.n_pages * case.fixed["setup_page"])
        self.sync("setup")
        self.limit = case.max_bandwidth // 10
        completed = False
        while self.now < case.give_up_ns * 1000 and not completed:
            if not self.exceeded():
                self.spend("other", case.fixed["loop_pass"])
                if len(self.design.waiting) * 4096 < self.threshold:
                    self.sync("estimate")
                pending = len(self.design.waiting) * 4096
                completed = pending == 0 or pending < self.threshold
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
        return self

    def finish(self):
        begin_ms = self.now // MS
        self.spend("other", self.case.fixed["vm_stop"])
        self.advance(self.now)
        self.running, self.stopped, self.limit = False, self.now, 0
        self.sync("final")
        self.iterate(None)
        self.stream.buffered(self.case.fixed_bytes)
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
            self.spend("wait", max(0, self.window["ms"] + 100 - now_ms) * MS + self.case.fixed["oversleep"])
            self.advance(self.now)

    def lost(self):
        """Pages whose version at the target is not the source's: asked of versions, not of any dirty tracking."""
        return sum(copy != version for copy, version in zip(self.copy, self.version, strict=True))
