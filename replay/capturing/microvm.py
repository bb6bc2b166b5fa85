"""A micro-VM that runs in chunks: every vCPU makes its stores, stands, all rings are taken and armed again.

A vCPU whose ring is full in the middle of a chunk takes its own ring and goes on, as others run. So the stores between
any two arms of a page are known, and with them the entries that a ring must hold: an `Epoch` is both, to be compared.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import Any, NamedTuple

import numpy as np

from replay.capturing import kvm, microguest
from replay.capturing.microguest import DATA_SLOT, Guest, Stores, Writer
from replay.errors import TraceError

_PATIENCE_S = 30
_RESTS = 100_000  # full rings within a chunk before something must be wrong


class Epoch(NamedTuple):
    """What one vCPU did between two times at which its pages were armed.

    `first`: number of the first store of it. `stores` (n,) uint32: the pages of the stores begun; after a full ring the
    last of them was not finished and is the first of the next epoch too (`unfinished`). `tsc` (n,) uint64: when.
    `entries` (m,) uint32: pages in the ring, as the kernel had them. `armed_tsc`: when they were armed again.
    """

    vcpu: int
    first: int
    stores: Any
    tsc: Any
    entries: Any
    full: bool
    unfinished: bool
    armed_tsc: int

    def expected(self) -> Any:
        """The entries that write protection must give: each page once, in the order of its first store."""
        _, where = np.unique(self.stores, return_index=True)
        return self.stores[np.sort(where)]

    def is_as_expected(self) -> bool:
        """Entry for entry."""
        return np.array_equal(self.entries, self.expected())

    def entry_tsc(self) -> Any:
        """When each entry's page was first stored to in this epoch (m,); the end of it for a page that was not."""
        pages, where = np.unique(self.stores, return_index=True)
        if not len(pages):
            return np.full(len(self.entries), self.armed_tsc, np.uint64)
        at = np.minimum(np.searchsorted(pages, self.entries), len(pages) - 1)
        return np.where(pages[at] == self.entries, self.tsc[where[at]], np.uint64(self.armed_tsc))


class MicroVm:
    """A context manager: the VM runs in threads of this process, and is gone afterwards.

    Raises TraceError where KVM is not there or refuses.
    """

    def __init__(self, writers: list[Writer], n_pages: int, ring_entries: int, pace_ns: int) -> None:
        self._open = contextlib.ExitStack()
        try:
            device = self._open.enter_context(kvm.Kvm())
            self.vm = kvm.Vm(device, ring_entries)
            self._open.callback(self.vm.close)
            self.guest = Guest(self.vm, writers, n_pages, 0)
            self.tsc_khz = self.vm.vcpus[0].tsc_khz()
            self.guest.pace_ticks = pace_ns * self.tsc_khz // 1_000_000
            self.origins = [vcpu.tsc() for vcpu in self.vm.vcpus]
        except BaseException:
            self._open.close()
            raise
        self.stores = [Stores(writer) for writer in writers]
        self._lock = threading.Lock()
        self._threads = [_Thread(self, number) for number in range(len(writers))]

    def __enter__(self) -> MicroVm:
        return self

    def __exit__(self, *_: object) -> None:
        ended = [thread.end() for thread in self._threads]
        if all(ended):  # a vCPU that hangs keeps its VM until the process ends
            self._open.close()

    def ns(self, vcpu: int, tsc: Any) -> Any:
        """Nanoseconds since the VM was made, of a vCPU's time stamp counter: a number or an array of uint64."""
        if isinstance(tsc, int):
            return (tsc - self.origins[vcpu]) * 1_000_000 // self.tsc_khz
        ticks = (tsc - np.uint64(self.origins[vcpu])).astype(np.int64)
        whole, rest = np.divmod(ticks, self.tsc_khz)
        return whole * 1_000_000 + rest * 1_000_000 // self.tsc_khz

    def run(self, count: int) -> list[Epoch]:
        """`count` stores on every vCPU; then all stand, and every ring was taken and armed again."""
        for thread in self._threads:
            thread.orders.put(count)
        found: list[Epoch] = []
        chunks = []
        for thread in self._threads:
            try:
                part, chunk = thread.done.get(timeout=_PATIENCE_S)
            except queue.Empty:
                raise TraceError(f"{kvm.DEVICE}: a vCPU did not come back within {_PATIENCE_S} s") from None
            if isinstance(part, BaseException):
                raise part
            found += part
            chunks.append(chunk)
        taken = [vcpu.harvest() for vcpu in self.vm.vcpus]
        self.vm.reset_rings()
        for number, (vcpu, chunk, entries) in enumerate(zip(self.vm.vcpus, chunks, taken, strict=True)):
            first, begun, pages = chunk
            tsc = self.guest.times(number, begun, len(pages))
            found.append(Epoch(number, first + begun, pages[begun:], tsc, _pages(entries), False, False, vcpu.tsc()))
        return found

    def run_vcpu(self, number: int, count: int) -> tuple[list[Epoch], tuple[int, int, Any]]:
        """A chunk of one vCPU, in its thread: the epochs that ended in full rings, and what is left.

        What is left: number of the chunk's first store, where in the chunk the open epoch began, pages of the chunk.
        """
        vcpu, stores = self.vm.vcpus[number], self.stores[number]
        first, pages, begun = stores.n_made, stores.take(count), 0
        self.guest.order(number, count)
        found: list[Epoch] = []
        for _ in range(_RESTS):
            left = vcpu.run()
            if left.reason == kvm.EXIT_IO and left.port == microguest.PORT:
                return found, (first, begun, pages)
            if left.reason != kvm.EXIT_RING_FULL:
                raise TraceError(f"{kvm.DEVICE}: the guest left with exit {left.reason}, which it never should")
            at, storing = self.guest.stands_at(vcpu), self.guest.is_storing(vcpu)
            with self._lock:
                entries = vcpu.harvest()
                self.vm.reset_rings()
                armed = vcpu.tsc()
            end = at + storing
            tsc = self.guest.times(number, begun, end)
            found.append(Epoch(number, first + begun, pages[begun:end], tsc, _pages(entries), True, storing, armed))
            begun = at
        raise TraceError(f"{kvm.DEVICE}: a ring stays full although it was emptied")


def _pages(entries: Any) -> Any:
    if (entries[:, 0] != DATA_SLOT).any():
        raise TraceError(f"{kvm.DEVICE}: a ring has an entry of memory that is not logged")
    return entries[:, 1].astype(np.uint32)


class _Thread:
    """The thread of a vCPU: takes orders (numbers of stores; None: the end), gives results or errors."""

    def __init__(self, owner: MicroVm, number: int) -> None:
        self.orders: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._owner, self._number = owner, number
        self._thread = threading.Thread(target=self._work, name=f"vCPU {number}", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (count := self.orders.get()) is not None:
            try:
                self.done.put(self._owner.run_vcpu(self._number, count))
            except BaseException as error:
                self.done.put((error, None))

    def end(self) -> bool:
        """Whether the thread is over."""
        self.orders.put(None)
        self._thread.join(_PATIENCE_S)
        return not self._thread.is_alive()
