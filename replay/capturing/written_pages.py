"""Which pages of another process were written since the last look: asynchronous write protection and PAGEMAP_SCAN.

The kernel notes the first write to a protected page without telling anybody (userfaultfd in WP_ASYNC mode); one call
gives the pages that were written and protects them again, at once for each page. A mapping is protected from the first
look on that finds it. Pages that only map the kernel's zero page or an unchanged file are not counted as written.
Linux 6.7 or later; layouts and numbers are those of linux/userfaultfd.h and linux/fs.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from typing import Any

import numpy as np

from replay.errors import TraceError

PAGE = 4096
_API, _REGISTER, _SCAN = 0xC018AA3F, 0xC020AA00, 0xC0606610
_API_VERSION, _WP_ASYNC, _MODE_WP = 0xAA, 1 << 15, 2
_WP_MATCHING, _CHECK_WPASYNC = 1, 2
_WRITTEN, _FILE, _PRESENT, _SWAPPED, _ZERO = 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5
_SCAN_ARGUMENT = struct.Struct("<12Q")
_REGION = np.dtype([("start", "<u8"), ("end", "<u8"), ("categories", "<u8")])
_REGIONS = 8192
_GONE = (errno.ENOMEM, errno.EFAULT, errno.EINVAL, errno.ENOENT, errno.ESRCH)  # the mapping, or the process, went away


class WrittenPages:
    """The private writable mappings of a process whose userfaultfd is given; takes the descriptor over.

    Raises TraceError where the kernel cannot do this.
    """

    def __init__(self, pid: int, uffd: int) -> None:
        self.pid, self._uffd = pid, uffd
        self.n_mappings = 0  # that were found and protected so far
        self._pagemap = -1
        self._regions = np.zeros(_REGIONS, _REGION)
        self._vector = self._regions.ctypes.data_as(ctypes.c_void_p).value or 0
        try:
            fcntl.ioctl(uffd, _API, bytearray(struct.pack("<3Q", _API_VERSION, _WP_ASYNC, 0)))
            self._pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self.close()
            if error.errno == errno.EINVAL:
                raise TraceError("asynchronous write protection needs Linux 6.7 or later") from None
            raise TraceError(f"pages of process {pid} cannot be watched: {error.strerror}") from None

    def close(self) -> None:
        """Protect nothing any more: the kernel forgets it with the descriptor."""
        for descriptor in (self._uffd, self._pagemap):
            if descriptor >= 0:
                os.close(descriptor)
        self._uffd = self._pagemap = -1

    def scan(self) -> Any:
        """Numbers (address / 4096) of the pages written since the last scan, ascending: (n,) uint64."""
        found = []
        for start, end in self._mappings():
            try:
                found += self._scan(start, end)
            except OSError as error:
                if error.errno == errno.ESRCH:
                    break
                if error.errno == errno.EPERM and self._protect(start, end):
                    found += self._scan_if_there(start, end)
                elif error.errno not in (errno.EPERM, *_GONE):
                    raise TraceError(f"PAGEMAP_SCAN: {error.strerror}; it needs Linux 6.7 or later") from None
        return np.concatenate(found) if found else np.empty(0, np.uint64)

    def _mappings(self) -> list[tuple[int, int]]:
        """Private writable mappings; none when the process is gone."""
        try:
            with open(f"/proc/{self.pid}/maps", "rb") as file:
                lines = file.read().splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            fields = line.split(None, 2)
            if fields[1][1:2] == b"w" and fields[1][3:4] == b"p":
                start, _, end = fields[0].partition(b"-")
                found.append((int(start, 16), int(end, 16)))
        return found

    def _protect(self, start: int, end: int) -> bool:
        """Register a mapping; False when it cannot be, or is gone."""
        try:
            fcntl.ioctl(self._uffd, _REGISTER, bytearray(struct.pack("<4Q", start, end - start, _MODE_WP, 0)))
        except OSError as error:
            if error.errno in (*_GONE, errno.EBUSY, errno.EPERM):
                return False
            raise TraceError(f"pages of process {self.pid} cannot be watched: {error.strerror}") from None
        self.n_mappings += 1
        return True

    def _scan_if_there(self, start: int, end: int) -> list[Any]:
        try:
            return self._scan(start, end)
        except OSError:
            return []

    def _scan(self, start: int, end: int) -> list[Any]:
        found = []
        while start < end:
            flags = (_WP_MATCHING | _CHECK_WPASYNC, start, end, 0)
            wanted = (0, _WRITTEN, _PRESENT | _SWAPPED, _FILE | _ZERO)
            argument = bytearray(_SCAN_ARGUMENT.pack(_SCAN_ARGUMENT.size, *flags, self._vector, _REGIONS, 0, *wanted))
            count = fcntl.ioctl(self._pagemap, _SCAN, argument)
            regions = self._regions[:count]
            regions = regions[(regions["categories"] & np.uint64(_FILE | _ZERO)) == 0]
            if len(regions):
                found.append(_numbers(regions["start"] // np.uint64(PAGE), regions["end"] // np.uint64(PAGE)))
            walked = int(_SCAN_ARGUMENT.unpack(argument)[4])
            start = walked if walked > start else end
        return found


def _numbers(first: Any, end: Any) -> Any:
    """All numbers of the ranges [first, end), one after another: uint64."""
    counts = (end - first).astype(np.int64)
    before = np.cumsum(counts) - counts
    return np.repeat(first - before.astype(np.uint64), counts) + np.arange(counts.sum(), dtype=np.uint64)


class Numbering:
    """Dense page numbers for a sparse address space: runs of 64 pages get the next numbers when first seen."""

    RUN = 64

    def __init__(self) -> None:
        self.runs: dict[int, int] = {}  # address / 256 KiB to number of the run, in order of appearance

    @property
    def n_pages(self) -> int:
        """Pages of all runs so far."""
        return len(self.runs) * self.RUN

    def dense(self, numbers: Any) -> Any:
        """Dense page (n,) uint32 of each page number of the address space."""
        runs, where = np.unique(numbers // np.uint64(self.RUN), return_inverse=True)
        base = [self.runs.setdefault(run, len(self.runs)) for run in runs.tolist()]
        offset = numbers % np.uint64(self.RUN)
        return (np.array(base, np.uint32)[where] * np.uint32(self.RUN) + offset.astype(np.uint32)).astype(np.uint32)
