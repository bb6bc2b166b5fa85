"""What a migration leaves behind: a row a round, and the figures of `query-migrate`.

Everything in a row that only grows is taken as a total at each sync; a round is the difference of two totals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replay.columns import ROUNDS
from replay.migration import engine, link, loss, wire
from replay.migration.guest import CHECK, N_CAUSES, NAPPED_PS, REDUNDANT
from replay.migration.link import CHANNEL_BYTES, FLUSHED, QUEUED
from replay.migration.sender import FETCH_PS, LOCK_PS
from replay.units import PS_PER_MS
from replay.work import (
    INDEX,
    N_SEND,
    NORMAL_PAGES,
    POSTCOPY_FAULTS,
    XBZRLE_MISSES,
    XBZRLE_OVERFLOWS,
    XBZRLE_PAGES,
    XBZRLE_SAME,
    ZERO_PAGES,
)

if TYPE_CHECKING:
    from replay.migration.precopy import Precopy


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a migration came to. `rounds` has one dict a round with the columns of columns.py."""

    status: str
    summary: dict[str, Any]
    rounds: list[dict[str, Any]]
    lost_pages: int | None
    redundant_pages: int | None
    guest: dict[str, Any]
    throttle_steps: list[tuple[int, int]]


_PAGES = (NORMAL_PAGES, ZERO_PAGES, XBZRLE_PAGES, XBZRLE_SAME, XBZRLE_OVERFLOWS, XBZRLE_MISSES)


def totals(machine: Precopy) -> dict[str, Any]:
    """Everything that only grows. Modelled times are floored from exact sums."""
    work, price = machine.meter.work + machine.aside.work, machine.meter.price
    sending = machine.meter.work[:N_SEND] * price[:N_SEND]
    pages_ps = sum(int(sending[counter]) for counter in _PAGES)
    guest = machine.feed.guest
    lanes, stall_ps = guest.head.size, int(guest.stall_ps.sum())
    still_ps = stall_ps + lanes * int(guest.state[NAPPED_PS])
    ran_ps = _ran_ps(machine)
    grown: dict[str, Any] = dict(zip(INDEX, work.tolist(), strict=True))
    grown.update(
        guest_ns=(ran_ps * lanes - still_ps) // (1000 * lanes),
        sent_bytes=int(machine.stream[FLUSHED] + machine.stream[QUEUED]),
        redundant_pages=int(guest.state[REDUNDANT]),
        iterate_calls=machine.iterate_calls,
        modelled_stall_ns=stall_ps // 1000,
        **loss.summed(machine),
        modelled_find_ns=(int(sending.sum()) - pages_ps) // 1000,
        modelled_send_ns=(pages_ps + machine.first_copies_ps) // 1000,
        modelled_aside_ns=(int((machine.aside.work * price).sum()) + machine.first_copies_aside_ps) // 1000,
    )
    spent = machine.spent | {
        "harvest": machine.spent["harvest"] + int(machine.sender[FETCH_PS]),
        "wait": machine.spent["wait"] + int(machine.sender[LOCK_PS]),
    }
    grown.update({f"modelled_{name}_ns": ps // 1000 for name, ps in spent.items()})
    grown.update({f"measured_{name}_ns": ns for name, ns in machine.clock.items()})
    return grown


def _ran_ps(machine: Precopy) -> int:
    """Host time in which the guest could run, at the source and at the target."""
    ran_ps = int(machine.now) if machine.stopped_ps is None else machine.stopped_ps
    return ran_ps if machine.resumed_ps is None else ran_ps + max(0, int(machine.now) - machine.resumed_ps)


def guest(machine: Precopy) -> dict[str, Any]:
    """What became of the guest."""
    stall_ps = machine.feed.guest.stall_ps.reshape(N_CAUSES, -1).sum(axis=0)
    return {
        "stall_ns": [int(ps) // 1000 for ps in stall_ps],
        "vcpus": loss.rows(machine, _ran_ps(machine)),
        "trace_repeats": machine.feed.repeats,
        "trace_ended": machine.feed.ended,
    }


def row(machine: Precopy, opened: dict[str, Any]) -> dict[str, Any]:
    """The row of the round that began with the totals `opened` and ends now."""
    grown = totals(machine)
    entry = {name: value - opened[name] for name, value in grown.items()}
    entry.update({name: value for name, value in opened.items() if name not in grown})
    kring_used, ring_used = engine.most_queued(machine.log, machine.design)
    entry.update(kring_used_max=int(kring_used), ring_used_max=int(ring_used), end_ns=int(machine.now) // 1000)
    entry["formulation"] = "batched" if machine.batched else "stepping"
    if machine.feed.guest.state[CHECK] == 0:
        entry["redundant_pages"] = None
    return {column.name: entry[column.name] for column in ROUNDS}


def summary(machine: Precopy, status: str, setup_ms: int, downtime_ms: int | None) -> dict[str, Any]:
    """The figures that `query-migrate` reports, by its names."""
    total_ms, completed = int(machine.now) // PS_PER_MS, status == "completed"
    normal, zero = machine.sent(NORMAL_PAGES), machine.sent(ZERO_PAGES)
    transferred = int(machine.stream[FLUSHED])
    if machine.version.transferred_is_ram:
        per_normal, per_zero = wire.page_bytes(machine.parameters.mapped_ram)
        transferred = normal * per_normal + zero * per_zero + link.RAM_BYTES_BESIDE_PAGES
        if machine.encoder is not None:
            transferred += machine.encoder.transferred(machine)
    busy_ms = max(1, total_ms - setup_ms)
    cache = {} if machine.encoder is None else {"xbzrle-cache": machine.encoder.summary(machine)}
    return {
        "status": status,
        "total-time": total_ms,
        "downtime": downtime_ms,
        "setup-time": setup_ms,
        "cpu-throttle-percentage": machine.throttle.pct,
        "ram": {
            "transferred": transferred,
            "duplicate": zero,
            "normal": normal,
            "normal-bytes": normal * link.PAGE_BYTES,
            "dirty-sync-count": len(machine.rounds),
            "dirty-pages-rate": machine.period.dirty_pages_rate,
            "pages-per-second": int(machine.window.pages_per_second),
            "mbps": transferred * 8 / busy_ms / 1000 if completed else machine.window.mbps,
            "remaining": 0 if completed else machine.pending * link.PAGE_BYTES,
            "postcopy-requests": int(machine.meter.work[POSTCOPY_FAULTS]),
            "multifd-bytes": int(machine.stream[CHANNEL_BYTES]),
            "total": machine.n_pages * link.PAGE_BYTES,
        },
    } | cache
