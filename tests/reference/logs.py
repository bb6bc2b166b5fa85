"""The three dirty logs in sets and deques."""

from __future__ import annotations

from collections import Counter, deque

from tests.reference.case import Case


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


LOGS = {"tcg": Tcg, "kvm-bitmap": KvmBitmap, "kvm-ring": KvmRing}
