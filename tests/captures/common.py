"""Running captures as a user does: the command in a process of its own, or the function."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from replay.capturing import kvm
from replay.capturing.tracee import Ended, Failed, Tracee, check_command
from replay.capturing.written_pages import WrittenPages
from replay.trace.operations import validate

ROOT = Path(__file__).resolve().parents[2]
_NO_KVM = kvm.unavailable()
_SMALL_RING = None if _NO_KVM else kvm.refusal(256)
"""Why a ring of 256 entries cannot be had: 512 more stay reserved where the CPU logs pages itself."""
needs_write_protection = pytest.mark.skipif(
    (_NO_KVM or _SMALL_RING) is not None, reason=_NO_KVM or f"not logged by write protection: {_SMALL_RING}"
)
needs_kvm = pytest.mark.skipif(_NO_KVM is not None, reason=_NO_KVM or "")


def _no_tracking() -> str | None:
    """Why programs cannot be tracked here."""
    import threading

    happened = threading.Event()
    try:
        check_command(["/bin/true"])
        tracee = Tracee(["/bin/true"], happened.set)
        event = tracee.events.get(timeout=30)
        if isinstance(event, Failed):
            return event.why
        pages = WrittenPages(tracee.pid, event.uffd)
        pages.scan()
        pages.close()
        tracee.release()
        while not isinstance(tracee.events.get(timeout=30), Ended):
            tracee.release()
    except Exception as error:
        return str(error)
    return None


_NO_TRACKING = _no_tracking()
needs_tracking = pytest.mark.skipif(_NO_TRACKING is not None, reason=_NO_TRACKING or "")


def start(*arguments: str | Path, **options) -> subprocess.Popen:
    """`replay capture` in a session of its own: no terminal, and signals reach it alone."""
    return subprocess.Popen(
        [sys.executable, "-m", "replay", "capture", *map(str, arguments)], cwd=ROOT, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def capture(*arguments: str | Path, **options) -> tuple[int, str, str]:
    """The same to its end: exit code, standard output, standard error."""
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    return process.returncode, out, err


def events(path: Path) -> list[tuple[int, int, int]]:
    """(t_ns, page, vcpu) of a trace that must be valid, with nothing else left in its folder."""
    assert validate(path) == []
    assert [other.name for other in path.parent.iterdir() if other.suffix == ".tmp"] == []
    table = pq.read_table(path)
    return list(zip(*(table.column(name).to_pylist() for name in ("t_ns", "page", "vcpu")), strict=True))
