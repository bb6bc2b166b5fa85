"""Explore everything that is known of a design, for all small guests up to some bounds, and say what came of it.

What: two parts. *Protocol*: the small-step model of the same name in protocols/, at the granularity of single loads
and stores; a file of the user's own has none. *Verbs*: the design's code itself, with each verb call atomic, on every
dirty log. Guests are taken from small to large (writes, pages, entries of a queue), so what is reported of an unsafe
design is a shortest schedule for the smallest guest that loses. A protocol is also searched for livelock (the sender
may switch over only when nothing is pending) and, where one queue can be passed over for another, for starvation.

How a verdict reads: `safe` only if every part was explored to its end. When states ran out the verdict is not proven.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replay import plugins
from replay.errors import ReplayError, UsageError
from replay.safety.explorer import LIVELOCK, STARVATION, Exploration, Step, explore, find_livelock, find_starvation
from replay.safety.model import EMPTY, MAX_PAGES, Bounds

PROTOCOL, VERBS = "protocol", "verbs"
LOGS = ("tcg", "kvm-bitmap", "kvm-ring")
MAX_RING, MAX_WRITES, MAX_ACTORS = 4, 8, 3
VERB_PAGES, VERB_WRITES = 2, 3
LIVE_PAGES, LIVE_WRITES = 2, 2
Told = Callable[[str, int], None]
"""Called now and then with (what is explored, states so far); raise from it to cancel."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One exploration: of which part, on which log, for which property and bounds."""

    part: str
    log: str
    looked_for: str
    bounds: str
    states: int
    complete: bool


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is known of a design. `schedule` is empty unless `property` says what it violates."""

    design: str
    safe: bool
    proven: bool
    states: int
    parts: tuple[Part, ...]
    property: str | None = None
    schedule: tuple[Step, ...] = ()
    cycle_from: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it. `log`, `part` and `bounds` are those of the last exploration."""
        last = self.parts[-1]
        return {
            "design": self.design,
            "safe": self.safe,
            "proven": self.proven,
            "property": self.property,
            "states": self.states,
            "log": last.log,
            "part": last.part,
            "bounds": last.bounds,
            "schedule": [step.as_dict() for step in self.schedule],
            "cycle_from": self.cycle_from,
            "parts": [dataclasses.asdict(part) for part in self.parts],
        }


def verdict_from(told: dict[str, Any]) -> Verdict:
    """The verdict that `as_dict` described."""
    return Verdict(
        design=told["design"],
        safe=told["safe"],
        proven=told["proven"],
        states=told["states"],
        property=told["property"],
        cycle_from=told["cycle_from"],
        schedule=tuple(Step(**step) for step in told["schedule"]),
        parts=tuple(Part(**part) for part in told["parts"]),
    )


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to check. `log` None: every log. Raises UsageError for bounds that make no sense."""

    design: str
    log: str | None = None
    pages: int = 3
    ring: int = 2
    writes: int = 4
    vcpus: int = 1
    devices: int = 1
    max_states: int = 5_000_000

    def __post_init__(self) -> None:
        for name, low, high in (
            ("pages", 1, MAX_PAGES), ("ring", 1, MAX_RING), ("writes", 1, MAX_WRITES), ("vcpus", 0, MAX_ACTORS),
            ("devices", 0, MAX_ACTORS), ("max_states", 1, 1 << 40),
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UsageError(
                    f"--{name.replace('_', '-')} must be a whole number from {low} to {high}, not {value!r}: every "
                    "interleaving is explored, and their number grows exponentially"
                )
        if self.vcpus + self.devices == 0:
            raise UsageError("nobody writes: give --vcpus or --devices at least 1")


def check(request: Request, told: Told | None = None) -> Verdict:
    """Explore. Runs verbs as plain Python: in a process of their own when this one has compiled kernels."""
    from replay import jit

    plugin = plugins.parse("design", request.design)
    logs = _logs(request)
    if jit.DISABLED:
        return _check(request, plugin, logs, told)
    return _check_apart(request, told)


def _logs(request: Request) -> tuple[Any, ...]:
    return tuple(plugins.parse("log", log) for log in ([request.log] if request.log else LOGS))


def _check_apart(request: Request, told: Told | None) -> Verdict:
    environment = os.environ | {
        "NUMBA_DISABLE_JIT": "1",
        "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path),
    }
    worker = subprocess.Popen(
        [sys.executable, "-m", "replay.safety.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        worker.stdin.write(json.dumps(dataclasses.asdict(request)))
        worker.stdin.close()
        for line in worker.stdout:
            message = json.loads(line)
            if "error" in message:
                raise UsageError(message["error"]) if message["usage"] else ReplayError(message["error"])
            if "verdict" in message:
                return verdict_from(message["verdict"])
            if told is not None:
                told(message["what"], message["states"])
        raise ReplayError(f"the exploration ended without a verdict (exit code {worker.wait()})")
    finally:
        worker.kill()
        worker.stdout.close()
        worker.wait()


def _check(request: Request, plugin: Any, logs: tuple[Any, ...], told: Told | None) -> Verdict:
    parts: list[Part] = []
    for part, found in _explorations(request, plugin, logs, told):
        parts.append(part)
        if found.property is not None:
            return _verdict(plugin, parts, found)
    if not parts:
        raise UsageError(f"nothing to explore for {plugin.label}")
    return _verdict(plugin, parts, None)


def _verdict(plugin: Any, parts: list[Part], found: Exploration | None) -> Verdict:
    complete = all(part.complete for part in parts)
    return Verdict(
        design=plugin.label,
        safe=found is None and complete,
        proven=found is not None or complete,
        states=sum(part.states for part in parts),
        parts=tuple(parts),
        property=found.property if found else None,
        schedule=found.schedule if found else (),
        cycle_from=found.cycle_from if found else None,
    )


def _explorations(
    request: Request, plugin: Any, logs: tuple[Any, ...], told: Told | None
) -> Iterator[tuple[Part, Exploration]]:
    module = protocol(plugin)
    names = [log.name for log in logs]
    if module is not None:
        for log in (log for log in module.LOGS if log in names):
            yield from _protocol(request, plugin, module, log, told)
    for log in logs:
        yield from _verbs(request, plugin, log, told)


def protocol(plugin: Any) -> Any:
    """The module of protocols/ for a shipped design, None for a file of the user's own."""
    if not plugin.module.__name__.startswith("replay.designs."):
        return None
    name = plugin.module.__name__.rpartition(".")[2]
    if not (Path(__file__).with_name("protocols") / f"{name}.py").exists():
        return None
    return importlib.import_module(f"replay.safety.protocols.{name}")


