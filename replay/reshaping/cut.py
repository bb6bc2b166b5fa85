"""Slices: the events of a span of time, of ranges of pages, or both, as a trace of their own.

Times count from the start of the slice and pages from 0 unless they are to be kept. A page that was written before the
slice begins is data in it, whatever the recording's page classes say of the time before. A slice that begins between
two re-arms lacks the second writes to pages whose first lies before it; its limits say so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from replay.errors import UsageError
from replay.reshaping.history import reshaped
from replay.reshaping.ranges import Cut, Range, checked
from replay.reshaping.streams import WINDOW_EVENTS, check_output, write
from replay.trace.arrays import page_runs
from replay.trace.events import Events
from replay.trace.operations import PageSet
from replay.trace.reader import Trace
from replay.trace.schema import PageRun, TraceMetadata, largest_gap
from replay.trace.writer import Progress
from replay.units import format_duration, spell_duration


def slice_trace(
    trace: Trace,
    output: str | os.PathLike[str],
    *,
    from_ns: int = 0,
    to_ns: int | None = None,
    pages: Sequence[Range] | None = None,
    keep_times: bool = False,
    keep_pages: bool = False,
    progress: Progress | None = None,
) -> Trace:
    """Writes the events in [from_ns, to_ns) (None: to the end) in `pages` (ranges, the end exclusive; None: all).

    Raises UsageError for a cut outside the trace, ranges that overlap, or nothing left; TraceError for damaged input.
    """
    check_output(output, [trace])
    return _Slice(trace, from_ns, to_ns, pages, keep_times, keep_pages).write(output, progress)


class _Slice:
    def __init__(
        self, trace: Trace, from_ns: int, to_ns: int | None, pages: Sequence[Range] | None, times: bool, numbers: bool
    ) -> None:
        meta = trace.metadata
        end_ns = meta.duration_ns if to_ns is None else to_ns
        if not 0 <= from_ns < end_ns <= meta.duration_ns:
            raise UsageError(
                f"slice: {format_duration(from_ns)} to {format_duration(end_ns)} is not a part of a recording of "
                f"{format_duration(meta.duration_ns)}"
            )
        self.trace, self.meta = trace, meta
        self.from_ns, self.end_ns = from_ns, end_ns
        self.last = end_ns == meta.duration_ns  # an event at the very end belongs to the last part
        self.shift_ns = 0 if times else from_ns
        self.cut = None if pages is None else Cut(checked(pages, meta.n_pages))
        self.renumber = self.cut is not None and not numbers
        self.options: dict[str, Any] = {}
        if from_ns or to_ns is not None:
            self.options |= {"from": spell_duration(from_ns), "to": spell_duration(end_ns)}
        if self.cut is not None:
            self.options["pages"] = "+".join(f"{first}-{end}" for first, end in self.cut.ranges)
        self.options |= {"times": "kept"} if times else {}
        self.options |= {"numbers": "kept"} if numbers else {}
        if not self.options:
            raise UsageError("slice: say what to keep: a span of time (--from, --to) or pages (--pages, --within)")
        self.written_before = PageSet()

    def write(self, output: str | os.PathLike[str], progress: Progress | None) -> Trace:
        nothing = f"the trace has no event in this slice ({', '.join(f'{k} {v}' for k, v in self.options.items())})"
        return write(
            output, self.metadata, self.events(), sources=self.trace.has_sources, nothing=nothing, progress=progress
        )

    def events(self) -> Iterator[Events]:
        classes_ns = self.meta.page_classes_at_ns
        tracked = self.meta.page_classes is not None and classes_ns < self.from_ns
        for window in self.trace.windows(WINDOW_EVENTS):
            edges = np.array([classes_ns, self.from_ns, self.end_ns], np.uint64)
            since, first, last = np.searchsorted(window.t_ns, edges).tolist()
            if tracked and since < first:
                self.written_before.add(window.page[since:first])
            part = Events(*(column[first : None if self.last else last] for column in window))
            if self.cut is not None:
                kept = self.cut.inside(part.page)
                part = Events(*(column[kept] for column in part))
            page = self.cut.renumbered(part.page) if self.cut is not None and self.renumber else part.page
            yield Events(part.t_ns - np.uint64(self.shift_ns), page, part.origin)
            if last < window.t_ns.size and not self.last:
                return

    def metadata(self) -> TraceMetadata:
        meta, shift = self.meta, self.shift_ns
        duration = self.end_ns - shift
        start = meta.migration_start_ns
        changes: dict[str, Any] = {
            "duration_ns": duration,
            "migration_start_ns": start - shift if start is not None and self._holds(start) else None,
            "page_classes_at_ns": min(max(meta.page_classes_at_ns, self.from_ns), self.end_ns) - shift,
            "page_classes": self._classes(),
            **self._rearms(duration),
        }
        if self.cut is not None and self.renumber:
            changes |= {
                "memory_bytes": self.cut.n_pages * meta.page_size,
                "ram_blocks": self.cut.blocks(meta.ram_blocks),
                "page_classes": None if changes["page_classes"] is None else self.cut.classes(changes["page_classes"]),
            }
        return reshaped(self.trace, "slice", self.options, "; ".join(self._limits()) or None, **changes)

    def _holds(self, t_ns: int) -> bool:
        return self.from_ns <= t_ns <= self.end_ns

    def _rearms(self, duration: int) -> dict[str, Any]:
        times, gap = self.meta.rearm_times_ns, self.meta.rearm_gap_ns
        if times is None:
            return {}
        left = tuple(t - self.shift_ns for t in times if self._holds(t))
        derived = gap == largest_gap(times, self.meta.duration_ns)
        return {"rearm_times_ns": left, "rearm_gap_ns": largest_gap(left, duration) if derived or gap is None else gap}

    def _classes(self) -> tuple[PageRun, ...] | None:
        """The page classes, with the pages written between their time and the start of the slice as data."""
        runs = self.meta.page_classes
        written = self.written_before.pages()
        if runs is None or not written.size:
            return runs
        zero = np.zeros(self.meta.n_pages, bool)
        for run in runs:
            zero[run.first_page : run.first_page + run.n_pages] = run.page_class == "zero"
        zero[written] = False
        return page_runs(zero)

    def _limits(self) -> Iterator[str]:
        times = self.meta.rearm_times_ns
        if self.from_ns and times is not None:
            after = next((t for t in times if t >= self.from_ns), self.end_ns)
            if after > self.from_ns:
                yield (
                    f"sliced: up to t = {format_duration(min(after, self.end_ns) - self.shift_ns)} pages that were "
                    "written since the re-arm before the slice are missing"
                )
        elif self.from_ns and self.meta.rearm_gap_ns:
            yield (
                "sliced: pages that were written shortly before the slice may be missing from its first "
                f"{format_duration(self.meta.rearm_gap_ns)}"
            )
        if self.meta.page_classes is not None and self.meta.page_classes_at_ns > self.end_ns:
            yield "page classes are those of a time after the slice"
        if self.cut is not None:
            yield f"writes to pages outside of {self.options['pages']} were cut off"
