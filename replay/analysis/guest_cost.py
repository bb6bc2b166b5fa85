"""What a migration costs its guest while it runs: how long its vCPUs were kept from running, and by what.

`lost` is the whole of it by cause, from the record of each vCPU; `guest_cost` is what delayed the guest before it was
stopped, for limits and pauses (faults are in a recording already: they are told, and delay nobody).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replay.columns import LOSSES, LOST_PCT, LOST_SHARES

if TYPE_CHECKING:
    from replay.results.result import Result


@dataclass(frozen=True, kw_only=True)
class GuestCost:
    """All in ns. ran: from the migrate command until the guest stopped (or the run was given up); slept: under a
    throttle, every vCPU alike; stood: for the dirty log, the mean over vCPUs; most: both, of the vCPU that lost
    most."""

    ran_ns: int
    slept_ns: int
    stood_ns: int
    most_ns: int

    @property
    def share(self) -> float:
        """Share of the time in which the guest could have run that it lost, mean over its vCPUs."""
        return (self.slept_ns + self.stood_ns) / self.ran_ns if self.ran_ns else 0.0


def guest_cost(result: Result) -> GuestCost:
    """What a replay's guest paid, from its record. Postcopy's waits at the target are not in it."""
    return cost_of(result.rows, result.guest["stall_ns"])


def cost_of(rows: list[dict[str, Any]], stall_ns: list[int]) -> GuestCost:
    """The same from the rows of a record and the stall of each lane (vCPU)."""
    stopped = next((row for row in rows if row["cause"] in ("final", "postcopy")), None)
    ran_ns = rows[-1]["end_ns"] if stopped is None else stopped["sync_begin_ns"]
    rounds = [row for row in rows if row["cause"] != "postcopy"]
    lost_ns = max(0, ran_ns - sum(row["guest_ns"] for row in rounds))
    lanes = stall_ns
    if len(rounds) < len(rows):
        lanes = [sum(row["modelled_stall_ns"] for row in rounds) // len(lanes)] * len(lanes)
    mean_ns = sum(lanes) // len(lanes)
    slept_ns = max(0, lost_ns - mean_ns)
    return GuestCost(ran_ns=ran_ns, slept_ns=slept_ns, stood_ns=mean_ns, most_ns=slept_ns + max(lanes))


def lost(vcpus: list[dict[str, Any]]) -> dict[str, float]:
    """What vCPUs lost as shares of the time in which they could have run, in percent: the mean over vCPUs (LOST_PCT),
    the same by cause (LOST_SHARES), and the vCPU that lost most.

    vCPUs are rows of columns.VCPUS.
    """
    ran_ns = sum(row["ran_ns"] for row in vcpus)
    shares = {
        name: 100 * sum(row[f"modelled_{cause}_stall_ns"] for row in vcpus) / ran_ns if ran_ns else 0.0
        for cause, name in zip(LOSSES, LOST_SHARES, strict=True)
    }
    mean = sum(row[LOST_PCT] for row in vcpus) / len(vcpus)
    return {LOST_PCT: mean, **shares, "modelled_lost_most_pct": max(row[LOST_PCT] for row in vcpus)}


def spell_lost(shares: dict[str, Any], causes: int = len(LOSSES)) -> str:
    """The share that was lost and its largest causes: "1.24 %: fault 0.9, sync 0.31"; of one cause only its name:
    "1.24 % fault"; "-" where unknown."""
    if shares[LOST_PCT] is None:
        return "-"
    parts = sorted(zip(LOSSES, (shares[name] for name in LOST_SHARES), strict=True), key=lambda part: -part[1])
    parts = [part for part in parts if part[1] >= 0.005 * shares[LOST_PCT] and part[1]][:causes]
    if causes == 1:
        told = "".join(f" {cause}" for cause, _ in parts)
    else:
        told = ": " * bool(parts) + ", ".join(f"{cause} {share:.2g}" for cause, share in parts)
    return f"{shares[LOST_PCT]:.3g} %{told}"
