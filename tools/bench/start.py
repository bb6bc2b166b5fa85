"""Start-up: what a user waits for before anything happens. Wall times of whole processes, not CPU times.

Python's bytecode is on disk for both sides, as after an installation, even where PYTHONDONTWRITEBYTECODE is set.

`theirs` is what is compared with: an interpreter that does nothing for `--help`, `import numba` for a small replay and
the demo, and for one replay of a 96G guest a script of its own that reads the same trace and migrates it with NumPy.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tools.bench.harness import Row, measured

ROOT = Path(__file__).resolve().parent.parent.parent
PASS, HELP = ("-c", "pass"), ("-m", "replay", "--help")
SCRIPT_HELP = ("-c", "import sys\nfrom replay.cli.main import main\nsys.exit(main(['--help']))")  # as pip writes it
NUMBA, DEMO = ("-c", "import numba"), ("-m", "replay", "demo")
SMALL = ("-m", "replay", "run", "idle-1g")
LARGE = ("-m", "replay", "run", "redis-1g", "--memory", "96G", "--max-bandwidth", "1250MiB/s")
SCRIPT = (
    "-c",
    """
import numpy, pyarrow.parquet
from tools.bench.scripts import with_numpy
table = pyarrow.parquet.read_table("traces/redis-1g.parquet", columns=["t_ns", "page"])
t_ns, page = (table[name].to_numpy() for name in ("t_ns", "page"))
found = with_numpy(t_ns.view("uint64"), page, 96 << 18)
print(len(found.new_pages), found.pages, found.end_ps)
""",
)
TARGET = (2.0, 1.5)
SCRIPT_TARGET = (4.0, 2.0)
ROUNDS, QUICK_ROUNDS = 11, 3


def measure(quick: bool) -> list[Row]:
    """Rows for --help and the warm demo; for the cold demo too unless `quick`."""
    with tempfile.TemporaryDirectory(prefix="replay-bench-") as bytecode:
        return _rows(quick, _environment(bytecode))


def _environment(bytecode: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": bytecode}


def _rows(quick: bool, environment: dict[str, str]) -> list[Row]:
    rounds = QUICK_ROUNDS if quick else ROUNDS
    commands = (PASS, HELP, SCRIPT_HELP, NUMBA, SMALL, DEMO, SCRIPT, LARGE)
    for command in commands:  # compiles what is not compiled yet
        _wall_ms(command, environment)
    samples: dict[tuple[str, ...], list[float]] = {command: [] for command in commands}
    for _ in range(rounds):
        for command in commands:
            samples[command].append(_wall_ms(command, environment))
    rows = [
        measured("python -c 'import numba'", samples[NUMBA], samples[PASS], unit="ms"),
        measured("replay --help, against python", samples[SCRIPT_HELP], samples[PASS], unit="ms", target=TARGET),
        measured("python -m replay --help, against python", samples[HELP], samples[PASS], unit="ms", target=TARGET),
        measured("replay run, small, against import numba", samples[SMALL], samples[NUMBA], unit="ms", target=TARGET),
        measured("replay demo, against import numba", samples[DEMO], samples[NUMBA], unit="ms"),
        measured(
            "replay run, 96G, against a NumPy script", samples[LARGE], samples[SCRIPT], unit="ms", target=SCRIPT_TARGET
        ),
    ]
    if not quick:
        with tempfile.TemporaryDirectory(prefix="replay-bench-") as folder:
            cold = _wall_ms(DEMO, environment | {"REPLAY_CACHE_DIR": folder})
        rows.append(measured("replay demo, nothing compiled", [cold], samples[NUMBA], unit="ms"))
    return rows


def _wall_ms(arguments: Sequence[str], environment: dict[str, str]) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, check=True, capture_output=True)
    return (time.perf_counter() - begin) * 1e3
