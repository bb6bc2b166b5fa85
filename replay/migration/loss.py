"""What a migration takes from each vCPU, by cause: columns.LOSSES.

A lane that is a vCPU has what it stood still for itself; where the whole guest is one lane, every vCPU has what it has.
A throttle's sleeps are everybody's; faults are counted by the log for each vCPU, and priced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replay.columns import LOSSES
from replay.migration.guest import FETCH, FULL, N_CAUSES, NAPPED_PS, SLEEP, SYNC
from replay.verbs import write_faults

if TYPE_CHECKING:
    from replay.migration.precopy import Precopy


def by_vcpu(machine: Precopy) -> dict[str, list[int]]:
    """Picoseconds lost so far, by cause, of each vCPU."""
    guest, vcpus = machine.feed.guest, range(machine.feed.n_vcpus)
    lanes = guest.stall_ps.reshape(N_CAUSES, -1).tolist()
    full, sync, slept, fetch = (
        [lanes[cause][vcpu if guest.head.size > 1 else 0] for vcpu in vcpus] for cause in (FULL, SYNC, SLEEP, FETCH)
    )
    napped = int(guest.state[NAPPED_PS])
    noticed, per_exit = write_faults(machine.log) or ([0] * len(vcpus), 1)
    price = machine.costs.fixed_ps["write_fault"]
    return {
        "full": full,
        "sync": sync,
        "throttle": [ps + napped for ps in slept],
        "fault": [int(count) // per_exit * price for count in noticed],
        "fetch": fetch,
    }


def summed(machine: Precopy) -> dict[str, int]:
    """The columns of the record that they come to, as totals over vCPUs."""
    return {f"modelled_{cause}_stall_ns": sum(ps) // 1000 for cause, ps in by_vcpu(machine).items()}


def rows(machine: Precopy, ran_ps: int) -> list[dict[str, Any]]:
    """One row a vCPU, with the columns of columns.VCPUS."""
    lost, found = by_vcpu(machine), []
    for vcpu in range(machine.feed.n_vcpus):
        ns = {f"modelled_{cause}_stall_ns": lost[cause][vcpu] // 1000 for cause in LOSSES}
        total = sum(lost[cause][vcpu] for cause in LOSSES)
        share = {"modelled_lost_ns": total // 1000, "modelled_lost_pct": 100 * total / ran_ps if ran_ps else 0.0}
        found.append({"vcpu": vcpu, "ran_ns": ran_ps // 1000} | ns | share)
    return found
