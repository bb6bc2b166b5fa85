"""A small plan, and what a dataset's bytes are."""

from __future__ import annotations

import copy
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
GUEST = "uniform:rate=3000,memory=32M,duration=1s,vcpus=2"
OTHER = "sequential:rate=3000,memory=32M,duration=1s,vcpus=2"
PLAN: dict[str, Any] = {
    "sweep": {"traces": [GUEST, OTHER], "repeats": 2, "starts": 2},
    "base": {"max-bandwidth": "40MB/s", "downtime-limit": "50ms", "give-up": "2s"},
    "axes": {"design": ["bitmap", "double-ring:64"], "log.entries": [1024, 4096], "link": ["500Mbit/s", "1Gbit/s"]},
    "baselines": {"today": {"design": "bitmap"}},
}
RUNS = 2 * 2 * 2 * 8
TOML = f"""
[sweep]
traces = ["{GUEST}", "{OTHER}"]
repeats = 2
starts = 2
[base]
max-bandwidth = "40MB/s"
downtime-limit = "50ms"
give-up = "2s"
[axes]
design = ["bitmap", "double-ring:64"]
"log.entries" = [1024, 4096]
link = ["500Mbit/s", "1Gbit/s"]
[baselines.today]
design = "bitmap"
"""


def plan(**tables: Any) -> dict[str, Any]:
    """The plan with some tables changed."""
    return copy.deepcopy(PLAN) | tables


def content(folder: Path) -> dict[str, str]:
    """sha256 of every file of the dataset."""
    place = folder / "dataset"
    files = [path for path in sorted(place.rglob("*")) if path.is_file()]
    return {str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def begun(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """`replay sweep` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "replay", "sweep", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stopped_midway(process: subprocess.Popen[str], folder: Path, number: signal.Signals) -> tuple[int, str]:
    """Send a signal once some runs are kept; the exit code and what it said on stderr."""
    path, end = folder / "journal" / "1-of-1.journal", time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if path.exists() and path.stat().st_size > 12_000:
            process.send_signal(number)
            break
        time.sleep(0.002)
    _, said = process.communicate(timeout=60)
    return process.returncode, said
