"""A prediction: the case's migration replayed several times, with what the host leaves open drawn anew.

A real host does not wake its migration thread to the microsecond and does not copy every page at the same speed. So a
prediction is a small seeded ensemble: oversleep, page and sync costs and the phase of the millisecond clock are drawn
from the spread that was seen on real hosts, and so are the writes that an event trace can not show. The figures are
those of the member with the median total time; P(converged) is the share of members that converge, and where it is
neither 0 nor 1 the case is called knife-edge. A guest's CPU time is counted by its timer tick, which misses what runs
for less; it is taken once to three times as high.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from replay.errors import TraceError
from replay.migration import multifd, postcopy, precopy, versions, xbzrle
from replay.migration.costs import Costs
from replay.migration.feed import Feed
from replay.migration.link import WINDOW_MS
from replay.migration.parameters import Parameters
from replay.migration.policy import Policy
from replay.migration.record import Outcome
from replay.migration.throttle import RUN_MS
from replay.plugins import parse
from replay.validation import traces
from replay.validation.case import FILES, Inputs, read_case
from replay.validation.guest_memory import with_touched
from replay.validation.throttled import LinedUp
from replay.validation.traces import Recorded

MEMBERS = 15
HOST_NOISE_MS = 10  # by which repeated cases of a steady writer differ, a few windows' worth of late wake-ups
NOT_MODELLED = ("dirty-limit", "background-snapshot", "x-colo")
# Spread of a host's own figures from run to run, as the standard deviation of a logarithm; from repeated cases.
_SPREAD = {"oversleep": 0.7, "first_copy": 0.25, "sync": 0.35, "vm_stop": 0.4, "device_state": 0.4, "connect": 0.3}
_PAGE_SPREAD = 0.25


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the ensemble says. `outcome` is the member whose figures are reported."""

    kind: str
    outcome: Outcome
    p_converged: float
    total_ms: tuple[int, ...]  # of the members that converge, ascending
    given_up_ms: tuple[int, ...]  # when the others were given up
    postcopy_faults: int  # the median over the members
    inputs: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def converged(self) -> bool:
        """What more than half of the members do."""
        return self.outcome.status == "completed"

    @property
    def interval_ms(self) -> tuple[int, int] | None:
        """80 % interval of the total time; None when no member converges.

        A member that does not converge counts as one that takes until it is given up. The interval reaches
        HOST_NOISE_MS from its middle at least. Of two boots that are alike one may end a window later: from another
        boot it is a window wider on either side. Under a throttle it is a period of the throttle wider, because a sync
        waits until a sleep is over.
        """
        if not self.total_ms:
            return None
        low, middle, high = np.quantile(np.array(self.total_ms + self.given_up_ms), (0.1, 0.5, 0.9))
        wider = WINDOW_MS if self.kind in ("recording", "others") else 0
        wider += max((RUN_MS * 100 // (100 - pct) for _, pct in self.outcome.throttle_steps), default=0)
        low, high = min(low, middle - HOST_NOISE_MS), max(high, middle + HOST_NOISE_MS)
        return max(0, int(low) - wider), int(np.ceil(high)) + wider


def predict(
    inputs: Inputs,
    kind: str,
    table: Costs,
    *,
    members: int = MEMBERS,
    seed: int = 1,
    trace: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Prediction:
    """Predict a case from its own trace of `kind`; or (kind "recording") from `trace`.

    `trace` is another boot's recording, replayed from several start offsets, or the folder of another case of the same
    workload, replayed from its migrate command: then the guest is that case's, its zero map too, and the parameters are
    this one's. Raises TraceError when a trace is missing or broken.
    """
    if trace is not None and trace.is_dir():
        guest = read_case(trace).inputs
        inputs = dataclasses.replace(
            inputs, blocks=guest.blocks, zero=guest.zero, zero_source=f"{guest.zero_source} of {guest.name}"
        )
    paths = inputs.traces if trace is None else other_traces(trace)
    chosen = kind if trace is None else next(iter(paths))
    if chosen not in paths:
        raise TraceError(f"{inputs.folder}: has no trace of kind {kind}")
    recorded = traces.read_file(paths[chosen], inputs)
    if chosen == "recording":
        zero = with_touched(inputs.zero, recorded.page, seed)
        source = f"{inputs.zero_source}, its data where the recording's is"
        inputs = dataclasses.replace(inputs, zero=zero, zero_source=source)
    unseen = traces.read_file(paths["event"], inputs) if chosen == "store" and "event" in paths else None
    outcomes, filled = [], dict[int, Recorded]()
    starts = start_offsets(recorded, members) if chosen == "recording" else [0] * members
    if not inputs.page_log:  # a guest that made up for a long sleep crowded out only a migration that was logged
        table = dataclasses.replace(table, fixed_ps=table.fixed_ps | {"crowded_page": 0})
    else:
        logged_ps = table.fixed_ps["logged_page"]
        table = table.priced(**{name: table.prices_ps[name] + logged_ps for name in ("normal_pages", "xbzrle_pages")})
    throttled = "auto-converge" in (inputs.capabilities if trace is None else _capabilities(trace))
    for member, start_ns in enumerate(starts):
        busy = min(100, inputs.busy_pct * (10 + member % 5 * 5) // 10)
        fill_seed = seed * 1000 + member % 3
        if fill_seed not in filled:
            filled[fill_seed] = _events(recorded, unseen, fill_seed)
        outcomes.append(run(inputs, filled[fill_seed], _drawn(table, seed, member), start_ns, throttled, busy))
        if progress is not None:
            progress(member + 1, members)
    prediction = _prediction(inputs, kind, recorded, unseen, table, outcomes, paths)
    if not throttled:
        return prediction
    note = "recorded under auto-converge: not throttled again, syncs wait for throttled vCPUs"
    return dataclasses.replace(prediction, notes=(*prediction.notes, note))


def _capabilities(path: Path) -> tuple[str, ...]:
    """Those of the case whose folder it is; a recording was made without a migration."""
    return read_case(path).inputs.capabilities if path.is_dir() else ()


def other_traces(path: Path) -> dict[str, Path]:
    """The traces of another case's folder by kind, the better first; or a file, as a recording."""
    if not path.is_dir():
        return {"recording": path}
    found = {kind: path / name for kind, name in FILES.items() if (path / name).is_file()}
    if not found:
        raise TraceError(f"{path}: holds no trace")
    return found


def run(
    inputs: Inputs, events: Recorded, table: Costs, start_ns: int, recorded_throttled: bool, busy_pct: int
) -> Outcome:
    """One replay of a case's migration."""
    tails_ns = traces.THROTTLED_TAILS_NS if recorded_throttled else traces.TAILS_NS
    source = traces.Continued(events, inputs, start_ns, tails_ns)
    feed = Feed(
        source,
        start_ns=0,
        lanes=1 if inputs.postcopy_after_ns is None else source.shape.n_vcpus + 1,
        loop=True,
        closed_loop=True,
        check=False,
    )
    parameters = Parameters(
        max_bandwidth=int(inputs.parameters["max-bandwidth"]),
        downtime_limit_ms=int(inputs.parameters["downtime-limit"]),
        link_bandwidth=0,
        give_up_ns=inputs.give_up_ns,
        formulation="auto",
        version=versions.nearest(inputs.qemu_version),
        recorded_throttled=recorded_throttled,
        guest_busy_pct=busy_pct,
        zero_page_detection=str(inputs.parameters.get("zero-page-detection", "legacy")),
        multifd=_channels(inputs),
        postcopy=_switch(inputs, events),
        mapped_ram="mapped-ram" in inputs.capabilities,
        xbzrle=_xbzrle(inputs),
    )
    policy: Policy | None = None
    if "auto-converge" in inputs.capabilities:
        policy = _auto_converge(inputs.parameters)
        policy = LinedUp(policy, feed) if recorded_throttled else policy
    log, design = parse("log", "tcg"), parse("design", "bitmap:off")
    machine = precopy.Precopy(
        log.build(source.shape), design.build(source.shape), feed, parameters, table, source.shape.n_pages, policy
    )
    return machine.run()


def _channels(inputs: Inputs) -> multifd.Channels | None:
    if "multifd" not in inputs.capabilities:
        return None
    by_channels = inputs.parameters.get("zero-page-detection", "legacy") == "multifd"
    return multifd.Channels(count=int(inputs.parameters.get("multifd-channels", 2)), find_zeros=by_channels)


def _switch(inputs: Inputs, events: Recorded) -> postcopy.Switch | None:
    """A store trace goes on at the target, through the waits for missing pages."""
    if inputs.postcopy_after_ns is None or "postcopy-ram" not in inputs.capabilities:
        return None
    return postcopy.Switch(
        after_ms=inputs.postcopy_after_ns // 10**6,
        max_bandwidth=int(inputs.parameters.get("max-postcopy-bandwidth", 0)),
        recorded_from_ns=events.moved_ns,
    )


def _xbzrle(inputs: Inputs) -> xbzrle.Settings | None:
    if "xbzrle" not in inputs.capabilities:
        return None
    cache_bytes = int(inputs.parameters.get("xbzrle-cache-size", xbzrle.DEFAULT_CACHE_BYTES))
    return xbzrle.Settings(cache_bytes=cache_bytes, share_ppm=10**6, delta_bytes=xbzrle.MEASURED_DELTA_BYTES)


def _auto_converge(parameters: dict[str, Any]) -> Any:
    plugin = parse("policy", "auto-converge")
    names = {
        "initial": "cpu-throttle-initial",
        "increment": "cpu-throttle-increment",
        "maximum": "max-cpu-throttle",
        "tailslow": "cpu-throttle-tailslow",
        "trigger": "throttle-trigger-threshold",
    }
    given = {field: parameters[name] for field, name in names.items() if name in parameters}
    return plugin.module.build(dataclasses.replace(plugin.config, **given))


def _events(recorded: Recorded, unseen: Recorded | None, seed: int) -> Recorded:
    if recorded.bin_ns is None:
        return traces.fill(recorded, seed)
    return recorded if unseen is None else traces.with_unseen_pages(recorded, traces.fill(unseen, seed))


def start_offsets(recorded: Recorded, members: int) -> list[int]:
    """Start offsets over the first two thirds of a recording."""
    begin, end = int(recorded.t_ns[0]), recorded.end_ns
    return [begin + (end - begin) * 2 * member // (3 * members) for member in range(members)]


def _drawn(table: Costs, seed: int, member: int) -> Costs:
    """The cost table of one member: the given one for member 0, then figures drawn around it."""
    if member == 0:
        return table
    generator = np.random.default_rng([seed, member, 0xC057])
    fixed, prices = dict(table.fixed_ps), dict(table.prices_ps)
    for name, spread in _SPREAD.items():
        fixed[name] = int(fixed[name] * float(np.exp(generator.normal(0, spread))))
    factor = float(np.exp(generator.normal(0, _PAGE_SPREAD)))
    for name in ("normal_pages", "zero_pages"):
        prices[name] = int(prices[name] * factor)
    fixed["crowded_page"] = int(fixed["crowded_page"] * float(generator.uniform(0.25, 2.25)))  # up to 36 us were seen
    fixed["connect"] = max(0, fixed["connect"] + int(generator.integers(-500_000_000, 500_000_000)))
    return dataclasses.replace(table, fixed_ps=fixed, prices_ps=prices)


def _prediction(
    inputs: Inputs,
    kind: str,
    recorded: Recorded,
    unseen: Recorded | None,
    table: Costs,
    outcomes: list[Outcome],
    paths: dict[str, Path],
) -> Prediction:
    done = sorted((o for o in outcomes if o.status == "completed"), key=lambda o: int(o.summary["total-time"]))
    rest = [o for o in outcomes if o.status != "completed"]
    chosen = done[len(done) // 2] if len(done) > len(rest) else rest[0]
    notes = list(_notes(inputs, kind, recorded, chosen))
    if done and rest:
        notes.append(f"knife-edge: {len(done)} of {len(outcomes)} members converge")
    used = [
        "parameters and capabilities",
        "RAM block table",
        f"zero map: {inputs.zero_source}",
        f"trace: {paths.get(kind, next(iter(paths.values()))).name}",
        f"cost table: {table.name}",
        f"QEMU {versions.nearest(inputs.qemu_version)} rules",
        f"given up after {inputs.give_up_ns / 1e9:g} s",
    ]
    if "auto-converge" in inputs.capabilities:
        used.append(f"guest busy {inputs.busy_pct} % of its CPU time before the migration")
    if "postcopy-ram" in inputs.capabilities and inputs.postcopy_after_ns is not None:
        used.append(f"postcopy asked for after {inputs.postcopy_after_ns / 1e9:.3f} s")
    if inputs.page_log:
        used.append("QEMU logged every page that it sent")
    if "xbzrle" in inputs.capabilities:
        delta = f"xbzrle: all deltas fit, {xbzrle.MEASURED_DELTA_BYTES} bytes each"
        used.append(f"{delta} (a fit to two recorded migrations, this one perhaps among them)")
    if unseen is not None:
        used.append(f"page-table pages: from {paths['event'].name}")
    return Prediction(
        kind=kind,
        outcome=chosen,
        p_converged=len(done) / len(outcomes),
        total_ms=tuple(int(o.summary["total-time"]) for o in done),
        given_up_ms=tuple(inputs.give_up_ns // 10**6 for _ in rest),
        postcopy_faults=int(np.median([o.summary["ram"]["postcopy-requests"] for o in outcomes])),
        inputs=tuple(used),
        notes=tuple(notes),
    )


def _notes(inputs: Inputs, kind: str, recorded: Recorded, outcome: Outcome) -> Iterator[str]:
    for name in NOT_MODELLED:
        if name in inputs.capabilities:
            yield f"{name} is not modelled: predicted as a plain precopy"
    if recorded.bin_ns is None:
        yield f"re-arm times {recorded.rearm_source}; writes between them filled in, seeded"
        rearm = traces.rearm_times(recorded)
        syncs = len(outcome.rounds)
        if kind == "recording" and rearm.size > 1 and syncs > 1:
            finest = min(row["end_ns"] - row["sync_begin_ns"] for row in outcome.rounds[1:])
            if finest < int(np.median(np.diff(rearm))):
                yield f"re-arms more finely ({finest / 1e6:.0f} ms) than the recording did"
    if int(outcome.rounds[-1]["end_ns"]) > 1.01 * recorded.end_ns:
        yield f"outlives its trace: {traces.CONTINUATION}"
