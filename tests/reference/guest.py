"""When the guest's writes happen."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from tests.reference.case import DMA, VHOST, Case


@dataclass
class Guest:
    """Events of each lane in host time, delayed by the lane's own stalls."""

    case: Case
    per_vcpu: bool
    lanes: list[deque] = field(default_factory=list)
    delay: list[int] = field(default_factory=list)
    stalled: list[int] = field(default_factory=list)
    why: list[Counter] = field(default_factory=list)  # of each lane: cause to ps
    cycles: list[int] = field(default_factory=list)

    def __post_init__(self):
        count = self.case.n_vcpus + 1 if self.per_vcpu else 1
        self.delay, self.stalled = [0] * count, [0] * count
        self.why = [Counter() for _ in range(count)]
        self.all = [
            [(t, page, writer) for t, page, writer in self.case.events if count == 1 or self.lane_of(writer) == lane]
            for lane in range(count)
        ]
        self.lanes = [
            deque((t - self.case.start_ns, p, v) for t, p, v in own if t >= self.case.start_ns) for own in self.all
        ]
        self.cycles = [1] * count
        self.napped = 0

    def lane_of(self, writer):
        """A vCPU's lane for what happens on its thread, the last one for devices."""
        if writer in (DMA, VHOST):
            return self.case.n_vcpus
        return writer if writer >= 0 else -10 - writer

    def head(self, lane):
        """(host time, page, vcpu) of the lane's next event, repeating the recording when asked; None when it is over."""
        if not self.lanes[lane] and self.case.loop and self.all[lane]:
            shift = self.cycles[lane] * self.case.duration_ns - self.case.start_ns
            self.lanes[lane].extend((t + shift, p, v) for t, p, v in self.all[lane])
            self.cycles[lane] += 1
        if not self.lanes[lane]:
            return None
        t, page, vcpu = self.lanes[lane][0]
        return t * 1000 + self.delay[lane], page, vcpu

    def sleep(self, ps):
        """All lanes sleep."""
        self.napped += ps
        self.delay = [delay + ps for delay in self.delay]

    def stall(self, lane, ps, why):
        self.stalled[lane] += ps
        self.why[lane][why] += ps
        if self.case.closed_loop:
            self.delay[lane] += ps
