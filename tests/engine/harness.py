"""Run the same small migration in the engine and in the reference model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from replay.columns import ROUNDS
from replay.migration import costs
from replay.migration.feed import Feed, Window
from replay.migration.multifd import Channels
from replay.migration.parameters import Parameters
from replay.migration.policy import attach
from replay.migration.postcopy import Switch
from replay.migration.precopy import Precopy
from replay.migration.record import Outcome
from replay.migration.xbzrle import Settings
from replay.plugins import parse
from replay.policies import auto_converge, dirty_limit
from replay.verbs import GuestShape
from tests.reference.case import DMA, VHOST, Case, host_on
from tests.reference.migration import Migration

TABLE = costs.load("generic-x86")
VERSIONS = ["7.2", "9.x", "10.0", "10.2"]
SOURCES = {"host": 1 << 13, "dma": 2 << 13, "vhost": 3 << 13}  # codes in an event's origin
COMPARED = [c.name for c in ROUNDS if not c.name.startswith("measured_") and c.name != "formulation"]


class SmallGuest:
    """A case's events as a source of windows of `window_events` events each."""

    def __init__(self, case: Case, window_events: int | None = None):
        self.case, self.window_events = case, window_events
        self.shape = GuestShape(n_pages=case.n_pages, n_vcpus=case.n_vcpus, n_blocks=case.n_blocks)
        self.duration_ns = case.duration_ns
        self.t_ns = np.array([t for t, _, _ in case.events], dtype=np.uint64)
        self.page = np.array([page for _, page, _ in case.events], dtype=np.uint32)
        self.origin = np.array([origin_of(writer) for _, _, writer in case.events], dtype=np.uint16)

    def windows(self, start_ns: int) -> Iterator[Window]:
        begin, stop = int(np.searchsorted(self.t_ns, start_ns)), self.t_ns.size
        size = self.window_events or max(1, stop - begin)
        for first in range(begin, max(begin + 1, stop), size):
            part = slice(first, min(first + size, stop))
            end = self.duration_ns if first + size >= stop else int(self.t_ns[first + size])
            yield Window(self.t_ns[part], self.page[part], self.origin[part], end)

    def zero_pages(self) -> np.ndarray:
        bits = np.zeros(self.shape.n_words, dtype=np.uint64)
        for page in self.case.zero:
            bits[page // 64] |= np.uint64(1 << (page % 64))
        return bits


def origin_of(writer: int) -> int:
    """A case's writer as the engine's events carry it."""
    if writer >= 0:
        return writer
    return {DMA: SOURCES["dma"], VHOST: SOURCES["vhost"]}.get(writer, SOURCES["host"] | (-10 - writer))


def plugin_texts(case: Case) -> tuple[str, str]:
    pml = "on" if case.kring_reserved == 576 else "off"
    log = (
        f"kvm-ring:{case.kring_entries},pml={pml},reaper-period={case.reaper_ps // 1000}ns"
        f",push-before-retire={('off', 'on')[case.kring_repeats]}"
        if case.log == "kvm-ring"
        else case.log
    )
    shown = {name: ("off", "on")[value] if isinstance(value, bool) else value for name, value in case.options.items()}
    if not shown:
        return log, case.design
    return log, f"{case.design}:" + ",".join(f"{name}={value}" for name, value in shown.items())


def run_engine(
    case: Case,
    formulation: str = "auto",
    *,
    window_events: int | None = None,
    check: bool = True,
    keep: list[Precopy] | None = None,
) -> Outcome:
    source = SmallGuest(case, window_events)
    log, design = (parse(kind, text) for kind, text in zip(("log", "design"), plugin_texts(case), strict=True))
    feed = Feed(
        source,
        start_ns=case.start_ns,
        lanes=case.n_vcpus + 1 if any(getattr(plugin.module, "STALLS_VCPUS", False) for plugin in (log, design)) else 1,
        loop=case.loop,
        closed_loop=case.closed_loop,
        check=check,
    )
    table = dataclasses.replace(TABLE, prices_ps=case.prices, fixed_ps=case.fixed, fixed_bytes=case.fixed_bytes)
    parameters = Parameters(
        max_bandwidth=case.max_bandwidth,
        downtime_limit_ms=case.downtime_ms,
        link_bandwidth=0,
        give_up_ns=case.give_up_ns,
        formulation=formulation,
        version=case.version,
        recorded_throttled=case.recorded_throttled,
        guest_busy_pct=case.busy_pct,
        zero_page_detection=case.zero_detection,
        mapped_ram=case.mapped_ram,
        postcopy=None
        if case.postcopy is None
        else Switch(after_ms=case.postcopy[0], max_bandwidth=case.postcopy[1], recorded_from_ns=case.postcopy[2]),
        multifd=None
        if not case.channels
        else Channels(count=case.channels, find_zeros=case.zero_detection == "multifd"),
        xbzrle=None if case.xbzrle is None else settings_of(*case.xbzrle),
    )
    policy = None
    if case.auto_converge:
        given = ("initial", "increment", "maximum", "tailslow", "trigger")
        policy = auto_converge.build(auto_converge.Config(**dict(zip(given, case.auto_converge, strict=True))))
    if case.dirty_limit:
        given = ("quota", "period", "trigger")
        policy = dirty_limit.build(dirty_limit.Config(**dict(zip(given, case.dirty_limit, strict=True))))
    log_state = log.build(source.shape)
    attach(policy, log.module, log_state)
    machine = Precopy(log_state, design.build(source.shape), feed, parameters, table, case.n_pages, policy)
    if keep is not None:
        keep.append(machine)
    return machine.run()


def settings_of(slots: int, share_ppm: int, delta_bytes: int) -> Settings:
    return Settings(cache_bytes=slots * 4096, share_ppm=share_ppm, delta_bytes=delta_bytes)


def run_reference(case: Case) -> Migration:
    return Migration(case).run()


def rounds_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in COMPARED} for row in rows]


