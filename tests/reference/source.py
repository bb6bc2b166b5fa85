"""The guest at the source, while it runs: what it writes up to a time, and how long that takes."""

from __future__ import annotations

from tests.reference.case import DMA, MS, VHOST
from tests.reference.logs import HELD, REFUSED


class Source:
    """Lanes that write, hold still, or sleep. `outside`: pages that a device of another process has written."""

    def __init__(self, migration):
        self.m = migration
        self.held: dict[int, tuple[int, int]] = {}  # lane: (since when, when it tries again)
        self.outside: set[int] = set()
        self.outside_used = False

    def advance(self, until):
        m = self.m
        if not m.running:
            return
        while True:
            heads = [
                (self.held[lane][1] if lane in self.held else head[0], lane)
                for lane in range(len(m.guest.lanes))
                if lane in self.held or (head := m.guest.head(lane)) is not None
            ]
            at, lane = min(heads, default=(None, None))
            wake = None if m.log.next_wake is None else max(m.log.next_wake, m.busy_until)
            tick = m.throttle.tick
            if tick is not None and tick <= until and (at is None or tick < at) and (wake is None or tick <= wake):
                m.throttle.take_nap()
                if m.case.closed_loop and not m.case.recorded_throttled:
                    done = 10 * MS * 100 // m.case.busy_pct
                    m.guest.sleep(max(0, m.throttle.every - done))
                continue
            if wake is not None and wake <= until and (at is None or wake < at):
                m.log.wake(m.design, wake, m.aside)
                self.send_urgent(wake)
            elif at is None or at > until:
                return
            elif lane in self.held:
                self.let_go(lane, at, until)
            else:
                self.event(lane, at, until)

    def event(self, lane, at, until):
        m = self.m
        _, page, writer = m.guest.head(lane)
        stall = 0
        if writer >= 0:
            stall = m.log.write(m.design, page, writer, m.aside)
        elif writer == DMA:
            m.aside["fan_out"] += 1
            m.design.mark_ram(page, m.aside)
        elif writer == VHOST:
            self.outside.add(page)
            self.outside_used = True
        else:
            stall = m.log.write_host(m.design, page, -10 - writer, m.aside)
        if stall == REFUSED:
            m.aside["vcpu_holds"] += 1
            self.held[lane] = (at, until + 1)
            return
        m.guest.lanes[lane].popleft()
        m.aside["guest_writes"] += 1
        if writer < 0:
            m.aside[{DMA: "dma_writes", VHOST: "outside_writes"}.get(writer, "host_writes")] += 1
        m.version[page] += 1
        m.live_zero.discard(page)
        sending = self.send_urgent(at)
        if stall == HELD:
            self.held[lane] = (at, until + 1)
            self.let_go(lane, at, until)
        elif stall or sending:
            m.guest.stall(lane, stall + sending, "full")
            m.guest.stall(lane, max(0, m.busy_until - at), "sync")

    def let_go(self, lane, at, until):
        m = self.m
        since, _ = self.held[lane]
        took = m.log.unblock(m.design, lane, m.aside)
        if took is None:
            m.aside["vcpu_holds"] += at == since
            self.held[lane] = (since, until + 1)
            return
        took += self.send_urgent(at)
        del self.held[lane]
        m.guest.stall(lane, at - since, "full")
        if took:
            asleep = m.log.sleep_us[lane] * 10**6 if hasattr(m.log, "sleep_us") else 0
            m.guest.stall(lane, took - asleep, "full")
            m.guest.stall(lane, asleep, "throttle")
            m.guest.stall(lane, max(0, m.busy_until - at), "sync")

    def send_urgent(self, at):
        """Pages that whoever marked them at `at` must send itself. Returns how long it takes."""
        m = self.m
        begin = at
        while (page := m.design.urgent()) is not None:
            m.log.rearm_page(page, m.aside)
            before, whole = m.worth(m.aside), m.aside["normal_pages"]
            m.read(page, m.aside)
            m.aside["producer_sends"] += 1
            if m.case.closed_loop:
                at = max(at, m.channel_free)
            at += m.worth(m.aside) - before
            if m.aside["normal_pages"] > whole:
                at += m.extra
                m.spent["first copies aside"] += m.extra
            m.channel_free = max(m.channel_free, at)
        return at - begin
