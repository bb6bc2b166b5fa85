"""The work of golden replays: every counter in clear, and how many specialisations their kernels were compiled to.

Used by update_golden.py, which writes tests/golden/work.json, and by the test that compares with it. One short
trace through every design, and through two of them on every log; then a replay of every kind through one pair, which
must not make a kernel compile anew because an argument has another type.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import replay
from replay import jit
from replay.plugins import names, parse
from replay.trace.reader import Trace
from replay.work import INDEX

FILE = Path(__file__).resolve().parents[1] / "tests" / "golden" / "work.json"
TRACE = "idle-1g"
OPTIONS: dict[str, Any] = {"max_bandwidth": "200MB/s", "downtime_limit": "20ms", "give_up": "8s"}
PAIR = ("tcg", "bitmap")


def pairs() -> Iterator[tuple[str, str]]:
    """(log, design): every design on KVM's rings, two on every log."""
    for design in names("design"):
        yield "kvm-ring:4096", design
    for log in ("tcg", "kvm-bitmap"):
        for design in ("bitmap", "double-ring"):
            yield log, design


def counters(trace: Any, log: str, design: str) -> dict[str, int]:
    """Totals over all rounds of every counter that is not zero."""
    result = replay.run(trace, log=log, design=design, **OPTIONS)
    totals = {name: sum(row[name] for row in result.rows) for name in INDEX}
    return {name: total for name, total in totals.items() if total}


def kinds(trace: Any) -> Iterator[Callable[[], Any]]:
    """Replays whose events, guests and options come about in different ways."""
    log, design = PAIR
    events = trace.decode()
    made = Trace(trace.path, dataclasses.replace(trace.metadata), None, events)
    for given, more in (
        (trace, {}),
        (trace, {"formulation": "stepping"}),
        (trace, {"start": "1s", "check": False, "at_end": "hold"}),
        (trace, {"memory": "2G", "fit": "tile"}),
        (trace, {"memory": "3G", "fit": "stretch", "zero_share": 0.5}),
        (made, {"multifd_channels": 2}),
        ("uniform:rate=2000", {"memory": "64M"}),
        (trace, {"policy": "auto-converge", "qemu_version": "7.2"}),
    ):
        yield lambda given=given, more=more: replay.run(given, log=log, design=design, **OPTIONS | more)


def specialisations(trace: Any) -> dict[str, int]:
    """Compiled versions of the engine's kernels for PAIR, by name, after a replay of every kind."""
    for run in kinds(trace):
        run()
    states = tuple(parse(kind, name).module.State for kind, name in zip(("log", "design"), PAIR, strict=True))
    counts: dict[str, int] = {}
    for kernel in jit.kernels():
        if kernel.py_func.__module__ != "replay.migration.engine" or kernel.py_func.__name__.startswith("_"):
            continue
        pairs = [tuple(getattr(kind, "instance_class", None) for kind in key) for key in kernel.signatures]
        found = sum(pair[:2] == states for pair in pairs)
        if found:
            counts[kernel.py_func.__name__] = found
    return counts


def all_of_it() -> dict[str, Any]:
    """What work.json holds."""
    trace = replay.open_trace(TRACE)
    work = {f"{log} | {design}": counters(trace, log, design) for log, design in pairs()}
    return {"work": work, "specialisations": specialisations(trace)}


def moved(old: dict[str, Any], new: dict[str, Any], where: str = "work.json") -> Iterator[str]:
    """A line for every figure that differs."""
    for key in sorted(old.keys() | new.keys()):
        was, now = old.get(key), new.get(key)
        if isinstance(was, dict) or isinstance(now, dict):
            yield from moved(was or {}, now or {}, f"{where} | {key}")
        elif was != now:
            yield f"{where} | {key}: {was} -> {now}"
