"""What a running QEMU is: version, accelerator, vCPUs and their threads, RAM blocks, and where it logs to.

Reads only. The log's place is on QEMU's command line; QEMU itself cannot be asked.
"""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from replay.capturing.qmp import Monitor, Refused
from replay.errors import UsageError
from replay.importing.ram_blocks import Block, numbered

PAGE = 4096
STORE = "memory_notdirty_write_access"
LOSSY_BEFORE = (9, 0)
_CR0 = re.compile(r"\bCR0=([0-9a-f]{8,16})\b")
_PAGING = 1 << 31
_LOOKS, _BETWEEN_S = 3, 0.05
_BLOCK = re.compile(
    r"^\s*(\S+)\s+\S+(?: \S?iB)?\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)\s+0x[0-9a-f]+(?:\s+0x([0-9a-f]+))?", re.MULTILINE
)
RUNNING = ("setup", "active", "device", "pre-switchover", "postcopy-active", "postcopy-paused", "cancelling",
           "wait-unplug", "postcopy-recover", "postcopy-recover-setup", "postcopy-device")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Guest:
    """A QEMU as it was found. `threads`: host thread to vCPU (the first, where one thread runs several).

    `ramblock_lines`: as `info ramblock` prints them. `migration`: as query-migrate answered.
    """

    kvm: bool
    process: int
    version: str
    package: str
    machine: str
    n_vcpus: int
    threads: dict[int, int]
    blocks: tuple[Block, ...]
    ramblock_lines: tuple[str, ...]
    log: Path
    migration: dict[str, Any]

    @property
    def accelerator(self) -> str:
        """KVM or TCG."""
        return "KVM" if self.kvm else "TCG"

    @property
    def memory_bytes(self) -> int:
        """All RAM blocks."""
        return sum(block.n_pages for block in self.blocks) * PAGE

    @property
    def migrating(self) -> bool:
        """Whether a migration ran when it was looked at."""
        return self.migration.get("status") in RUNNING

    @property
    def loses_writes(self) -> bool:
        """Whether this version, under TCG, does not report all first writes after a sync."""
        return not self.kvm and self.older_than(LOSSY_BEFORE)

    def older_than(self, version: tuple[int, int]) -> bool:
        """Whether this is a QEMU before `version`."""
        return tuple(int(part) for part in self.version.split(".")[:2]) < version


def inspect(monitor: Monitor, log: str = "") -> Guest:
    """Look at a QEMU. Raises UsageError, naming what to do, where it cannot be captured."""
    version = monitor.execute("query-version")
    number = ".".join(str(version["qemu"][part]) for part in ("major", "minor", "micro"))
    kvm = _accelerator(monitor, number) == "kvm"
    status = monitor.execute("query-status")
    if not status.get("running"):
        raise UsageError(f"the guest does not run (it is {status.get('status')}); start it (QMP: cont), then capture")
    if not event_state(monitor, STORE):
        raise UsageError(f"this QEMU was built without trace events ({STORE} is not available): use another build")
    cpus = sorted(monitor.execute("query-cpus-fast"), key=lambda cpu: -cpu["cpu-index"])
    threads = {cpu["thread-id"]: cpu["cpu-index"] for cpu in cpus}
    process = _process_of(next(iter(threads)))
    listing = monitor.human("info ramblock")
    found = [_pages(match) for match in _BLOCK.finditer(listing)]
    if not found:
        raise UsageError(f"QEMU's list of RAM blocks (info ramblock) cannot be read: {listing[:80]!r}")
    return Guest(
        kvm=kvm,
        process=process,
        version=number,
        package=str(version.get("package", "")),
        machine=_machine(monitor),
        n_vcpus=len(cpus),
        threads=threads,
        blocks=numbered(found),
        ramblock_lines=tuple(line.rstrip() for line in listing.splitlines() if line.strip()),
        log=Path(log) if log else _log_of(process),
        migration=monitor.execute("query-migrate"),
    )


def in_firmware(monitor: Monitor) -> bool:
    """Whether vCPU 0 of an x86 guest has not turned paging on, which systems do at once and SeaBIOS never does.

    It is looked at three times, 50 ms apart: a system may be seen in a call of its firmware (SMM). False for other
    guests, and for firmware that uses paging itself (64-bit UEFI).
    """
    for look in range(_LOOKS):
        if look:
            time.sleep(_BETWEEN_S)
        found = _CR0.search(monitor.human("info registers"))
        if found is None or int(found[1], 16) & _PAGING:
            return False
    return True


def event_state(monitor: Monitor, name: str) -> str | None:
    """ "enabled" or "disabled"; None for a trace event that this QEMU does not have."""
    try:
        found = monitor.execute("trace-event-get-state", name=name)
    except Refused:
        return None
    state = found[0]["state"] if found else "unavailable"
    return state if state in ("enabled", "disabled") else None


def _accelerator(monitor: Monitor, version: str) -> str:
    if monitor.execute("query-kvm").get("enabled"):
        return "kvm"
    jit = ""
    with contextlib.suppress(Refused):
        jit = monitor.human("info jit")
    if "TB count" not in jit:
        raise UsageError(f"this guest (QEMU {version}) runs neither under TCG nor under KVM")
    return "tcg"


def _machine(monitor: Monitor) -> str:
    try:
        name = str(monitor.execute("qom-get", path="/machine", property="type"))
    except Refused:
        return "unknown machine"
    return name.removesuffix("-machine")


def _process_of(thread: int) -> int:
    """The process of a thread, 0 where that cannot be seen."""
    with contextlib.suppress(OSError):
        group = re.search(r"^Tgid:\s+(\d+)", Path(f"/proc/{thread}/status").read_text(), re.MULTILINE)
        return int(group[1]) if group else 0
    return 0


def _pages(match: re.Match[str]) -> tuple[str, int, int, int]:
    """(name, first page in ram_addr space, pages, first page in QEMU's memory or -1) of a line of `info ramblock`."""
    name, address, size, host = match[1], int(match[2], 16), int(match[3], 16), int(match[4] or "0", 16)
    return name, address // PAGE, size // PAGE, host // PAGE if host else -1


def _log_of(process: int) -> Path:
    """QEMU's -D file."""
    hint = "start QEMU with -D FILE -msg timestamp=on, or say with --log where its log goes"
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
        folder = Path(f"/proc/{process}/cwd").readlink()
    except OSError:
        raise UsageError(f"QEMU's command line cannot be read, so its log is not known; {hint}") from None
    given = [after for word, after in pairwise(words) if word in ("-D", "--D")]
    if not given:
        raise UsageError(f"this QEMU writes its log to standard error; {hint}")
    return folder / given[-1].replace("%d", str(process))
