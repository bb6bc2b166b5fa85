"""Tests with a real QEMU: left out unless asked for with -m end_to_end, because they need this machine for themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.machine import ROOT

HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Two busy QEMUs beside other tests would measure those: deselect."""
    if "end_to_end" in config.getoption("markexpr"):
        return
    left_out = [item for item in items if item.get_closest_marker("end_to_end") and HERE in item.path.parents]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with vmlinuz, initrd.gz and qemu, as the tool makes it; what it downloads is kept for the next time."""
    pytest.importorskip("qemu.qmp", reason="pip install qemu.qmp")
    folder = tmp_path_factory.mktemp("guest")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "guest" / "make_guest.py"), str(folder)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode == 3:
        pytest.skip(f"no QEMU or no kernel to be had here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return folder
