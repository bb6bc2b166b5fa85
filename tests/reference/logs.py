"""The three dirty logs in sets and deques."""

from __future__ import annotations

from collections import Counter, deque

from tests.reference.case import Case

HELD, REFUSED = "held", "refused"


class _NoRings:
    backlog = 0
    per_exit = 1

    def fetch(self, design, limit, counts):
        return 0

    def reset(self, counts):
        pass

    def rearm_page(self, page, counts):
        pass


class Tcg(_NoRings):
    per_vcpu = False

    def __init__(self, case: Case):
        self.n_pages = case.n_pages
        self.armed = set(range(case.n_pages))
        self.refused: dict[int, int] = {}
        self.noticed: Counter[int] = Counter()
        self.next_wake = None
        self.used_max = 0

    def write(self, design, page, vcpu, counts):
        if page in self.armed:
            if design.full(page):
                self.refused[vcpu] = page
                return REFUSED
            self.armed.discard(page)
            self.noticed[vcpu] += 1
            counts["logged_writes"] += 1
            counts["fan_out"] += 2
            design.mark_ram(page, counts)
        return 0

    def unblock(self, design, vcpu, counts):
        return None if design.full(self.refused[vcpu]) else 0

    def rearm_page(self, page, counts):
        self.armed.add(page)
        counts["tlb_resets"] += 1

    def write_host(self, design, page, vcpu, counts):
        design.mark_ram(page, counts)
        return 0

    def harvest(self, design, counts):
        if not design.live:
            self.armed = set(range(self.n_pages))

    def before_read(self, page, counts):
        pass


