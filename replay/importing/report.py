"""What an importer hands over besides events: counts, times, places of pages, and what has to be said about the trace.

Times are those of the recording's own clock. An importer asks `Report.late` about every time before it uses it: a time
that goes back, or leaps ahead, further than the import allows is damage or another clock, and its line is dropped.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from replay.importing.places import Places
from replay.importing.tally import Tally
from replay.units import format_duration

MAX_T_NS = 1 << 62
MAX_NOTED_TIMES = 10_000


class Batch:
    """Events in the order of the recording, as growing columns: `t_ns`, `extent` (see Places), `offset` in pages of it,
    and `vcpu`, or whatever stands for it (see Report.vcpu_names)."""

    def __init__(self) -> None:
        self.t_ns = array("q")
        self.extent = array("L")
        self.offset = array("Q")
        self.vcpu = array("L")

    def add(self, t_ns: int, extent: int, offset: int, vcpu: int) -> None:
        """One event."""
        self.t_ns.append(t_ns)
        self.extent.append(extent)
        self.offset.append(offset)
        self.vcpu.append(vcpu)

    def __len__(self) -> int:
        return len(self.t_ns)

    def records(self) -> Any:
        """The events as an array of EVENT."""
        return records(self.t_ns, self.extent, self.offset, self.vcpu)


EVENT = np.dtype([("t_ns", "<i8"), ("offset", "<u8"), ("extent", "<u4"), ("vcpu", "<u4"), ("source", "u1")])


def records(t_ns: Any, extent: Any, offset: Any, vcpu: Any, source: Any = 0) -> Any:
    """An array of EVENT from columns."""
    found = np.empty(len(t_ns), EVENT)
    found["t_ns"], found["extent"], found["offset"], found["vcpu"], found["source"] = t_ns, extent, offset, vcpu, source
    return found


@dataclass
class Report:
    """Filled by an importer while it reads."""

    tally: Tally = field(default_factory=Tally)
    places: Places = field(default_factory=Places)
    reorder_ns: int = 10**9
    max_gap_ns: int = 600 * 10**9
    memory_bytes: int | None = None
    earliest_ns: int | None = None
    latest_ns: int = 0
    lateness_ns: int = 0  # by how much events really were out of order
    rearm_ns: array[int] = field(default_factory=lambda: array("q"))
    rearm_gap_ns: int | None = None
    migration_start_ns: int | None = None
    throttled: bool = False
    wall_clock: bool = False  # times count from 1970
    sources: bool = False  # whether events name sources other than vCPUs
    vcpu_names: dict[int, int] | None = None  # what events call a vCPU, to its number; None: they say the number
    clock: str = "the recording's"
    capture: str = "unknown"
    guest: str = ""
    limits: list[str] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)  # for the provenance, JSON-ready

    def late(self, t_ns: int) -> str | None:
        """Why a line at this time must be dropped; None: it is in order, and time has come this far."""
        if self.earliest_ns is None:
            if t_ns > MAX_T_NS:
                return "time beyond 146 years"
            self.earliest_ns = self.latest_ns = t_ns
            return None
        step = t_ns - self.latest_ns
        if step >= 0:
            if step > self.max_gap_ns:
                return f"time leaps ahead by more than {format_duration(self.max_gap_ns)} (see --max-gap)"
            self.latest_ns = t_ns
            return None
        if -step > self.reorder_ns:
            return f"time goes back by more than {format_duration(self.reorder_ns)} (see --reorder)"
        if -step > self.lateness_ns:
            self.lateness_ns = -step
        if t_ns < self.earliest_ns:
            self.earliest_ns = t_ns
        return None

    def note_time(self, name: str, t_ns: int) -> None:
        """Keep the time of something the schema has no field for, such as a ring-full exit. Bounded."""
        times = self.notes.setdefault(name, [])
        if len(times) < MAX_NOTED_TIMES:
            times.append(t_ns)
