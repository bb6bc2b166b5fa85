"""What a replay of a 96G guest adds to the memory that its decoded trace takes: the peak of a process of its own.

The process first replays a small guest, which loads everything that any replay needs. Beside it stands what a NumPy
script takes for a bool a page and a list of the dirty pages' numbers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tools.bench.harness import Row, measured

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = (60.0, 25.0)
EVENTS, QUICK_EVENTS = 5_000_000, 200_000
ROUNDS, QUICK_ROUNDS = 5, 1
PROGRAM = """
import json, sys
import numpy as np
from replay import api
from replay.trace.reader import Trace

def status(field):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1000

def peak_of(work):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    work()
    return status("VmHWM") - before

def trace(memory_bytes, count):
    draw = np.random.default_rng(1)
    times = np.sort(draw.integers(0, 30 * 10**9, count))
    return Trace.from_arrays(times, draw.integers(0, memory_bytes >> 12, count), memory_bytes=memory_bytes)

def script(pages, n_pages):
    dirty = np.ones(n_pages, dtype=bool)
    np.flatnonzero(dirty)
    dirty[:] = False
    dirty[pages] = True
    np.flatnonzero(dirty)

count, options = int(sys.argv[1]), dict(log="tcg", design="bitmap", max_bandwidth="1250MiB/s")
api.run(trace(1 << 30, 1000), **options)
large = trace(96 << 30, count)
pages = large.decode().page
ours = peak_of(lambda: api.run(large, **options))
theirs = peak_of(lambda: script(pages, 96 << 18))
print(json.dumps([ours, theirs]))
"""


def measure(quick: bool) -> list[Row]:
    """One row; none where the peak cannot be reset."""
    if not Path("/proc/self/clear_refs").exists():
        return []
    command = [sys.executable, "-c", PROGRAM, str(QUICK_EVENTS if quick else EVENTS)]
    samples: tuple[list[float], list[float]] = ([], [])
    for _ in range(QUICK_ROUNDS if quick else ROUNDS):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        for side, value in zip(samples, json.loads(done.stdout), strict=True):
            side.append(value)
    return [measured("memory a 96G replay adds", *samples, unit="MB", target=TARGET, of_ratio=False)]
