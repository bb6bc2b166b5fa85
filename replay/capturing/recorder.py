"""The trace that a capture writes while it runs, and what it says about itself.

A capture fills `facts`, calls `begin` when the recording starts, `append` for every batch of events, `rearmed` whenever
all pages were write-protected again, and `finish` at the end. Times are nanoseconds of whatever clock the capture
reads; the trace's begin at 0. Memory and vCPUs may be known only at the end: until then any page and vCPU is taken.
"""

from __future__ import annotations

import dataclasses
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from replay.capturing.options import Options
from replay.capturing.stop import Stop
from replay.errors import TraceError
from replay.trace.metadata_checks import MAX_PAGES, MAX_VCPUS
from replay.trace.schema import PageRun, RamBlock, TraceMetadata, whole_memory
from replay.trace.writer import TraceWriter
from replay.version import __version__

Progress = Callable[[int, int], None]
PAGE = 4096
MAX_REARM_TIMES = 100_000
MAX_NOTED = 10_000
_TELL_EVERY_NS = 100_000_000


@dataclass
class Facts:
    """What the metadata of the trace will say. `blocks` and `n_vcpus` may be set as late as before `finish`."""

    guest: str = "unknown"
    workload: str = "unknown"
    clock: str = "the host's CLOCK_MONOTONIC; it runs on while the guest is stopped"
    capture: str = "unknown"
    limits: list[str] = field(default_factory=list)  # sentences without a full stop
    blocks: tuple[RamBlock, ...] = ()
    n_vcpus: int = 0
    rearm_gap_ns: int | None = None  # where pages are not all re-armed at once
    throttled: bool = False
    page_classes: tuple[PageRun, ...] | None = None
    page_classes_at_ns: int = 0
    migration_start_ns: int | None = None
    notes: dict[str, Any] = field(default_factory=dict)  # for the provenance, JSON-ready

    def note(self, name: str, value: Any) -> None:
        """Add to a list of notes; of the first MAX_NOTED only the values are kept, all are counted."""
        kept = self.notes.setdefault(name, [])
        if len(kept) < MAX_NOTED:
            kept.append(value)
        self.notes[f"n_{name}"] = self.notes.get(f"n_{name}", 0) + 1


class Recorder:
    """What a capture gets: the command after --, when to stop, and the trace. The file is there after `close`."""

    def __init__(
        self, path: Path, kind: str, command: list[str], options: Options, stop: Stop, progress: Progress | None = None
    ) -> None:
        self.path = path
        self.command = command
        self.stop = stop
        self.facts = Facts()
        self.exit_code = 0  # of the program that was recorded
        self.to_stderr = False  # a program's standard output is wanted for something else
        self._kind = kind
        self._options = options
        self._progress = progress
        self._told_ns = 0
        self._writer: TraceWriter | None = None
        self._origin_ns = 0
        self._end_ns = 0
        self._rearms = array("q")

    @property
    def n_events(self) -> int:
        """Events so far."""
        return 0 if self._writer is None else self._writer.n_events

    @property
    def workload(self) -> str:
        """What runs in the guest, as the user says, else as the capture found out."""
        return self._options.workload.strip() or self.facts.workload

    def begin(self, origin_ns: int | None = None, *, reorder_ns: int = 0, sources: bool = False) -> int:
        """The recording starts: at `origin_ns`, or now (CLOCK_MONOTONIC); returns that time. See TraceWriter."""
        self._origin_ns = self._end_ns = time.monotonic_ns() if origin_ns is None else origin_ns
        self._writer = TraceWriter(self.path, self.metadata(), reorder_ns=reorder_ns, sources=sources, extend=True)
        self.stop.start()
        return self._origin_ns

    def append(self, t_ns: Any, page: Any, vcpu: Any = 0, source: Any = None) -> None:
        """Events: arrays of n times (not before the start) and pages; vcpu and source arrays of n or one value."""
        assert self._writer is not None, "begin comes first"
        times = np.asarray(t_ns, np.int64) - self._origin_ns
        if times.size:
            self._writer.append(times, page, vcpu, source)
            self._end_ns = max(self._end_ns, int(times.max()) + self._origin_ns)
        self.tick()

    def rearmed(self, t_ns: int) -> None:
        """All pages were armed again at this time: a write before it and one after it are two events."""
        if len(self._rearms) <= MAX_REARM_TIMES:
            self._rearms.append(t_ns - self._origin_ns)

    def since_start_ns(self, t_ns: int) -> int:
        """A time of the capture's clock as the trace has it."""
        return t_ns - self._origin_ns

    def tick(self) -> None:
        """Tell how far it is; called by `append`, and by a capture that waits long for events."""
        now = time.monotonic_ns()
        if self._progress is not None and now - self._told_ns >= _TELL_EVERY_NS:
            self._told_ns = now
            self._progress(now - self.stop.started_ns, self.stop.duration_ns)

    def finish(self, t_ns: int) -> None:
        """The recording ended at this time; without it, with the last event."""
        self._end_ns = max(self._end_ns, t_ns)

    def close(self) -> None:
        """Put the trace into place. Raises TraceError when there is no event."""
        if self._writer is None or not self.n_events:
            self.abandon()
            raise TraceError(f"{self.path}: nothing was captured, so no file is written: no write was noticed")
        self._writer.metadata = self.metadata()
        self._writer.close()

    def abandon(self) -> None:
        """Leave no file behind."""
        if self._writer is not None:
            self._writer.abandon()

    def metadata(self) -> TraceMetadata:
        """What the trace says of itself so far."""
        facts, options = self.facts, self._options
        duration_ns = max(self._end_ns - self._origin_ns, 1)
        blocks = facts.blocks or whole_memory(MAX_PAGES * PAGE)
        rearms: Any = tuple(sorted(min(max(t_ns, 0), duration_ns) for t_ns in self._rearms)) or None
        gap = facts.rearm_gap_ns
        if rearms is not None and len(rearms) > MAX_REARM_TIMES:
            edges = np.array([0, *rearms, duration_ns])
            rearms, gap = None, max(int(np.diff(edges[:-1]).max()), gap or 0)
        limits = ". ".join(text[0].upper() + text[1:] for text in facts.limits if text)
        program = {"command": self.command, "exit_code": self.exit_code} if self.command else {}
        return TraceMetadata(
            title=options.title.strip() or f"{self._kind}: {facts.workload}"[:200],
            guest=options.guest.strip() or facts.guest,
            workload=self.workload,
            memory_bytes=sum(block.n_pages for block in blocks) * PAGE,
            ram_blocks=blocks,
            n_vcpus=facts.n_vcpus or MAX_VCPUS,
            duration_ns=duration_ns,
            clock=facts.clock,
            capture=facts.capture,
            limits=f"{limits}." if limits else "none known",
            rearm_times_ns=rearms,
            rearm_gap_ns=None if rearms or not gap else min(max(gap, 1), duration_ns),
            throttled=facts.throttled,
            page_classes=facts.page_classes,
            page_classes_at_ns=facts.page_classes_at_ns,
            migration_start_ns=facts.migration_start_ns,
            provenance={
                "made_by": f"replay capture {self._kind}",
                "made_from": "the running system",
                "tool": f"dirtyreplay {__version__}",
                "capture": {"kind": self._kind, **program, "ended": self.stop.reason, **facts.notes},
            },
            licence=options.licence.strip() or "LicenseRef-unknown",
        )


def settings(config: Any) -> dict[str, Any]:
    """A Config as a note."""
    return dataclasses.asdict(config)
