"""Whole migrations against what one would write instead (scripts.py), each on the same events, all in memory.

Ours includes building the state. Of a script the CPU time of all its threads counts. Both must agree on the new pages
of every sync, the pages sent and the end to the picosecond. simpy and pyroaring are optional (the extra `bench`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from replay.migration import costs
from replay.migration.feed import Feed
from replay.migration.parameters import Parameters
from replay.migration.precopy import Precopy
from replay.plugins import parse
from tools.bench import scripts, workloads
from tools.bench.harness import Row, Side, Target, compare, unavailable
from tools.bench.replay import EVENTS_PER_S, GIVE_UP_NS, Guest, busy_guest

LAYERS, RINGS = "bitmap", "double-ring:{}"
LARGE, SMALL = "96G", "8G"
SECONDS, QUICK_SECONDS = {LARGE: 120, SMALL: 15}, 2
MOST_RING_ENTRIES = 1 << 21


class Peer(NamedTuple):
    """A script, what it takes of a guest, and how it is compared."""

    run: Callable[..., scripts.Migrated]
    takes: Callable[[Guest], tuple[Any, ...]]
    design: str = LAYERS
    size: str = LARGE
    rounds: int | None = None
    target: Target | None = None
    module: str | None = None  # an optional package that it needs


def _arrays(guest: Guest) -> tuple[Any, ...]:
    return guest.t_ns, guest.page


def _lists(guest: Guest) -> tuple[Any, ...]:
    return guest.t_ns.tolist(), guest.page.tolist()


def _frame(guest: Guest) -> tuple[Any, ...]:
    return (pl.DataFrame({"t_ns": guest.t_ns.astype(np.int64), "page": guest.page}),)


PEERS = {
    "NumPy, a bool array": Peer(scripts.with_numpy, _arrays, target=(1 / 10, 1 / 20)),
    "polars": Peer(scripts.with_polars, _frame),
    "pyroaring": Peer(scripts.with_pyroaring, _arrays, module="pyroaring"),
    "plain Python, rings": Peer(scripts.with_ring, _lists, design=RINGS, rounds=3, target=(1 / 80, 1 / 100)),
    "simpy": Peer(scripts.with_simpy, _lists, size=SMALL, rounds=3, target=(1 / 150, 1 / 240), module="simpy"),
}


def measure(quick: bool) -> list[Row]:
    """A row for each script."""
    rows = []
    guests: dict[str, tuple[str, Guest]] = {}
    for name, peer in PEERS.items():
        if peer.size not in guests:
            ((label, n_pages),) = workloads.sizes(quick, (peer.size,)).items()
            seconds = QUICK_SECONDS if quick else SECONDS[peer.size]
            guests[peer.size] = label, busy_guest(n_pages, EVENTS_PER_S * seconds)
        label, guest = guests[peer.size]
        what = f"busy {label}, against {name}"
        if peer.module and not scripts.installed(peer.module):
            rows.append(unavailable(what, "not installed", peer.target))
        else:
            rows.append(_compare(what, peer, guest, quick))
    return rows


def _compare(what: str, peer: Peer, guest: Guest, quick: bool) -> Row:
    found: list[scripts.Migrated] = []
    n_pages, given = guest.shape.n_pages, peer.takes(guest)
    table = page_price_only()

    def ours() -> None:
        found[:] = [_migrated(machine := build(guest, table, peer.design), machine.run().rounds)]

    def theirs() -> None:
        found[:] = [peer.run(*given, n_pages)]

    sides = (
        Side(run=run, result=lambda: list(found[0]), clock=clock)
        for run, clock in ((ours, time.thread_time_ns), (theirs, time.process_time_ns))
    )
    return compare(what, *sides, unit="ms", quick=quick, target=peer.target, rounds=peer.rounds)


def page_price_only() -> costs.Costs:
    """A cost table in which a page with content costs PAGE_PS and all else nothing."""
    table = costs.load(costs.DEFAULT)
    return dataclasses.replace(
        table,
        prices_ps=dict.fromkeys(table.prices_ps, 0) | {"normal_pages": scripts.PAGE_PS},
        fixed_ps=dict.fromkeys(table.fixed_ps, 0),
        fixed_bytes=dict.fromkeys(table.fixed_bytes, 0),
    )


def build(guest: Guest, table: costs.Costs, design: str, *, check: bool = False) -> Precopy:
    """A migration as the scripts model it, ready to run. They do not keep track of what the target has."""
    shape = guest.shape
    entries = min(MOST_RING_ENTRIES, 1 << (shape.n_pages - 1).bit_length())
    feed = Feed(guest, start_ns=0, lanes=1, loop=False, closed_loop=False, check=check)
    parameters = Parameters(
        max_bandwidth=0, downtime_limit_ms=scripts.DOWNTIME_MS, link_bandwidth=0, give_up_ns=GIVE_UP_NS,
        formulation="auto",
    )  # fmt: skip
    log, store = parse("log", "tcg"), parse("design", design.format(entries))
    return Precopy(log.build(shape), store.build(shape), feed, parameters, table, shape.n_pages)


def _migrated(machine: Precopy, rounds: list[dict[str, Any]]) -> scripts.Migrated:
    sent = sum(row["normal_pages"] + row["zero_pages"] for row in rounds)
    return scripts.Migrated([row["dirty_pages"] for row in rounds], sent, int(machine.now))
