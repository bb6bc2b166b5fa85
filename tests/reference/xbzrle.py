"""The cache of pages that xbzrle sends the differences to."""

from __future__ import annotations


class Cache:
    """`settings`: slots, share of deltas that fit in millionths, bytes of a delta."""

    def __init__(self, settings, stream):
        self.settings, self.stream = settings, stream
        self.pages: dict[int, tuple[int, int]] = {}  # slot: (page, sync of its last use)
        self.compared = 0

    def compare(self, page, zero, same, counts, now, running):
        """Look a page up; whether it must be sent whole. now: the sync; running: whether the guest does."""
        slots, share, size = self.settings
        held, used = self.pages.get(page % slots, (None, 0))
        if zero or held != page:
            counts["xbzrle_misses"] += not zero
            free = held is None or held == page or now - used >= 2
            if free and (zero or running):
                self.pages[page % slots] = (page, now)
            return True
        self.pages[page % slots] = (page, now)
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
