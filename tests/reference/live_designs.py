"""The live designs in sets and deques: what is marked reaches the sender at once."""

from __future__ import annotations

from collections import deque

from tests.reference.case import Case, span
from tests.reference.designs import Design


class Live(Design):
    """A pass over memory, a queue, and a side set for producers that can not wait."""

    live = True

    def __init__(self, case: Case):
        super().__init__(case)
        self.passed = 0  # pages that the pass over memory has taken
        self.queue: deque[int] = deque()
        self.side: set[int] = set()
        self.side_cursor = 0
        self.new = 0
        self.summoned = False

    def summon(self):
        self.summoned = True

    def pending(self):
        return self.n_pages - self.passed + len(self.queue) + len(self.side)

    def aside(self, page, counts):
        if page not in self.side:
            self.side.add(page)
            counts["side_marks"] += 1
            self.new += 1
            return True
        return False

    def push(self, page, counts):
        self.queue.append(page)
        counts["ring_pushes"] += 1
        self.new += 1
        self.used_max = max(self.used_max, len(self.queue))

    def fold(self, slots, keep, counts):
        if keep:
            self.mark_each(slots, self.passed, counts)

    def sync(self, counts):
        new, self.new = self.new, 0
        return new

    def pop_side(self, counts):
        if not self.side:
            return None
        for wraps in range(2):
            counts["round_flushes"] += wraps
            counts["find_calls"] += 1
            ahead = [page for page in self.side if page >= self.side_cursor]
            if self.side_cursor < self.n_pages:
                counts["find_words"] += span(self.side_cursor, min(ahead, default=self.n_pages - 1))
            if ahead:
                self.side_cursor = min(ahead) + 1
                self.side.discard(min(ahead))
                return min(ahead)
            self.side_cursor = 0
        return None

    def pop_pass(self, counts):
        counts["background_pops"] += 1
        self.passed += 1
        return self.passed - 1

    def pop_queue(self, counts):
        counts["ring_pops"] += 1
        return self.queue.popleft()


class RingOnly(Live):
    per_vcpu = True

    def __init__(self, case: Case):
        super().__init__(case)
        self.size = case.options["entries"]
        self.sends = case.options["full"] == "send"
        self.dedupe = case.options["dedupe"]
        self.round = 1
        self.queued_in: dict[int, int] = {}  # page: round in which it was last queued
        self.own: deque[int] = deque()
        self.at_sync = False

    def is_queued(self, page):
        if self.dedupe == "queued":
            return page in self.queued_in
        return self.dedupe == "round" and self.queued_in.get(page) == self.round

    def mark_ram(self, page, counts):
        if self.is_queued(page):
            return False
        if len(self.queue) < self.size:
            self.push(page, counts)
            self.queued_in[page] = self.round
            return True
        counts["ring_rejected"] += 1
        if self.sends and not self.at_sync:
            self.own.append(page)
            return True
        return self.aside(page, counts)

    def mark_slot(self, slots, page, counts):
        counts["fan_out"] += 1
        return self.mark_ram(page, counts)

    def room(self):
        return None if self.sends else self.size - len(self.queue)

    def full(self, page):
        return not self.sends and len(self.queue) >= self.size and not self.is_queued(page)

    def appetite(self):
        if not self.summoned or self.passed < self.n_pages or self.queue:
            return 0
        self.summoned = False
        return self.size

    def urgent(self):
        return self.own.popleft() if self.own else None

    def before_harvest(self, counts):
        self.at_sync = True

    def sync(self, counts):
        self.at_sync = False
        self.round += 1
        return super().sync(counts)

    def pop(self, counts):
        if self.passed < self.n_pages:
            return self.pop_pass(counts)
        if not self.queue:
            return self.pop_side(counts)
        page = self.pop_queue(counts)
        self.queued_in.pop(page, None)
        return page


class DirectReap(Live):
    def __init__(self, case: Case):
        super().__init__(case)
        self.size = case.options["batch"]
        self.late = case.options["order"] == "literal"
        self.by_vcpu = case.options["sender"] == "vcpu"

    def room(self):
        return 0 if self.by_vcpu or self.late else self.size - len(self.queue)

    def appetite(self):
        if not self.summoned or self.queue:
            return 0
        self.summoned = False
        return self.size

    def holds(self):
        return (self.by_vcpu or self.late) and bool(self.queue)

    def mark_slot(self, slots, page, counts):
        counts["fan_out"] += 1
        self.push(page, counts)
        return True

    def mark_ram(self, page, counts):
        self.aside(page, counts)

    def pop(self, counts):
        if self.queue:
            counts["producer_sends"] += self.by_vcpu
            return self.pop_queue(counts)
        if self.passed < self.n_pages:
            return self.pop_pass(counts)
        return self.pop_side(counts)