def _guests(request: Request, rings: list[int], pages: int, writes: int) -> Iterator[Bounds]:
    """Small guests first. With the most pages, a queue smaller than the largest is tried with one write less."""
    for most in sorted({min(2, writes), writes}):
        for n_pages in range(1, pages + 1):
            for ring in rings:
                n_writes = max(1, most - 1) if n_pages == pages > 1 and ring < rings[-1] else most
                yield Bounds(pages=n_pages, ring=ring, writes=n_writes, vcpus=request.vcpus, devices=request.devices)


def _spell(bounds: Bounds) -> str:
    return f"{bounds.pages} pages, ring {bounds.ring}, {bounds.writes} writes"


def _part(part: str, log: str, looked_for: str, bounds: Bounds, found: Exploration) -> Part:
    return Part(
        part=part,
        log=log,
        looked_for=looked_for,
        bounds=_spell(bounds),
        states=found.states,
        complete=found.complete,
    )


def _protocol(
    request: Request, plugin: Any, module: Any, log: str, told: Told | None
) -> Iterator[tuple[Part, Exploration]]:
    rings = list(range(1, request.ring + 1)) if getattr(module, "QUEUES", True) else [request.ring]

    def report(looked_for: str, bounds: Bounds, found: Exploration) -> tuple[Part, Exploration]:
        return _part(PROTOCOL, log, looked_for, bounds, found), found

    for bounds in _guests(request, rings, request.pages, request.writes):
        progress = _progress(told, f"{plugin.label}, protocol on {log}, {_spell(bounds)}")
        found = explore(module.build(plugin.config, bounds, log=log), max_states=request.max_states, progress=progress)
        yield report("loss, deadlock", bounds, found)
    small = Bounds(
        pages=min(LIVE_PAGES, request.pages), ring=1, writes=min(LIVE_WRITES, request.writes), vcpus=request.vcpus,
        devices=request.devices, strict=True,
    )  # fmt: skip
    progress = _progress(told, f"{plugin.label}, livelock on {log}")
    model = module.build(plugin.config, small, log=log)
    yield report(LIVELOCK, small, find_livelock(model, max_states=request.max_states, progress=progress))
    waits_for = getattr(module, "WAITS", None)
    if waits_for is not None:
        endless = dataclasses.replace(small, strict=False, endless=True)
        model = module.build(plugin.config, endless, log=log)
        waiting = model.names.index(waits_for)
        found = find_starvation(
            model,
            waits=lambda state: state[waiting] != EMPTY,
            serves_others=module.serves_others,
            max_states=request.max_states,
            progress=_progress(told, f"{plugin.label}, starvation on {log}"),
        )
        yield report(STARVATION, endless, found)


def _verbs(request: Request, plugin: Any, log: Any, told: Told | None) -> Iterator[tuple[Part, Exploration]]:
    from replay.safety.real import Verbs

    names = {field.name for field in dataclasses.fields(plugin.config)}
    sized = bool(names & {"entries", "batch"}) or log.name == "kvm-ring"
    rings = [1 << k for k in range(3) if 1 << k <= request.ring] if sized else [request.ring]
    if log.name == "kvm-ring":
        log = plugins.parse("log", "kvm-ring:256,pml=off")
    for bounds in _guests(request, rings, min(VERB_PAGES, request.pages), min(VERB_WRITES, request.writes)):
        if bounds.vcpus == 0:
            bounds = dataclasses.replace(bounds, vcpus=1)
        small = {name: min(bounds.ring, getattr(plugin.config, name)) for name in names & {"entries", "batch"}}
        tiny = dataclasses.replace(plugin, config=dataclasses.replace(plugin.config, **small))
        system = Verbs(log, tiny, bounds)
        progress = _progress(told, f"{plugin.label}, verbs on {log.name}, {_spell(bounds)}")
        found = explore(system, max_states=request.max_states, progress=progress)
        if found.property is not None:
            found = dataclasses.replace(found, schedule=(*found.schedule, *system.tail(found.schedule)))
        yield _part(VERBS, log.name, f"loss, deadlock, {LIVELOCK}", bounds, found), found


def _progress(told: Told | None, what: str) -> Callable[[int, int], None] | None:
    if told is None:
        return None
    return lambda states, waiting: told(what, states)
