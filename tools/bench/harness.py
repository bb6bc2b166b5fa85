"""What all benchmarks share: C compiled and loaded, two sides interleaved, raw samples kept, the machine described.

Times are CPU times of the measuring thread, so that other work on the machine disturbs caches but is not
counted. Each round prepares and runs one side, then the other, in alternating order. The cost of the calls
themselves (ctypes, numba's dispatcher, the clock) is measured on empty work and subtracted. Medians are reported
with quartiles; a ratio is the median of the rounds' ratios, since neighbouring runs share the machine's state.
"""

from __future__ import annotations

import atexit
import ctypes
import dataclasses
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llvmlite
import numpy as np

from replay.jit import NUMBA_VERSION

SOURCES = Path(__file__).resolve().parent / "c"
FLAGS = ("-O3", "-march=native", "-shared", "-fPIC")
MIN_ROUNDS, MAX_ROUNDS, BUDGET_S = 7, 61, 2.0
QUICK_ROUNDS = 3
Target = tuple[float, float]
"""What a figure must be at most, and what it should be at best."""
UNITS_NS = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}


class DifferentResultsError(Exception):
    """The two sides of a comparison did not compute the same thing: their times mean nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison. `ours` and `theirs` are medians in `unit`; `ratio` is ours / theirs, below 1 is faster."""

    what: str
    ours: float | None  # None: not measured, and `what` says why
    theirs: float | None
    unit: str
    ratio: float | None
    spread: dict[str, list[float]]  # quartiles: of ours and theirs in `unit`, of the ratio
    target: str | None  # what it must be at most, and what would be better still
    met: bool | None
    stretch: bool | None  # whether the second one is met, too
    samples: dict[str, Any]  # raw samples (ns) and results of either side


# -- C ----------------------------------------------------------------------------------------------------------------

_libraries: dict[str, ctypes.CDLL] = {}


def has_compiler() -> bool:
    """Whether the C side can be built at all."""
    return shutil.which("gcc") is not None


