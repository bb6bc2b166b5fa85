"""The end of a migration whose guest runs at the target before its memory is there."""

from __future__ import annotations

from tests.reference.case import MS


class Postcopy:
    """The guest at the target: each lane runs, or waits for a page."""

    def __init__(self, migration):
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
            guest.why[lane]["fetch"] += time - since
            if not self.own_waits:
                guest.delay[lane] += time - since
