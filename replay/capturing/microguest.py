"""The guest of a micro-VM: 117 bytes of code that write one page after another, and the same pages computed here.

Memory: slot 0 (not logged) holds code, page tables, and for each vCPU a control page and a log of times; slot 1
(logged) is what the guest writes, so that neither fetches nor page-table updates reach the dirty ring. Every store
notes the time stamp counter in the log before it is made. The code in words, r13 being the number of pages (without
the hot ones):

    start:  i = 0
    next:   sequential: page = position; position += 1, from the end back to 0
            else: s = s * r9 + r10; page = hot part or rest, by s's low 32 bits below r11 or not; high bits choose in it
    wait:   until the counter reaches the time for the next store, then that time = now + pace
            log[i] = now; store a word to the page; i += 1; next while i < count
            out 0x10 (leaves the guest); start

A vCPU has an equal, own range of pages. The generator is a linear congruential one (Knuth's MMIX constants).
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np

from replay.capturing.kvm import LOG_DIRTY_PAGES, PAGE, Vcpu, Vm

CODE = bytes.fromhex(
    "31ff4d85ff750f4889f048ffc64c39ee722f31f6eb2b4d0fafc14d01d04c89c048c1e8204489c14c39d9730a490fafc448c1e820eb0b"
    "490fafc548c1e8204c01e048c1e00c4a8d0c300f3148c1e2204809d04839e872f24889c548036b08488984fb0010000048890148ffc7"
    "483b3b7291e610eb8b"
)
STORE_AT = 0x66  # of the code: the instruction that writes the page
PORT = 0x10
MULTIPLIER, INCREMENT = 6364136223846793005, 1442695040888963407
MAX_CHUNK = 1 << 16  # stores between two exits: the size of the log
DATA_SLOT, DATA_START, SYSTEM_BYTES = 1, 16 << 20, 16 << 20
_CODE_AT, _TABLES_AT, _CONTROL_AT = 0x1000, 0x10000, 0x20000
_CONTROL_BYTES = PAGE + MAX_CHUNK * 8
_TABLE_ENTRY, _LARGE_ENTRY, _GIB, _LARGE_PAGE = 0x67, 0xE7, 1 << 30, 2 << 20
_FLAGS = 0x3002  # I/O privilege level 3: out leaves the guest instead of faulting


class Writer(NamedTuple):
    """What one vCPU writes: `kind` "sequential", "random" or "hot-cold" over pages first .. first + n - 1."""

    kind: str
    first: int
    n_pages: int
    n_hot: int
    hot_per_2_32: int  # of 2**32 stores, how many go to the hot pages
    seed: int

    def registers(self) -> dict[str, int]:
        """The registers that make the guest write this."""
        hot = self.kind == "hot-cold"
        return {
            "r8": self.seed, "r9": MULTIPLIER, "r10": INCREMENT, "r11": self.hot_per_2_32 if hot else 0,
            "r12": self.n_hot if hot else 0, "r13": self.n_pages - (self.n_hot if hot else 0),
            "r14": DATA_START + self.first * PAGE, "r15": int(self.kind != "sequential"),
        }  # fmt: skip


class Stores:
    """The pages that a writer writes, in order, as many at a time as asked for."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.n_made = 0
        self._state = writer.seed
        self._powers: Any = np.ones(1, np.uint64)
        self._sums: Any = np.zeros(1, np.uint64)

    def take(self, count: int) -> Any:
        """Pages (count,) uint32 of the next stores."""
        writer = self.writer
        if writer.kind == "sequential":
            pages = np.arange(self.n_made, self.n_made + count, dtype=np.uint64) % np.uint64(writer.n_pages)
        else:
            pages = self._drawn(count)
        self.n_made += count
        return (pages + np.uint64(writer.first)).astype(np.uint32)

    def _drawn(self, count: int) -> Any:
        while len(self._powers) <= count:  # of s(n + k) = powers[k] * s(n) + sums[k], modulo 2**64
            n = len(self._powers)
            power, total = self._jump(n)
            self._sums = np.concatenate([self._sums, self._sums * power + total])
            self._powers = np.concatenate([self._powers, self._powers * power])
        state = self._powers[1 : count + 1] * np.uint64(self._state) + self._sums[1 : count + 1]
        if count:
            self._state = int(state[-1])
        hot = np.uint64(self.writer.n_hot if self.writer.kind == "hot-cold" else 0)
        high, low = state >> np.uint64(32), state & np.uint64(0xFFFFFFFF)
        rest = (high * (np.uint64(self.writer.n_pages) - hot) >> np.uint64(32)) + hot
        if self.writer.kind != "hot-cold":
            return rest
        return np.where(low < np.uint64(self.writer.hot_per_2_32), high * hot >> np.uint64(32), rest)

    def _jump(self, n: int) -> tuple[Any, Any]:
        """powers[n] and sums[n]: one step after those of n - 1."""
        mask = (1 << 64) - 1
        power, total = int(self._powers[n - 1]), int(self._sums[n - 1])
        return np.uint64(power * MULTIPLIER & mask), np.uint64((total * MULTIPLIER + INCREMENT) & mask)


