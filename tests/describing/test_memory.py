"""Memory does not grow with the length of a trace: a long one and one an eighth as long have nearly the same peak."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import replay

ROOT = Path(__file__).resolve().parents[2]
MOST_GROWTH_MIB = 130  # buffers fill up to about 240 MiB and stay there: 10^8 events take no more
CODE = """
import resource, sys
import replay
from replay.cli.main import main
path, out = sys.argv[1:3]
assert main([word.replace("PATH", path).replace("OUT", out) for word in sys.argv[3:]]) == 0
# ru_maxrss would be that of the process that started this one, where that is larger
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("peak", int(peak.split()[1]) // 1024)
"""
COMMANDS = {
    "stat": ("stat", "PATH", "--json"),
    "heatmap": ("heatmap", "PATH", "--bins", "80x40", "--json"),
    "slice": ("slice", "PATH", "--from", "100ms", "--within", "0-50%", "-o", "OUT"),
    "sample": ("sample", "PATH", "--keep", "50%", "--by", "events", "-o", "OUT"),
    "merge": ("merge", "PATH", "PATH", "-o", "OUT"),
    "stretch": ("scale", "PATH", "--memory", "512M", "--fit", "stretch", "--speed", "2x", "-o", "OUT"),
    "tile": ("scale", "PATH", "--memory", "512M", "--fit", "tile", "-o", "OUT"),
}


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """6.4 million events over 256 MiB, and the first eighth of that guest."""
    folder = tmp_path_factory.mktemp("long")
    made = {}
    for name, duration in (("short", "8s"), ("long", "64s")):
        made[name] = folder / f"{name}.parquet"
        replay.generate("hot-cold:rate=100000", made[name], memory="256M", duration=duration)
    return made


def peak_mib(path: Path, command: tuple[str, ...]) -> int:
    """Peak resident memory of a command, in MiB."""
    arguments = [str(path), str(path.with_name("out.parquet")), "trace", *command]
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_memory_is_bounded(traces: dict[str, Path], command: str) -> None:
    short, long = (peak_mib(traces[name], COMMANDS[command]) for name in ("short", "long"))
    assert long - short < MOST_GROWTH_MIB, f"{short} MiB for 0.8 million events, {long} MiB for 6.4 million"
    assert long < 500
