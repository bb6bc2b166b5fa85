"""qemu: a guest that runs in QEMU, under TCG or KVM, through its QMP socket.

What: the first write to every page after each re-arm, by vCPU. How, under TCG: QEMU's trace event
memory_notdirty_write_access is turned on, and its log read as it grows; all pages are armed again every `interval` by
starting a migration into a socket of our own and cancelling it after its first bitmap sync. While a real migration runs
(`during-migration`, `migrate-to`) its own syncs do that; `migrate-to` starts one, `case` writes it down as a folder for
`replay validate`. Under KVM: the kernel's tracer shows the entries of the dirty rings, and measurements of the dirty
rate, of `interval` each, have them logged and reset. Everything is put back at the end, by a second process if this one
dies. One capture of a guest at a time: QEMU's log is locked meanwhile. Cost: about 3 us of the vCPU and 95 bytes of
QEMU's log for each first write, a few ms of another CPU for each re-arm; under KVM a fault for each first write. Bad
for: QEMU before 9.0, which misses writes under TCG; guests under TCG that cannot be migrated; under KVM migrations,
writes in the some ms between two measurements, and guests still in their firmware: on a para-virtual host one did not
boot on, so they are refused (`in_firmware`: go on anyway).

Models: QEMU 7.2 to 10.2 with the trace backend log; Linux 5.11 and later.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Any

from replay.capturing.recorder import Recorder
from replay.errors import UsageError
from replay.plugins import param
from replay.units import format_bytes, format_duration

COST = "TCG: 3 us and 95 bytes of log for a first write; KVM: a fault; put back at the end"
HOW = """needs pip install qemu.qmp, and a QEMU started with a QMP socket and a log with times:
  qemu-system-x86_64 -accel tcg,thread=multi -qmp unix:vm.qmp,server=on,wait=off -D vm.log -msg timestamp=on ...
record ten seconds, all pages re-armed every 100 ms:
  replay capture qemu --qmp vm.qmp --duration 10s -o vm.parquet
migrate it meanwhile, and keep the migration as a case (the target: the same QEMU with -incoming unix:vm.mig):
  replay capture qemu --qmp vm.qmp --migrate-to unix:vm.mig --case vm-case -o vm.parquet
  replay validate vm-case
record a migration that somebody else starts:
  replay capture qemu --qmp vm.qmp --during-migration -o vm.parquet
