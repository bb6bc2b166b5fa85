"""The bytes of a migration on their way, as QEMU buffers them."""

from __future__ import annotations


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
