"""/dev/kvm without a library: the few ioctls and layouts that a VM with dirty rings needs, for x86-64.

Layouts and numbers are those of Linux's uapi (linux/kvm.h, asm/kvm.h). Every object gives back what it holds in
`close`; a VM leaves nothing behind. A ring entry is 16 bytes, as two 64-bit words: flags | slot << 32, and the page's
offset.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from typing import Any, NamedTuple

import numpy as np

from replay.errors import TraceError

DEVICE = "/dev/kvm"
PAGE = 4096
ENTRY_BYTES = 16
DIRTY, RESET_FLAG = 1, 2
BOTH = DIRTY | RESET_FLAG
EXIT_IO, EXIT_RING_FULL = 2, 31
LOG_DIRTY_PAGES = 1
TSC_MSR = 0x10

_GET_API_VERSION, _CREATE_VM, _CHECK_EXTENSION, _GET_VCPU_MMAP_SIZE = 0xAE00, 0xAE01, 0xAE03, 0xAE04
_CREATE_VCPU, _RUN, _SET_MEMORY = 0xAE41, 0xAE80, 0x4020AE46
_GET_REGS, _SET_REGS, _GET_SREGS, _SET_SREGS = 0x8090AE81, 0x4090AE82, 0x8138AE83, 0x4138AE84
_GET_MSRS, _GET_TSC_KHZ, _ENABLE_CAP, _RESET_RINGS = 0xC008AE88, 0xAEA3, 0x4068AEA3, 0xAEC7
_CAP_RING, _CAP_RING_ACQ_REL = 192, 223
_API_VERSION = 12
_RING_PAGE = 64  # where a vCPU's file has its ring
_REGISTERS = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", *(f"r{n}" for n in range(8, 16)), "rip", "rflags",
)  # fmt: skip
_REGS = struct.Struct("<18Q")
_SREGS_BYTES, _CR0, _CR3, _CR4, _EFER, _SEGMENT = 312, 224, 240, 248, 264, struct.Struct("<QIH8BBx")
_SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss")
_CODE_TYPE, _DATA_TYPE, _USER = 0xB, 0x3, 3


def unavailable() -> str | None:
    """Why no VM with dirty rings can be made here; None: one can."""
    try:
        with Kvm():
            return None
    except TraceError as error:
        return str(error)


def refusal(ring_entries: int) -> str | None:
    """Why a VM cannot have rings of this many entries here; None: it can."""
    try:
        with Kvm() as kvm:
            Vm(kvm, ring_entries).close()
            return None
    except TraceError as error:
        return str(error)


class Kvm:
    """The open device. Raises TraceError saying what is missing: the device, permission, or dirty rings."""

    def __init__(self) -> None:
        try:
            self.fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise TraceError(_why_closed(error)) from None
        try:
            version = fcntl.ioctl(self.fd, _GET_API_VERSION, 0)
            if version != _API_VERSION or os.uname().machine != "x86_64":
                raise TraceError(f"{DEVICE}: needs KVM's stable API on x86-64; this is version {version}")
            found = {cap: fcntl.ioctl(self.fd, _CHECK_EXTENSION, cap) for cap in (_CAP_RING, _CAP_RING_ACQ_REL)}
            self.ring_cap = next((cap for cap in found if found[cap] > 0), 0)
            if not self.ring_cap:
                raise TraceError(f"{DEVICE}: this kernel has no dirty rings (capability {_CAP_RING}, Linux 5.11)")
            self.max_ring_entries = found[self.ring_cap] // ENTRY_BYTES
            self.run_bytes = fcntl.ioctl(self.fd, _GET_VCPU_MMAP_SIZE, 0)
        except OSError as error:
            self.close()
            raise TraceError(f"{DEVICE}: is not a KVM device ({error.strerror})") from None
        except TraceError:
            self.close()
            raise

    def __enter__(self) -> Kvm:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self.fd)


def _why_closed(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{DEVICE}: no permission; become root, or a member of the group that owns it (often kvm)"
    if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return f"{DEVICE}: not there; load kvm_intel or kvm_amd, or switch virtualisation on in the firmware"
    return f"{DEVICE}: cannot be opened: {error.strerror}"


class Vm:
    """A virtual machine: memory slots and vCPUs with dirty rings of `ring_entries`."""

    def __init__(self, kvm: Kvm, ring_entries: int) -> None:
        self.kvm, self.ring_entries = kvm, ring_entries
        self.vcpus: list[Vcpu] = []
        self._memory: list[mmap.mmap] = []
        try:
            self.fd = fcntl.ioctl(kvm.fd, _CREATE_VM, 0)
        except OSError as error:
            raise TraceError(f"{DEVICE}: refuses to make a VM ({error.strerror})") from None
        try:
            enable = struct.pack("<II4Q64x", kvm.ring_cap, 0, ring_entries * ENTRY_BYTES, 0, 0, 0)
            fcntl.ioctl(self.fd, _ENABLE_CAP, bytearray(enable))
        except OSError as error:
            os.close(self.fd)
            raise TraceError(
                f"{DEVICE}: refuses dirty rings of {ring_entries} entries ({error.strerror}); "
                f"it allows up to {kvm.max_ring_entries}"
            ) from None

    def add_memory(self, slot: int, first_byte: int, n_bytes: int, flags: int = 0) -> mmap.mmap:
        """Map fresh memory of the host's at a guest physical address; returns it."""
        try:
            memory = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._memory.append(memory)
            fcntl.ioctl(self.fd, _SET_MEMORY, struct.pack("<IIQQQ", slot, flags, first_byte, n_bytes, _address(memory)))
        except OSError as error:
            raise TraceError(f"{DEVICE}: no memory of {n_bytes:,} bytes for the VM ({error.strerror})") from None
        return memory

    def add_vcpu(self) -> Vcpu:
        """One more vCPU."""
        self.vcpus.append(Vcpu(self, len(self.vcpus)))
        return self.vcpus[-1]

    def reset_rings(self) -> int:
        """Arm the pages of all entries taken again; how many there were."""
        return fcntl.ioctl(self.fd, _RESET_RINGS, 0)

    def close(self) -> None:
        """End the VM."""
        for vcpu in self.vcpus:
            vcpu.close()
        os.close(self.fd)
        for memory in self._memory:
            memory.close()


