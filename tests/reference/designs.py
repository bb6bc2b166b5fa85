"""The designs in sets and deques."""

from __future__ import annotations

from collections import deque

from tests.reference.case import Case, span, words_of


class Design:
    """What holds unless a design says otherwise: not live, no bound, nothing to wait for."""

    live = late = per_vcpu = False
    order = "round-robin"

    def __init__(self, case: Case):
        self.n_pages = case.n_pages
        self.n_words = -(-case.n_pages // 64)
        self.padded_words = max(8, -(-case.n_pages // 512) * 8)
        self.refind = case.options.get("host-page-refind", False)
        self.used_max = 0

    def before_harvest(self, counts):
        pass

    def room(self):
        return None

    def full(self, page):
        return False

    def appetite(self):
        return 0

    def summon(self):
        pass

    def holds(self):
        return False

    def urgent(self):
        return None

    def pending(self):
        return len(self.waiting)

    def mark_each(self, slots, below, counts):
        counts["l1_words"] += self.padded_words
        counts["l1_touched"] += words_of(slots)
        counts["fan_out"] += words_of(slots)
        for page in sorted(slots):
            counts["l1_pages"] += 1
            if page < below:
                self.mark_ram(page, counts)
            else:
                counts["ring_filtered"] += 1


class Bitmap(Design):
    def __init__(self, case: Case):
        super().__init__(case)
        self.ram: set[int] = set()
        self.waiting = set(range(case.n_pages))
        self.cursor = 0

    def mark_ram(self, page, counts):
        self.ram.add(page)

    def mark_slot(self, slots, page, counts):
        new = page not in slots
        slots.add(page)
        return new

    def fold(self, slots, keep, counts):
        counts["l1_words"] += self.n_words
        counts["l1_touched"] += words_of(slots)
        counts["l1_pages"] += len(slots)
        counts["fan_out"] += words_of(slots)
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
        if page is not None:
            return page
        counts["round_flushes"] += 1
        return self.search(counts)


class DoubleRing(Bitmap):
    def __init__(self, case: Case):
        super().__init__(case)
        options = case.options
        posted = options.get("as-posted", False)
        self.size = options["entries"]
        self.dedupe = options.get("dedupe", True) and not posted
        self.exact_full = options.get("exact-full", False) or posted
        self.locked = options.get("locked", True) and not posted
        self.late_inserts = options.get("late-inserts", False) or posted
        self.atomic_clear = options.get("atomic-clear", True) and not posted
        self.multifd_flush = options.get("multifd-flush", True) and not posted
        self.rescans = case.n_blocks if options.get("block-rescans", False) or posted else 0
        self.race_every = options.get("race-every", 1000)
        self.racing_pushes = 0
        self.newest = self.racing = None
        self.at_sync = False
        self.filling: deque[int] = deque()
        self.draining: deque[int] = deque()
        self.filling_overflowed = options.get("boot-filled", False) or posted
        self.draining_overflowed = False
        self.first_pass = True

    def enqueue(self, page, counts):
        self.newest = None
        if len(self.filling) < self.size:
            self.filling.append(page)
            counts["ring_pushes"] += 1
            self.used_max = max(self.used_max, len(self.filling))
            self.filling_overflowed |= self.exact_full and len(self.filling) == self.size
            return True
        counts["ring_rejected"] += 1
        self.filling_overflowed = True
        return False

    def mark_ram(self, page, counts):
        if page in self.ram and self.dedupe:
            return
        counts["ring_duplicates"] += page in self.ram
        self.ram.add(page)
        if self.at_sync:
            self.enqueue(page, counts)
            return
        self.racing_pushes += 1
        if not self.locked and self.racing_pushes % self.race_every == 0:
            counts["ring_missed"] += 1
        elif self.enqueue(page, counts):
            self.newest = page

    def mark_slot(self, slots, page, counts):
        if page in slots:
            return False
        slots.add(page)
        self.enqueue(page, counts)
        return True

    def before_harvest(self, counts):
        self.at_sync = True
        if self.newest is not None and (self.late_inserts or not self.atomic_clear):
            self.racing = self.filling.pop()
        self.newest = None
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
            self.mark_each(slots, self.n_pages, counts)
        elif self.filling_overflowed:
            super().fold(slots, False, counts)
        else:
            self.ram |= set(self.filling)
            counts["ring_merged"] += len(self.filling)
            counts["fan_out"] += len(self.filling)
            counts["l1_zeroed"] += self.n_words
            slots.clear()

    def sync(self, counts):
        self.filling, self.draining = self.draining, self.filling
        self.filling_overflowed, self.draining_overflowed = False, self.filling_overflowed
        self.at_sync = False
        racing, self.racing = self.racing, None
        counts["ring_swaps"] += 1
        if self.draining_overflowed:
            counts["fallback_rounds"] += 1
            return self.merge(counts)
        counts["round_flushes"] += self.multifd_flush
        counts["ring_merged"] += len(self.draining)
        counts["ring_compares"] += self.rescans * len(self.draining)
        fresh = set(self.draining) - self.waiting
        self.waiting |= fresh
        self.ram -= set(self.draining)
        if racing is not None and self.late_inserts:
            counts["ring_missed"] += 1
            if len(self.draining) < self.size:
                self.draining.append(racing)
        elif racing is not None:
            self.enqueue(racing, counts)
            if any(page // 64 == racing // 64 for page in self.draining):
                counts["ring_missed"] += 1
                self.ram.discard(racing)
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
        self.group = case.options["group"]
        self.n_groups = -(-case.n_pages // self.group)
        self.slot_groups: set[int] = set()
        self.ram_groups: set[int] = set()
        self.groups = set(range(self.n_groups))

    def words_in(self, group):
        return span(group * self.group, min((group + 1) * self.group, self.n_pages) - 1)

    def mark_ram(self, page, counts):
        self.ram.add(page)
        self.ram_groups.add(page // self.group)

    def mark_slot(self, slots, page, counts):
        new = page not in slots
        slots.add(page)
        self.slot_groups.add(page // self.group)
        return new

    def fold(self, slots, keep, counts):
        counts["l1_touched"] += words_of(slots)
        counts["l1_pages"] += len(slots)
        counts["fan_out"] += words_of(slots)
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