guests under KVM need a dirty ring (-accel kvm,dirty-ring-size=4096), and replay as root on Linux 5.11 or later;
let them boot first: a guest that is still in its firmware is refused
"""
COMMAND = "none"


@dataclass(frozen=True, kw_only=True)
class Config:
    qmp: str = param("", "QEMU's QMP socket, the one of -qmp unix:SOCKET,server=on,wait=off")
    interval: int = param(
        100_000_000,
        "time from one re-arm of all pages to the next (KVM: 50ms to 60s)",
        unit="ns",
        low=10_000_000,
        high=3_600_000_000_000,
    )
    log: str = param("", "QEMU's log, if it is not what QEMU's -D says")
    during_migration: bool = param(False, "wait for a migration that somebody starts, record it, end with it")
    migrate_to: str = param("", "start a migration to this URI, record it, end with it")
    case: str = param("", "with migrate-to: folder to write the migration to, for replay validate")
    bandwidth: int = param(0, "with migrate-to: max-bandwidth in bytes/s; 0: as it is set", unit="bytes", low=0)
    downtime_limit: int = param(0, "with migrate-to: downtime-limit; 0s: as it is set", unit="ns", low=0)
    in_firmware: bool = param(False, "KVM: capture although the guest is in its firmware, or runs without paging")
    give_up: int = param(60_000_000_000, "with migrate-to: cancel the migration after this time", unit="ns", low=1)


def check(config: Config) -> None:
    """Raise UsageError for options that do not go together."""
    if config.migrate_to and config.during_migration:
        raise UsageError(
            "capture qemu: --migrate-to starts a migration, --during-migration waits for one: give one of them"
        )
    if not config.migrate_to and (config.case or config.bandwidth or config.downtime_limit):
        raise UsageError("capture qemu: --case, --bandwidth and --downtime-limit need --migrate-to")
    if config.downtime_limit % 1_000_000 or config.downtime_limit > 2_000_000_000_000:
        raise UsageError("capture qemu: --downtime-limit is whole milliseconds, at most 2000 s")


def describe(config: Config, command: list[str]) -> list[str]:
    """What it will do to this guest, and what that costs. Looks at the guest, so raises what `capture` would."""
    from replay.capturing.qmp import Monitor
    from replay.capturing.qmp_guest import inspect
    from replay.capturing.qmp_kvm import BUFFER_KB, check_tracer
    from replay.capturing.qmp_log import alone

    with Monitor(config.qmp) as monitor:
        guest = inspect(monitor, config.log)
        with alone(guest):
            _check_guest(config, guest, monitor)
    if guest.kvm:
        check_tracer()
        done = [
            f"lets QEMU measure its dirty rate all the time, {format_duration(config.interval)} each (50 ms or more),",
            f"and traces its dirty rings in an instance of the kernel's tracer, {BUFFER_KB // 1024} MiB a host CPU",
        ]
        undone = "trace events, the tracer's instance; the last measurement comes to its end"
    elif config.migrate_to:
        done = [f"migrates it to {config.migrate_to}; gives up after {format_duration(config.give_up)}"]
        undone = "trace events, max-bandwidth, downtime-limit; a migration that still runs is cancelled"
    elif config.during_migration or guest.migrating:
        done = ["waits for a migration that somebody starts, or joins it; starts and changes none"]
        undone = "trace events"
    else:
        done = [
            f"arms all pages again every {format_duration(config.interval)}, some ms of a CPU each time: starts a",
            "migration into a socket of this program, which cannot complete, and cancels it",
        ]
        undone = "trace events, migration parameters and capabilities"
    lines = [
        f"QEMU {guest.version}, {guest.accelerator}, {guest.n_vcpus} vCPUs, {format_bytes(guest.memory_bytes)}",
        *done,
        f"a first write to a page costs its vCPU {'a fault' if guest.kvm else f'3 us and {guest.log} 95 bytes'}",
        f"put back at the end, also after Ctrl-C or a crash: {undone}",
    ]
    if guest.kvm:
        lines.append(FIRMWARE)
    return [*lines, *([] if not guest.loses_writes else [LOSSY.format(version=guest.version)])]


FIRMWARE = (
    "known, of one para-virtual host: a guest captured while it was still in its firmware (SeaBIOS) did not boot on, "
    "and its vCPU's thread kept a CPU busy. So this is refused unless --in-firmware is given"
)
LOSSY = "QEMU {version} misses writes under TCG to pages that stay in a vCPU's TLB; 9.0 and later do not"


def capture(config: Config, recorder: Recorder) -> None:
    """Record until the migration or the time is over. Raises UsageError and TraceError; the guest runs on."""
    from replay.capturing.qmp import Monitor
    from replay.capturing.qmp_guest import inspect
    from replay.capturing.qmp_kvm import Measuring, check_tracer
    from replay.capturing.qmp_log import alone, check_log
    from replay.capturing.qmp_session import Driver, Migrating, Rearming, Session, Waiting

    with Monitor(config.qmp) as monitor, contextlib.ExitStack() as stack:
        guest = inspect(monitor, config.log)
        lock = stack.enter_context(alone(guest))
        _check_guest(config, guest, monitor)
        instance = ""
        driver: Driver
        if guest.kvm:
            instance, driver = str(check_tracer() / "instances" / f"replay-{os.getpid()}"), Measuring(config)
        elif config.migrate_to:
            driver = Migrating(config)
        elif config.during_migration or guest.migrating:
            driver = Waiting(config)
        else:
            driver = Rearming(config)
        check_log(monitor, guest)
        facts = recorder.facts
        facts.guest = (
            f"QEMU {guest.version} ({guest.package}), machine {guest.machine}, {guest.accelerator}, "
            f"{guest.n_vcpus} vCPUs, {format_bytes(guest.memory_bytes)}"
        )
        facts.notes["qemu"] = {"version": guest.version, "ramblocks": list(guest.ramblock_lines)}
        if guest.loses_writes:
            facts.limits.append(LOSSY.format(version=guest.version))
        Session(monitor, guest, recorder, lock, instance).run(driver)


def _check_guest(config: Config, guest: Any, monitor: Any) -> None:
    from replay.capturing.qmp_guest import in_firmware

    if guest.kvm and (config.migrate_to or config.during_migration or guest.migrating):
        raise UsageError(
            "this guest runs under KVM: its migrations are not recorded, only what it writes without one. To record a "
            "migration use the kernel's tracer: replay import kvm-ftrace --help has the commands"
        )
    if guest.migrating and config.migrate_to:
        raise UsageError(f"a migration runs already ({guest.migration['status']}); leave out --migrate-to to join it")
    if guest.kvm and not config.in_firmware and in_firmware(monitor):
        raise UsageError(
            "this guest is still in its firmware (no paging on vCPU 0): captured now it may never boot on. Wait until "
            "its system runs; --in-firmware goes on anyway, and is for guests that never turn paging on"
        )