class Guest:
    """A VM with this guest in it, ready to run; one writer a vCPU, together over `n_pages`."""

    def __init__(self, vm: Vm, writers: list[Writer], n_pages: int, pace_ticks: int) -> None:
        self.system = vm.add_memory(0, 0, SYSTEM_BYTES)
        self.data = vm.add_memory(DATA_SLOT, DATA_START, n_pages * PAGE, LOG_DIRTY_PAGES)
        self.pace_ticks = pace_ticks
        self._write_tables(DATA_START + n_pages * PAGE)
        self.system[_CODE_AT : _CODE_AT + len(CODE)] = CODE
        for number, writer in enumerate(writers):
            vcpu = vm.add_vcpu()
            vcpu.enter_user_mode(_TABLES_AT)
            vcpu.set_registers(rip=_CODE_AT, rflags=_FLAGS, rbx=self._control(number), **writer.registers())

    def _write_tables(self, end: int) -> None:
        """Identity mapping by large pages; accessed and dirty are set, so that the CPU never writes them."""
        n_gib = -(-end // _GIB)
        struct.pack_into("<Q", self.system, _TABLES_AT, (_TABLES_AT + PAGE) | _TABLE_ENTRY)
        for gib in range(n_gib):
            directory = _TABLES_AT + (2 + gib) * PAGE
            struct.pack_into("<Q", self.system, _TABLES_AT + PAGE + gib * 8, directory | _TABLE_ENTRY)
            entries = [(gib * _GIB + k * _LARGE_PAGE) | _LARGE_ENTRY for k in range(512)]
            struct.pack_into("<512Q", self.system, directory, *entries)

    def _control(self, vcpu: int) -> int:
        return _CONTROL_AT + vcpu * _CONTROL_BYTES

    def order(self, vcpu: int, count: int) -> None:
        """The next chunk of a vCPU, which must stand at the chunk's end, is this many stores: 1 to MAX_CHUNK."""
        struct.pack_into("<QQ", self.system, self._control(vcpu), count, self.pace_ticks)

    def times(self, vcpu: int, first: int, end: int) -> Any:
        """Time stamp counter (end - first,) uint64 before each of these stores of the chunk."""
        return np.frombuffer(
            self.system, np.uint64, end - first, self._control(vcpu) + PAGE + first * 8
        ).copy()  # fmt: skip

    def stands_at(self, vcpu: Vcpu) -> int:
        """Which store of the chunk a vCPU that left with a full ring has begun, or is about to begin."""
        return vcpu.registers()["rdi"]

    def is_storing(self, vcpu: Vcpu) -> bool:
        """Whether it stands before the store itself, which its ring may have an entry for already."""
        return vcpu.registers()["rip"] == _CODE_AT + STORE_AT