class RingBackground(Live):
    per_vcpu = True

    def __init__(self, case: Case):
        super().__init__(case)
        options = case.options
        self.size, self.k = options["entries"], options["background"]
        self.filter, self.order = options["filter"], options.get("order", "round-robin")
        self.batch = options.get("batch", 64) if options["source"] == "kvm-ring" else 0
        self.prioritise, self.third = options["full"] == "prioritise", options["third-branch"]
        self.late = options.get("rearm", "before") == "after"
        self.turns = 0
        self.folding = False
        self.done: set[int] = set()  # sent from the queue before the pass reached them

    def filtered(self, page):
        if page < self.passed:
            return False
        return page not in self.done if self.folding else self.filter == "cursor"

    def fold(self, slots, keep, counts):
        if keep:
            self.folding = True
            self.mark_each(slots, self.n_pages, counts)
            self.folding = False

    def mark_ram(self, page, counts):
        if self.filtered(page):
            counts["ring_filtered"] += 1
        elif len(self.queue) < self.size:
            self.push(page, counts)
        else:
            counts["ring_rejected"] += 1
            self.aside(page, counts)

    def mark_slot(self, slots, page, counts):
        counts["fan_out"] += 1
        self.mark_ram(page, counts)
        return True

    def room(self):
        return 0 if self.batch else self.size - len(self.queue)

    def full(self, page):
        return len(self.queue) >= self.size and not self.filtered(page)

    def appetite(self):
        if self.queue:
            return 0
        if self.batch:
            return self.batch
        summoned, self.summoned = self.summoned, False
        return self.size if summoned else 0

    def holds(self):
        return self.late and bool(self.queue)

    def pending(self):
        return super().pending() - sum(page >= self.passed for page in self.done)

    def pop_pass(self, counts):
        while self.passed < self.n_pages:
            if self.passed not in self.done:
                return super().pop_pass(counts)
            self.passed += 1
            counts["background_skips"] += 1
        return None

    def pop(self, counts):
        while True:
            self.turns += 1
            due = self.k and self.turns % self.k == 0
            crowded = self.prioritise and 4 * len(self.queue) > 3 * self.size
            idle = not self.queue and not self.side
            if idle or (due and not crowded):
                page = self.pop_pass(counts)
                if page is not None or idle:
                    return page
                if not self.third:
                    counts["background_pops"] += 1
                    if self.k == 1:
                        return None
                    continue
            if not self.queue:
                return self.pop_side(counts)
            page = self.pop_queue(counts)
            if self.filter == "done-bit" and page >= self.passed:
                self.done.add(page)
            return page


class RingFallback(Live):
    """`waiting` is the one bitmap."""

    def __init__(self, case: Case):
        super().__init__(case)
        self.size, self.leave = case.options["entries"], case.options["leave"]
        self.chunk = case.options["chunk"]
        self.waiting = set(range(case.n_pages))
        self.cursor = self.chunk_end = 0
        self.flagged: set[int] = set()
        self.first_pass, self.overflowed, self.fell = True, False, False

    def pending(self):
        return len(self.waiting)

    def mark_ram(self, page, counts):
        if page in self.waiting:
            return False
        self.waiting.add(page)
        if not self.overflowed and len(self.queue) < self.size:
            self.push(page, counts)
            return True
        self.new += 1
        counts["ring_rejected"] += 1
        if self.overflowed:
            return True
        self.fell = True
        if self.leave == "chunks":
            self.flagged.add(page // self.chunk)
        else:
            self.overflowed = True
        return True

    def mark_slot(self, slots, page, counts):
        counts["fan_out"] += 1
        return self.mark_ram(page, counts)

    def fold(self, slots, keep, counts):
        if keep:
            self.mark_each(slots, self.n_pages, counts)

    def sync(self, counts):
        counts["fallback_rounds"] += self.fell
        self.fell = self.overflowed
        return super().sync(counts)

    def sent(self, page, counts):
        self.waiting.discard(page)
        counts["refind_calls"] += bool(self.refind)
        return page

    def scan(self, end, counts, wrap=True):
        """The next set page from the cursor, before `end`."""
        counts["find_calls"] += 1
        ahead = [page for page in self.waiting if self.cursor <= page < end]
        if self.cursor < end:
            counts["find_words"] += span(self.cursor, min(ahead, default=end - 1))
        if not ahead:
            self.cursor = 0 if wrap else end
            return None
        self.cursor = min(ahead) + 1
        return self.sent(min(ahead), counts)

    def from_queue(self, counts):
        while self.queue:
            page = self.pop_queue(counts)
            if page in self.waiting:
                return self.sent(page, counts)
            counts["stale_pops"] += 1
        return None

    def from_chunks(self, counts):
        while True:
            page = self.scan(self.chunk_end, counts, wrap=False) if self.cursor < self.chunk_end else None
            if page is None:
                page = self.from_queue(counts)
            if page is not None or not self.flagged:
                return page
            chunk = min(self.flagged)
            counts["summary_words"] += chunk // 64 + 1
            self.flagged.discard(chunk)
            self.cursor, self.chunk_end = chunk * self.chunk, min((chunk + 1) * self.chunk, self.n_pages)

    def pop(self, counts):
        if self.first_pass:
            page = self.scan(self.n_pages, counts)
            if page is not None:
                return page
            self.first_pass = False
        if self.leave == "chunks":
            return self.from_chunks(counts)
        if self.overflowed:
            page = self.scan(self.n_pages, counts)
            if page is not None:
                return page
            if self.leave == "sticky" or len(self.waiting) > self.size:
                return self.scan(self.n_pages, counts)
            counts["find_calls"] += 1
            counts["find_words"] += self.n_words
            counts["ring_refills"] += len(self.waiting)
            self.queue = deque(sorted(self.waiting))
            self.overflowed = False
        return self.from_queue(counts)
