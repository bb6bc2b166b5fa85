"""Start-up: what a user waits for before anything happens. Wall times of whole processes, not CPU times.

`theirs` is what is compared with: an interpreter that does nothing for `--help`, `import numba` for the demo.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tools.bench.harness import Row, quartiles

ROOT = Path(__file__).resolve().parent.parent.parent
PASS, HELP = ("-c", "pass"), ("-m", "replay", "--help")
NUMBA, DEMO = ("-c", "import numba"), ("-m", "replay", "demo")
HELP_FACTOR, HELP_EXTRA_MS = 2, 30
WARM_DEMO_MS, COLD_DEMO_MS = 2_500, 20_000
ROUNDS, QUICK_ROUNDS = 11, 3


def measure(quick: bool) -> list[Row]:
    """Rows for --help and the warm demo; for the cold demo too unless `quick`."""
    environment = dict(os.environ)
    rounds = QUICK_ROUNDS if quick else ROUNDS
    _wall_ms(DEMO, environment)  # compiles what is not compiled yet
    commands = (PASS, HELP, NUMBA, DEMO)
    samples: dict[tuple[str, ...], list[float]] = {command: [] for command in commands}
    for _ in range(rounds):
        for command in commands:
            samples[command].append(_wall_ms(command, environment))
    idle_ms = statistics.median(samples[PASS])
    rows = [
        _row("python -c 'import numba'", samples[NUMBA], samples[PASS], None),
        _row("replay --help", samples[HELP], samples[PASS], HELP_FACTOR * idle_ms + HELP_EXTRA_MS),
        _row("replay demo, kernels compiled", samples[DEMO], samples[NUMBA], WARM_DEMO_MS),
    ]
    if not quick:
        with tempfile.TemporaryDirectory(prefix="replay-bench-") as folder:
            cold = _wall_ms(DEMO, environment | {"REPLAY_CACHE_DIR": folder})
        rows.append(_row("replay demo, nothing compiled", [cold], samples[NUMBA], COLD_DEMO_MS))
    return rows


def _wall_ms(arguments: Sequence[str], environment: dict[str, str]) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, check=True, capture_output=True)
    return (time.perf_counter() - begin) * 1e3


def _row(what: str, ours: list[float], theirs: list[float], most_ms: float | None) -> Row:
    median, other = statistics.median(ours), statistics.median(theirs)
    return Row(
        what=what,
        ours=median,
        theirs=other,
        unit="ms",
        ratio=median / other,
        spread={"ours": quartiles(ours), "theirs": quartiles(theirs)},
        target=None if most_ms is None else f"<= {most_ms:,.0f} ms",
        met=None if most_ms is None else median <= most_ms,
        samples={"ours_ns": [round(ms * 1e6) for ms in ours], "theirs_ns": [round(ms * 1e6) for ms in theirs]},
    )