def difference(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    """The first round and columns in which two records differ, for a readable failure."""
    for mine, other in zip(ours, theirs, strict=False):
        unequal = {name: (mine[name], other[name]) for name in COMPARED if mine[name] != other[name]}
        if unequal:
            return f"round {mine['round']}: {unequal}"
    return "" if len(ours) == len(theirs) else f"{len(ours)} rounds against {len(theirs)}"


def make_case(**changes: Any) -> Case:
    defaults: dict[str, Any] = {
        "n_pages": 200, "n_vcpus": 2, "events": [], "duration_ns": 1_000_000_000, "zero": set(),
        "log": "tcg", "design": "bitmap",
        "max_bandwidth": 2_000_000, "downtime_ms": 10, "prices": TABLE.prices_ps, "fixed": TABLE.fixed_ps,
        "fixed_bytes": TABLE.fixed_bytes, "give_up_ns": 3_000_000_000,
    }  # fmt: skip
    merged = defaults | changes
    return Case(**(merged | {"options": default_options(merged["design"]) | changes.get("options", {})}))


def default_options(design: str) -> dict[str, Any]:
    """A shipped design's parameters as they are when none is given; nothing for a spelling of one's own."""
    if design not in OPTIONS:
        return {}
    config = parse("design", design).config
    return {name: getattr(config, name.replace("-", "_")) for name, _ in OPTIONS[design]}


def random_events(
    seed: int, n_pages: int, n_vcpus: int, count: int, duration_ns: int, *, hot: int, devices: bool, burst: bool
) -> list:
    """Writes at random times: mostly to `hot` pages, some in runs; many at equal times when `burst`.

    With `devices`, a few are made by DMA, vhost and the hypervisor itself.
    """
    generator = np.random.default_rng(seed)
    step = max(1, duration_ns // (20 if burst else 100_000))
    times = np.sort(generator.integers(0, duration_ns // step, count) * step)
    pages = (
        np.where(
            generator.random(count) < 0.7,
            generator.integers(0, max(1, hot), count),
            generator.integers(0, n_pages, count),
        )
        % n_pages
    )
    runs = generator.random(count) < 0.2
    pages = np.where(runs, (np.arange(count) // 3) % n_pages, pages)
    writers = generator.integers(0, n_vcpus, count)
    if devices:
        kinds = generator.integers(0, 12, count)
        writers = np.select([kinds == 0, kinds == 1, kinds == 2], [DMA, VHOST, host_on(0) - writers], writers)
    return list(zip(times.tolist(), pages.tolist(), writers.tolist(), strict=True))


# What the options of each design may be: (name, values). The reference must know every parameter of every plug-in.
_ENTRIES = ("entries", [1, 4, 64, 1024])
_SWITCH = [False, True]
OPTIONS: dict[str, list[tuple[str, list[Any]]]] = {
    "bitmap": [("host-page-refind", _SWITCH)],
    "hierarchical-bitmap": [("group", [64, 128, 512]), ("host-page-refind", _SWITCH)],
    "double-ring": [
        _ENTRIES, ("host-page-refind", _SWITCH), ("dedupe", _SWITCH), ("exact-full", _SWITCH), ("locked", _SWITCH),
        ("late-inserts", _SWITCH), ("atomic-clear", _SWITCH), ("multifd-flush", _SWITCH), ("block-rescans", _SWITCH),
        ("boot-filled", _SWITCH), ("as-posted", [False, False, False, True]), ("race-every", [1, 7, 1000]),
    ],
    "direct-reap": [("order", ["safe", "literal"]), ("sender", ["vcpu", "batches"]), ("batch", [1, 4, 64, 1024])],
    "ring-only": [_ENTRIES, ("full", ["wait", "send"]), ("dedupe", ["none", "queued", "round"])],
    "ring-fallback": [
        _ENTRIES, ("leave", ["sticky", "scan", "chunks"]), ("chunk", [64, 128]), ("host-page-refind", _SWITCH),
    ],
    "ring-background": [
        _ENTRIES, ("background", [0, 1, 2, 8]), ("filter", ["naive", "cursor", "done-bit"]),
        ("source", ["reaper", "kvm-ring"]), ("full", ["block", "prioritise"]), ("third-branch", _SWITCH),
    ],
}  # fmt: skip
_ONLY_FROM_KVM_RINGS: list[tuple[str, list[Any]]] = [
    ("order", ["round-robin", "longest", "age"]), ("batch", [1, 4, 64]), ("rearm", ["before", "after"]),
]  # fmt: skip


@st.composite
def options(draw: Any, design: str) -> dict[str, Any]:
    """Parameters of a design; half of the time the safe defaults but for the first one."""
    drawn = {name: draw(st.sampled_from(values)) for name, values in OPTIONS[design]}
    if drawn.get("source") == "kvm-ring":
        drawn |= {name: draw(st.sampled_from(values)) for name, values in _ONLY_FROM_KVM_RINGS}
        drawn["batch"] = min(drawn["batch"], drawn["entries"])
    if draw(st.booleans()):
        first = OPTIONS[design][0][0]
        drawn = default_options(design) | {first: drawn[first]}
    return drawn


_WITH_ROUNDS = ("bitmap", "hierarchical-bitmap", "double-ring")
# Quota in MiB/s, period in ms, trigger in %.
_DIRTY_LIMITS = [None, (1, 1000, 1), (1, 100, 1), (40, 250, 1)]
# Of xbzrle: slots, share of deltas that fit, bytes of a delta.
_XBZRLE = [
    None,
    None,
    None,
    (1, 1_000_000, 14),
    (16, 333_333, 300),
    (1024, 1_000_000, 14),
    (1024, 700_001, 4000),
    (64, 0, 5),
]


@st.composite
def cases(draw: Any, log: str, design: str, vary_options: bool = True) -> Case:
    """Small guests and settings that reach rate limits, thresholds, full rings, fallbacks, repeats and all-zero memory."""
    n_pages = draw(st.sampled_from([1, 3, 63, 64, 65, 127, 200, 500, 1000]))
    n_vcpus = draw(st.integers(1, 3))
    duration_ns = draw(st.sampled_from([40_000_000, 300_000_000, 2_000_000_000]))
    events = random_events(
        draw(st.integers(0, 10_000)), n_pages, n_vcpus, draw(st.sampled_from([0, 5, 100, 1500])), duration_ns,
        hot=draw(st.sampled_from([1, 8, 100])), devices=draw(st.booleans()), burst=draw(st.booleans()),
    )  # fmt: skip
    zero_share = draw(st.sampled_from([0.0, 0.5, 1.0]))
    zeros = set(np.flatnonzero(np.random.default_rng(n_pages).random(n_pages) < zero_share).tolist())
    small_ring = draw(st.booleans())
    fixed = TABLE.fixed_ps | {
        "crowded_page": draw(st.sampled_from([0, 5_000_000])),
        "first_copy": draw(st.sampled_from([0, 0, 30_000_000, 2_000_000_001])),
    }
    mapped = draw(st.sampled_from([False, False, True]))
    throttled = draw(
        st.one_of(st.none(), st.sampled_from([(20, 10, 99, False, 50), (50, 20, 90, True, 10), (99, 10, 99, False, 1)]))
    )
    loop = draw(st.booleans())
    xbzrle = None if mapped else draw(st.sampled_from(_XBZRLE))
    channels = 0
    if not mapped and xbzrle is None and design in _WITH_ROUNDS:
        channels = draw(st.sampled_from([0, 0, 1, 2, 5]))
    postcopy = None
    if not mapped and not channels and draw(st.booleans()):
        postcopy = (
            draw(st.sampled_from([0, 30, 250, 1000])), draw(st.sampled_from([0, 1_000_000, 40_000_000])),
            None if loop else draw(st.sampled_from([None, duration_ns // 2])),
        )  # fmt: skip
    give_up_ns = draw(st.sampled_from([150_000_000, 1_500_000_000, 1_500_000_000, 9_000_000_000]))
    prices = dict(TABLE.prices_ps)
    if draw(st.booleans()):  # slow work, so that deadlines, busy syncs and stalls matter even in a small guest
        prices.update(
            normal_pages=400_000_000,
            zero_pages=90_000_000,
            l2_words=7_000_000,
            kring_reaped=3_000_001,
            find_words=1_001,
        )
    return make_case(
        n_pages=n_pages, n_vcpus=n_vcpus, events=events, duration_ns=duration_ns, zero=zeros, log=log, design=design,
        max_bandwidth=draw(st.sampled_from([0, 300_000, 2_000_000, 50_000_000])), downtime_ms=draw(st.sampled_from([0, 5, 300])),
        prices=prices,
        kring_entries=256 if small_ring else 1024, kring_reserved=64 if small_ring else 576,
        kring_repeats=small_ring and draw(st.booleans()),
        reaper_ps=draw(st.sampled_from([3_000_000_000, 10**12])),
        options=draw(options(design)) if vary_options else {}, n_blocks=draw(st.sampled_from([1, 3])), loop=loop,
        closed_loop=draw(st.booleans()), give_up_ns=give_up_ns, fixed=fixed,
        version=draw(st.sampled_from(VERSIONS)), recorded_throttled=draw(st.booleans()),
        busy_pct=draw(st.sampled_from([100, 100, 60, 7])),
        auto_converge=throttled,
        dirty_limit=None if log != "kvm-ring" or throttled else draw(st.sampled_from(_DIRTY_LIMITS)),
        start_ns=draw(st.sampled_from([0, duration_ns // 3])),
        zero_detection=draw(st.sampled_from(["legacy", "legacy", "none", "multifd"])),
        mapped_ram=mapped, xbzrle=xbzrle, channels=channels, postcopy=postcopy,
    )  # fmt: skip