def _address(memory: mmap.mmap) -> int:
    anchor = ctypes.c_char.from_buffer(memory)
    try:
        return ctypes.addressof(anchor)
    finally:
        del anchor


class Exit(NamedTuple):
    """Why KVM_RUN came back: `reason` as in kvm_run; the port of an EXIT_IO."""

    reason: int
    port: int


class Vcpu:
    """A vCPU, its registers, and its dirty ring."""

    def __init__(self, vm: Vm, number: int) -> None:
        self._size = vm.ring_entries
        self._next = 0  # index of the entry to be taken next; runs free
        try:
            self.fd = fcntl.ioctl(vm.fd, _CREATE_VCPU, number)
        except OSError as error:
            raise TraceError(f"{DEVICE}: refuses vCPU {number} ({error.strerror})") from None
        self._run = mmap.mmap(self.fd, vm.kvm.run_bytes)
        self._ring = mmap.mmap(self.fd, vm.ring_entries * ENTRY_BYTES, offset=_RING_PAGE * PAGE)
        self._words = np.frombuffer(self._ring, np.uint64).reshape(-1, 2)

    def run(self) -> Exit:
        """Run the guest until it leaves by itself, or its ring is full. The caller bounds what the guest does."""
        while True:
            try:
                fcntl.ioctl(self.fd, _RUN, 0)
                break
            except InterruptedError:
                continue
            except OSError as error:
                raise TraceError(f"{DEVICE}: refuses to run the guest ({error.strerror})") from None
        reason, port = struct.unpack_from("<I", self._run, 8)[0], struct.unpack_from("<H", self._run, 34)[0]
        return Exit(reason, port)

    def registers(self) -> dict[str, int]:
        """All general registers."""
        buffer = bytearray(_REGS.size)
        fcntl.ioctl(self.fd, _GET_REGS, buffer)
        return dict(zip(_REGISTERS, _REGS.unpack(buffer), strict=True))

    def set_registers(self, **values: int) -> None:
        """General registers; those not given are 0."""
        fcntl.ioctl(self.fd, _SET_REGS, _REGS.pack(*(values.get(name, 0) for name in _REGISTERS)))

    def enter_user_mode(self, page_table: int) -> None:
        """64-bit mode at privilege level 3, with this page table: KVM runs it natively whatever kind of KVM it is."""
        sregs = bytearray(_SREGS_BYTES)
        fcntl.ioctl(self.fd, _GET_SREGS, sregs)
        for index, name in enumerate(_SEGMENTS):
            code = name == "cs"
            kind, selector = (_CODE_TYPE, 0x33) if code else (_DATA_TYPE, 0x2B)
            # base, limit, selector; type, present, dpl, db, s, l, g, avl; unusable
            _SEGMENT.pack_into(
                sregs, index * 24, 0, 0xFFFFFFFF, selector, kind, 1, _USER, not code, 1, code, 1, 0, 0
            )  # fmt: skip
        for at, value in ((_CR0, 0x80050033), (_CR3, page_table), (_CR4, 0x20), (_EFER, 0x500)):
            struct.pack_into("<Q", sregs, at, value)
        fcntl.ioctl(self.fd, _SET_SREGS, bytes(sregs))

    def tsc(self) -> int:
        """The guest's time stamp counter now."""
        buffer = bytearray(struct.pack("<IIIIQ", 1, 0, TSC_MSR, 0, 0))
        if fcntl.ioctl(self.fd, _GET_MSRS, buffer) != 1:
            raise TraceError(f"{DEVICE}: the guest's time stamp counter cannot be read")
        return int(struct.unpack_from("<Q", buffer, 16)[0])

    def tsc_khz(self) -> int:
        """Its rate."""
        return fcntl.ioctl(self.fd, _GET_TSC_KHZ, 0)

    def harvest(self) -> Any:
        """Take all entries of the ring, oldest first: (n, 2) uint64 of slot and page offset. Not armed again yet."""
        words, taken = self._words, []
        while True:
            at = self._next & (self._size - 1)
            flags = (words[at:, 0] & np.uint64(BOTH)) == DIRTY
            count = len(flags) if flags.all() else int(flags.argmin())
            if not count:
                break
            part = words[at : at + count].copy()
            words[at : at + count, 0] ^= np.uint64(BOTH)  # DIRTY becomes RESET_FLAG
            part[:, 0] >>= np.uint64(32)
            taken.append(part)
            self._next += count
        return np.concatenate(taken) if taken else np.empty((0, 2), np.uint64)

    def close(self) -> None:
        """Unmap and end it."""
        del self._words
        self._ring.close()
        self._run.close()
        os.close(self.fd)
