"""Channels beside the main one that carry the pages in packets."""

from __future__ import annotations

from collections import Counter

from tests.reference.case import Case
from tests.reference.stream import Stream


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