class KvmBitmap(_NoRings):
    per_vcpu = False
    CHUNK = 1 << 18

    def __init__(self, case: Case):
        self.n_pages, self.n_vcpus = case.n_pages, case.n_vcpus
        self.kernel = set(range(case.n_pages))
        self.snapshot: set[int] = set()
        self.to_clear: set[int] = set()
        self.noticed: Counter[int] = Counter()
        self.next_wake = None
        self.used_max = 0

    def write(self, design, page, vcpu, counts):
        self.noticed[vcpu] += page not in self.kernel
        return self.write_host(design, page, vcpu, counts)

    def write_host(self, design, page, vcpu, counts):
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
        self.soft_limit = case.kring_entries - case.kring_reserved
        self.rings: list[deque] = [deque() for _ in range(case.n_vcpus)]  # (page, age), fetched ones first
        self.fetched = [0] * case.n_vcpus
        self.pushed = 0
        self.turn = 0
        self.armed = set(range(case.n_pages))
        self.slots: set[int] = set()
        self.next_wake = case.reaper_ps
        self.used_max = 0
        self.noticed: Counter[int] = Counter()
        self.per_exit = 512 if case.kring_reserved == 576 else 1  # pml: out of the guest when its buffer is full
        self.unmade: dict[int, int] = {}  # vCPU to the page of the store that a full ring holds up
        self.quota, self.period, self.since, self.fastest = None, 0, 0, 0  # of the dirty limit
        self.reaped, self.sleep_us = [0] * case.n_vcpus, [0] * case.n_vcpus

    def write(self, design, page, vcpu, counts):
        if page not in self.armed:
            return 0
        self.noticed[vcpu] += 1
        held = self.push(page, vcpu, counts)
        if held == HELD and self.case.kring_repeats:
            self.unmade[vcpu] = page
        return held

    def write_host(self, design, page, vcpu, counts):
        return self.push(page, vcpu, counts)

    def push(self, page, vcpu, counts):
        self.armed.discard(page)
        self.rings[vcpu].append((page, self.pushed))
        self.pushed += 1
        counts["logged_writes"] += 1
        self.used_max = max(self.used_max, len(self.rings[vcpu]))
        if len(self.rings[vcpu]) < self.soft_limit:
            return 0
        counts["kring_full_exits"] += 1
        return HELD

    def worth(self, counts):
        return sum(self.case.prices[name] * count for name, count in counts.items())

    def unblock(self, design, vcpu, counts):
        mine = Counter()
        if len(self.rings[vcpu]) >= self.soft_limit and not design.holds():
            if self.quota is not None and design.room() is None:
                while self.fetched[vcpu] < len(self.rings[vcpu]):
                    self.take(design, vcpu, mine)
                if not design.late:
                    self.reset(mine)
            else:
                self.reap(design, mine)
        if design.holds() or len(self.rings[vcpu]) >= self.soft_limit:
            counts.update(mine)
            return None
        page = self.unmade.pop(vcpu, None)
        if page in self.armed:
            self.noticed[vcpu] += 1
            self.push(page, vcpu, mine)
        counts.update(mine)
        return self.worth(mine) + self.case.prices["kring_full_exits"] + self.sleep_us[vcpu] * 10**6

    @property
    def backlog(self):
        return sum(len(ring) - done for ring, done in zip(self.rings, self.fetched, strict=True))

    def reap(self, design, counts):
        room = design.room()
        if room is None:
            for vcpu in range(len(self.rings)):
                while self.fetched[vcpu] < len(self.rings[vcpu]):
                    self.take(design, vcpu, counts)
        elif room:
            self.fetch(design, room, counts)
        else:
            design.summon()
        if not design.late:
            self.reset(counts)

    def take(self, design, vcpu, counts):
        page, _ = self.rings[vcpu][self.fetched[vcpu]]
        self.fetched[vcpu] += 1
        self.reaped[vcpu] += 1
        if not design.mark_slot(self.slots, page, counts):
            counts["kring_duplicates"] += 1
        counts["kring_reaped"] += 1

    def fetch(self, design, limit, counts):
        done = 0
        while done < limit and self.backlog:
            n = len(self.rings)
            able = [
                (self.turn + k) % n
                for k in range(n)
                if len(self.rings[(self.turn + k) % n]) > self.fetched[(self.turn + k) % n]
            ]
            if design.order == "longest":
                able.sort(key=lambda v: self.fetched[v] - len(self.rings[v]))
            elif design.order == "age":
                able.sort(key=lambda v: self.rings[v][self.fetched[v]][1])
            self.take(design, able[0], counts)
            self.turn = (able[0] + 1) % n
            done += 1
        if done == limit and self.backlog:
            design.summon()
        return done

    def reset(self, counts):
        any_reset = False
        for vcpu, entries in enumerate(self.rings):
            base, offsets = None, set()
            for _ in range(self.fetched[vcpu]):
                page, _ = entries.popleft()
                any_reset = True
                self.armed.add(page)
                lowest = page if base is None else min(base, page)
                if base is not None and all(p - lowest < 64 for p in offsets | {page}):
                    base = lowest
                    offsets.add(page)
                else:
                    counts["kring_masks"] += 1
                    base, offsets = page, {page}
            self.fetched[vcpu] = 0
        counts["kring_resets"] += any_reset

    def wake(self, design, now, counts):
        mine = Counter({"reaper_wakes": 1})
        self.reap(design, mine)
        if self.quota is not None:
            design.fold(self.slots, False, mine)
            self.measure(max(1, (now - self.since) // 10**9))
            self.since = now
        counts.update(mine)
        self.next_wake = now + self.worth(mine) + (self.case.reaper_ps if self.quota is None else self.period)

    def limit(self, quota, period_ps, now_ps):
        self.quota, self.period, self.since = quota, period_ps, now_ps
        self.next_wake = now_ps + period_ps
        self.reaped = [0] * self.case.n_vcpus

    def measure(self, spent_ms):
        """Longer sleeps for those that are too fast, shorter ones for those that are too slow."""
        for vcpu, entries in enumerate(self.reaped):
            rate = entries * 4096 // 2**20 * 1000 // spent_ms
            self.reaped[vcpu] = 0
            if abs(rate - self.quota) <= 25:
                continue
            if rate == 0:
                self.sleep_us[vcpu] = 0
                continue
            self.fastest = max(self.fastest, rate)
            fill = self.case.kring_entries * 4096 // 2**20 * 10**6 // self.fastest
            pct = abs(rate - self.quota) * 100 // max(rate, self.quota)
            step = fill * pct // (100 - pct) if pct > 50 else fill // 10
            wanted = self.sleep_us[vcpu] + (step if rate > self.quota else -step)
            self.sleep_us[vcpu] = max(0, min(wanted, 99 * fill) if rate > self.quota else wanted)

    def harvest(self, design, counts):
        counts["vcpu_kicks"] += self.case.n_vcpus
        self.reap(design, counts)
        design.fold(self.slots, False, counts)

    def before_read(self, page, counts):
        pass

    def rearm_page(self, page, counts):
        pass


LOGS = {"tcg": Tcg, "kvm-bitmap": KvmBitmap, "kvm-ring": KvmRing}