def library(name: str) -> ctypes.CDLL | None:
    """`c/NAME.c`, compiled for this machine and loaded; None without gcc."""
    if not has_compiler():
        return None
    if name not in _libraries:
        folder = tempfile.mkdtemp(prefix="replay-bench-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        target = os.path.join(folder, f"{name}.so")
        subprocess.run(["gcc", *FLAGS, "-o", target, str(SOURCES / f"{name}.c")], check=True)
        _libraries[name] = ctypes.CDLL(target)
    return _libraries[name]


def c_call(name: str, function: str, *arguments: Any, keep: tuple[Any, ...] = ()) -> Callable[[], None] | None:
    """A call of a C function with fixed arguments (arrays by address, integers as uint64); None without gcc.

    The call keeps its arguments alive, and `keep`: arrays whose addresses are inside the arguments.
    """
    loaded = library(name)
    if loaded is None:
        return None
    entry = getattr(loaded, function)
    entry.restype = None
    entry.argtypes = [ctypes.c_void_p if isinstance(a, np.ndarray) else ctypes.c_uint64 for a in arguments]
    given = [a.ctypes.data if isinstance(a, np.ndarray) else int(a) for a in arguments]

    def call(_kept: Any = (arguments, keep)) -> None:
        entry(*given)

    return call


# -- measuring --------------------------------------------------------------------------------------------------------


def nothing() -> None:
    """The preparation of a comparison that needs none."""


def thread_ns(function: Callable[[], Any]) -> int:
    """CPU time of one call."""
    begin = time.thread_time_ns()
    function()
    return time.thread_time_ns() - begin


def overhead_ns(function: Callable[[], Any]) -> float:
    """What calling costs when there is nothing to do."""
    return statistics.median(thread_ns(function) for _ in range(301))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """One way to do the work. `prepare` (not measured) may hand its value to `run`; `result` is read after a run."""

    run: Callable[..., Any]
    result: Callable[[], Any]
    prepare: Callable[[], Any] = nothing
    idle: Callable[[], Any] | None = None  # the same call with nothing to do
    clock: Callable[[], int] = time.thread_time_ns  # of the whole process where the work is done on other threads

    def sample_ns(self) -> int:
        """Prepare, run, and return the CPU time of the run."""
        given = self.prepare()
        arguments = () if given is None else (given,)
        begin = self.clock()
        self.run(*arguments)
        return self.clock() - begin


def compare(
    what: str,
    ours: Side,
    theirs: Side | None,
    *,
    unit: str,
    quick: bool,
    per: float = 1.0,
    target: Target | None = None,
    rounds: int | None = None,
) -> Row:
    """Interleave two sides. `per` divides times (a number of events, say). Raises DifferentResultsError.

    rounds: how often, after a first time that is not counted; by default as often as a few seconds allow.
    """
    sides = [ours] if theirs is None else [ours, theirs]
    estimate = 0
    results = []
    for side in sides:
        side.sample_ns()
        results.append(side.result())
        estimate += side.sample_ns() if rounds is None else 0
    if len(results) == 2 and results[0] != results[1]:
        raise DifferentResultsError(f"{what}: ours {results[0]}, theirs {results[1]}")
    if rounds is None:
        rounds = max(MIN_ROUNDS, min(MAX_ROUNDS, int(BUDGET_S * 1e9 / max(1, estimate))))
    samples: list[list[int]] = [[] for _ in sides]
    for turn in range(QUICK_ROUNDS if quick else rounds):
        for index in range(len(sides)) if turn % 2 == 0 else reversed(range(len(sides))):
            samples[index].append(sides[index].sample_ns())
    spare = [overhead_ns(side.idle) if side.idle else 0.0 for side in sides]
    return _row(what, samples, spare, results, unit, per, target)


def _row(
    what: str,
    samples: Sequence[Sequence[int]],
    spare: Sequence[float],
    results: Sequence[Any],
    unit: str,
    per: float,
    target: Target | None,
) -> Row:
    net = [[max(1.0, ns - less) for ns in side] for side, less in zip(samples, spare, strict=True)]
    scaled = [[ns / UNITS_NS[unit.split("/")[0]] / per for ns in side] for side in net]
    names = ("ours", "theirs")[: len(net)]
    spread = {name: quartiles(side) for name, side in zip(names, scaled, strict=True)}
    ratio = None
    if len(net) == 2:
        ratios = [a / b for a, b in zip(net[0], net[1], strict=True)]
        ratio, spread["ratio"] = statistics.median(ratios), quartiles(ratios)
    raw: dict[str, Any] = {f"{name}_ns": list(side) for name, side in zip(names, samples, strict=True)}
    raw |= {f"{name}_result": result for name, result in zip(names, results, strict=True)}
    raw |= {f"{name}_overhead_ns": less for name, less in zip(names, spare, strict=True)}
    return Row(
        what=what,
        ours=statistics.median(scaled[0]),
        theirs=statistics.median(scaled[1]) if len(scaled) == 2 else None,
        unit=unit,
        ratio=ratio,
        spread=spread,
        samples=raw,
        **verdict(target, ratio),
    )


def measured(
    what: str,
    ours: Sequence[float],
    theirs: Sequence[float] | None,
    *,
    unit: str,
    target: Target | None = None,
    of_ratio: bool = True,
) -> Row:
    """A row of samples taken elsewhere, in `unit`. The target is one of their ratio, or of `ours` itself."""
    median = statistics.median(ours)
    other = None if theirs is None else statistics.median(theirs)
    ratio = None if other is None else median / other
    given = {"ours": list(ours)} | ({} if theirs is None else {"theirs": list(theirs)})
    scale = UNITS_NS.get(unit)
    return Row(
        what=what,
        ours=median,
        theirs=other,
        unit=unit,
        ratio=ratio,
        spread={name: quartiles(values) for name, values in given.items()},
        samples={
            name + ("_ns" if scale else ""): [round(value * scale) if scale else value for value in values]
            for name, values in given.items()
        },
        **verdict(target, ratio if of_ratio else median, "" if of_ratio else f" {unit}"),
    )


def unavailable(what: str, why: str, target: Target | None) -> Row:
    """A row that could not be measured here."""
    return Row(
        what=f"{what}: {why}", ours=None, theirs=None, unit="-", ratio=None, spread={}, samples={},
        **verdict(target, None),
    )  # fmt: skip


def verdict(target: Target | None, value: float | None, unit: str = "") -> dict[str, Any]:
    """The fields of a row that say what was wanted, and whether `value` is that."""
    if target is None:
        return {"target": None, "met": None, "stretch": None}
    spelled = " / ".join(short_ratio(limit) if not unit else f"{limit:g}" for limit in target)
    met = [None if value is None else value <= limit for limit in target]
    return {"target": f"<= {spelled}{unit}", "met": met[0], "stretch": met[1]}


def short_ratio(value: float) -> str:
    """Two digits behind the point, or two that say something."""
    return f"{value:.2f}" if value >= 0.095 else f"{value:.2g}"


def quartiles(values: Sequence[float]) -> list[float]:
    """Lower and upper quartile."""
    low, high = np.quantile(np.asarray(values, dtype=float), [0.25, 0.75])
    return [float(low), float(high)]


# -- the report -------------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What the numbers were measured on and with."""
    model = platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:
            model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    gcc = None
    if has_compiler():
        gcc = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True, check=True).stdout.strip()
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "numba": NUMBA_VERSION,
        "llvmlite": llvmlite.__version__,
        "numpy": np.__version__,
        "gcc": gcc,
        "gcc_flags": " ".join(FLAGS[:2]),
    }


def as_json(rows: Sequence[Row]) -> dict[str, Any]:
    """{machine, rows, samples}; samples are keyed by the row's `what`."""
    flat = [dataclasses.asdict(row) for row in rows]
    samples = {row["what"]: row.pop("samples") for row in flat}
    return {"machine": machine(), "rows": flat, "samples": samples}
