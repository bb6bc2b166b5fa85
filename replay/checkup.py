"""What this installation and this machine can do: versions, CPU, cache, optional parts, access for captures."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

OK, MISSING, BROKEN = "ok", "missing", "broken"
NEEDED = ("numba", "llvmlite", "numpy", "pyarrow", "polars", "rich")
OPTIONAL = {
    "matplotlib": ("plots", "charts: replay plot, --plot"),
    "qemu.qmp": ("capture", "captures and migrations of guests in QEMU"),
    "distributed": ("cluster", "sweeps on a cluster"),
}
PROGRAMS = {
    "qemu-system-x86_64": "guests to capture (tools/guest/make_guest.py fetches one)",
    "gcc": "building the small guest, and the comparison with C in tools/bench",
}
CPU_FLAGS = ("popcnt", "bmi2", "avx2", "avx512f", "avx512_vbmi2", "avx512_vpopcntdq")
KERNEL_FOR_PROCESSES = (6, 7)


def checkup() -> list[dict[str, Any]]:
    """One dict a finding: part, status (ok, missing, broken), told, advice (empty when ok). Nothing is changed."""
    return [*_versions(), *_machine(), *_cache(), *_optional(), *_access()]


def _finding(part: str, status: str, told: str, advice: str = "") -> dict[str, Any]:
    return {"part": part, "status": status, "told": told, "advice": advice}


def _versions() -> list[dict[str, Any]]:
    from replay.version import __version__

    found = [_finding("replay", OK, __version__), _finding("Python", OK, platform.python_version())]
    for name in NEEDED:
        try:
            found.append(_finding(name, OK, version(name)))
        except PackageNotFoundError:
            found.append(_finding(name, BROKEN, "not installed", "pip install dirtyreplay installs what is needed"))
    return found


def _machine() -> list[dict[str, Any]]:
    flags, model = set(), platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, told = line.partition(":")
            if name.strip() == "model name":
                model = told.strip()
            if name.strip() in ("flags", "Features"):
                flags = set(told.split())
    except OSError:
        pass
    there = [flag for flag in CPU_FLAGS if flag in flags]
    cores = len(os.sched_getaffinity(0))
    found = [
        _finding("CPU", OK, f"{model}, {cores} core(s) for us"),
        _finding("CPU features", OK, ", ".join(there) or "none known"),
    ]
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        found.append(
            _finding("compiling", BROKEN, "NUMBA_DISABLE_JIT is set: kernels run as plain Python, which is slow",
                     "unset NUMBA_DISABLE_JIT")
        )  # fmt: skip
    return found


def _cache() -> list[dict[str, Any]]:
    from replay import jit

    if jit.DISABLED:
        return []
    if not jit.CACHE_FOLDER:
        return [
            _finding("kernel cache", BROKEN, "no folder can be written: every start compiles for 15 to 20 s",
                     "point REPLAY_CACHE_DIR to a folder that can be written")
        ]  # fmt: skip
    folder = Path(jit.CACHE_FOLDER)
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    size = sum(path.stat().st_size for path in files)
    state = f"{len(files)} files, {size / 1e6:.1f} MB" if files else "empty: the first replay compiles, once"
    return [_finding("kernel cache", OK, f"{folder}: {state}")]


def _optional() -> list[dict[str, Any]]:
    found = []
    for name, (extra, use) in OPTIONAL.items():
        try:
            found.append(_finding(name, OK, f"{version(name)}: {use}"))
        except PackageNotFoundError:
            found.append(_finding(name, MISSING, use, f"pip install 'dirtyreplay[{extra}]'"))
    for name, use in PROGRAMS.items():
        where = shutil.which(name)
        found.append(_finding(name, OK, where) if where else _finding(name, MISSING, use, f"install {name}"))
    return found


def _access() -> list[dict[str, Any]]:
    found = []
    kvm = Path("/dev/kvm")
    if not kvm.exists():
        told = "no /dev/kvm: no capture of KVM guests or micro-VMs"
        found.append(
            _finding("/dev/kvm", MISSING, told, "load kvm_intel or kvm_amd; in a VM, allow nested virtualisation")
        )
    elif os.access(kvm, os.R_OK | os.W_OK):
        found.append(_finding("/dev/kvm", OK, "can be opened"))
    else:
        found.append(_finding("/dev/kvm", MISSING, "may not be opened", "add this user to the group kvm, or be root"))
    tracefs = next((p for p in (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing")) if p.is_dir()), None)
    if tracefs is not None and os.access(tracefs / "instances", os.W_OK):
        found.append(_finding("tracefs", OK, f"{tracefs}: dirty rings of KVM guests can be read"))
    else:
        advice = "be root, with tracefs mounted: mount -t tracefs nodev /sys/kernel/tracing"
        found.append(_finding("tracefs", MISSING, "no access: no replay capture qemu of KVM guests", advice))
    release = platform.release().split(".")
    try:
        new = (int(release[0]), int(release[1].split("-")[0])) >= KERNEL_FOR_PROCESSES
    except (ValueError, IndexError):
        new = False
    if new:
        found.append(_finding("kernel", OK, f"{platform.release()}: replay capture process works"))
    else:
        found.append(_finding("kernel", MISSING, platform.release(), "replay capture process needs Linux 6.7 or later"))
    return found
