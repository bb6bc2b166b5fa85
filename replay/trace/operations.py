"""What can be said about a trace without replaying it: all its faults (`validate`), and its figures
(`describe`).

Both stream. `describe` keeps one flag a page up to the highest page written, and for each window length the
set of pages of the window under way: sorting 32-bit page numbers window by window costs about 10 ns an
event and length, and needs no table over all of memory.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from replay.errors import TraceError, UsageError
from replay.trace import parquet
from replay.trace.events import (
    BEFORE_ALL_NS,
    Array,
    Columns,
    Events,
    Fault,
    find_faults,
    origin_source,
    origin_vcpu,
)
from replay.trace.reader import Trace, open_trace
from replay.trace.schema import (
    METADATA_KEY,
    ROW_GROUP_ROWS,
    SOURCE_NAMES,
    TraceMetadata,
    metadata_faults,
    parse_metadata,
)

WINDOWS_NS = (100_000_000, 1_000_000_000, 10_000_000_000)
FAULTS_LISTED = 20


def validate(path: str | os.PathLike[str], listed: int = FAULTS_LISTED) -> list[Fault]:
    """Every fault of a trace file, empty when there is none; nothing is raised for a bad file.

    At most `listed` rows are named per kind; a last Fault without a row then states the total of the kind.
    """
    target = Path(path)
    try:
        with parquet.opened(target) as file:
            with parquet.explaining(target):
                faults = _footer_faults(file)
            if all(fault.what not in ("missing column", "wrong type") for fault in faults):
                text = parquet.metadata_text(file)
                metadata = parse_metadata(text) if text is not None and not metadata_faults(text) else None
                faults += _row_faults(file, target, metadata, listed)
            return faults
    except TraceError as error:
        return [Fault("file", None, None, _without_path(error, target))]


def _without_path(error: TraceError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


def _footer_faults(file: Any) -> list[Fault]:
    text = parquet.metadata_text(file)
    if text is None:
        faults = [Fault("missing metadata", None, None, f"has no trace metadata (key {METADATA_KEY!r})")]
    else:
        faults = [Fault("metadata", None, None, f"metadata: {message}") for message in metadata_faults(text)]
    faults += [Fault(kind, None, None, message) for kind, message in parquet.column_faults(file)]
    if not sum(parquet.row_group_rows(file)):
        faults.append(Fault("empty", None, None, "holds no events"))
    return faults


def _row_faults(file: Any, path: Path, metadata: TraceMetadata | None, listed: int) -> Iterator[Fault]:
    totals: Counter[str] = Counter()
    last_t_ns = BEFORE_ALL_NS
    for group in range(file.num_row_groups):
        row = 0
        try:
            for columns in parquet.batches(file, path, group, ROW_GROUP_ROWS):
                yield from _batch_faults(columns, metadata, last_t_ns, group, row, totals, listed)
                row += len(columns.t_ns)
                last_t_ns = int(columns.t_ns[-1])
        except TraceError as error:
            yield Fault("damaged data", group, None, _without_path(error, path))
    for what, total in totals.items():
        if total > listed:
            yield Fault(what, None, None, f"{what}: {total} rows in all; the first {listed} are listed")


def _batch_faults(
    columns: Columns,
    metadata: TraceMetadata | None,
    last_t_ns: int,
    group: int,
    row: int,
    totals: Counter[str],
    listed: int,
) -> Iterator[Fault]:
    for kind in find_faults(columns, metadata, last_t_ns):
        room = max(listed - totals[kind.what], 0)
        totals[kind.what] += len(kind.rows)
        for at in kind.rows[:room].tolist():
            yield Fault(kind.what, group, row + at, kind.describe(at))


class _Windows:
    """Working set and event count of every window of one length; fed in time order."""

    def __init__(self, length_ns: int, duration_ns: int) -> None:
        self.length_ns = length_ns
        self._seconds = min(length_ns, duration_ns) / 1e9
        self.n_windows = -(-duration_ns // length_ns)
        self.sum_pages = self.max_pages = self.max_events = 0
        self._current = -1
        self._pages: list[Array] = []  # of the window under way: one sorted set per batch
        self._n_events = 0

    def add(self, events: Events) -> None:
        # An event at the very end of the recording belongs to the last window.
        number = np.minimum(events.t_ns // np.uint64(self.length_ns), np.uint64(self.n_windows - 1))
        starts = [0, *(np.flatnonzero(number[1:] != number[:-1]) + 1).tolist(), len(number)]
        for start, end in itertools.pairwise(starts):
            if int(number[start]) != self._current:
                self.close()
                self._current = int(number[start])
            self._pages.append(_distinct(events.page[start:end]))
            self._n_events += end - start

    def close(self) -> None:
        if self._pages:
            pages = self._pages[0] if len(self._pages) == 1 else _distinct(np.concatenate(self._pages))
            self.sum_pages += len(pages)
            self.max_pages = max(self.max_pages, len(pages))
            self.max_events = max(self.max_events, self._n_events)
        self._pages, self._n_events = [], 0

    def figures(self) -> dict[str, Any]:
        self.close()
        return {
            "window_ns": self.length_ns,
            "windows": self.n_windows,
            "mean_unique_pages": self.sum_pages / self.n_windows,
            "max_unique_pages": self.max_pages,
            "peak_events_per_s": self.max_events / self._seconds,
        }


def _distinct(pages: Array) -> Array:
    ordered = np.sort(pages)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])]


class PageSet:
    """A set of pages: one flag a page, up to the highest page added so far."""

    def __init__(self) -> None:
        self.flags = np.zeros(1 << 16, bool)

    def add(self, pages: Array) -> None:
        """Add some pages, at least one."""
        need = int(pages.max()) + 1
        if need > len(self.flags):
            grown = np.zeros(max(need, 2 * len(self.flags)), bool)
            grown[: len(self.flags)] = self.flags
            self.flags = grown
        self.flags[pages] = True

    def pages(self) -> Array:
        """Their numbers, ascending (int64)."""
        return np.flatnonzero(self.flags)


def describe(source: str | os.PathLike[str] | Trace, windows: Sequence[int] = WINDOWS_NS) -> dict[str, Any]:
    """Everything that `trace info` prints, as plain JSON-ready values. windows: lengths in ns.

    A working set is the number of distinct pages written in a window; windows start at t = 0, cover the
    duration (the last may be partial), and those without events count as 0 in the mean. Raises TraceError
    on a faulty trace, UsageError when a window length is not positive.
    """
    if any(length <= 0 for length in windows):
        raise UsageError(f"describe: window lengths must be positive, not {list(windows)}")
    trace = source if isinstance(source, Trace) else open_trace(source)
    metadata = trace.metadata
    sets = [_Windows(length, metadata.duration_ns) for length in windows]
    seen = PageSet()
    origins = np.zeros(1 << 16, np.int64)
    first_ns, last_ns = -1, 0
    for events in trace.windows():
        for one_length in sets:
            one_length.add(events)
        seen.add(events.page)
        origins += np.bincount(events.origin, minlength=1 << 16)
        first_ns = int(events.t_ns[0]) if first_ns < 0 else first_ns
        last_ns = int(events.t_ns[-1])
    unique = int(np.count_nonzero(seen.flags))
    return {
        **_identity(trace),
        "first_event_ns": first_ns,
        "last_event_ns": last_ns,
        "events_per_s": trace.n_events / (metadata.duration_ns / 1e9),
        "unique_pages": unique,
        "unique_bytes": unique * metadata.page_size,
        "density": unique / metadata.n_pages,
        "working_set": [one_length.figures() for one_length in sets],
        **_shares(origins, trace.n_events),
    }


def _shares(origins: Array, n_events: int) -> dict[str, dict[str, float]]:
    used = np.flatnonzero(origins)
    vcpus: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    packed = used.astype(np.uint16)
    for vcpu, code, count in zip(origin_vcpu(packed), origin_source(packed), origins[used].tolist(), strict=True):
        vcpus[str(vcpu)] += count
        sources[SOURCE_NAMES[code]] += count
    return {
        "vcpu_shares": {name: count / n_events for name, count in vcpus.items()},
        "source_shares": {name: count / n_events for name, count in sources.items()},
    }


def _identity(trace: Trace) -> dict[str, Any]:
    metadata = trace.metadata
    on_disk = trace.path.stat().st_size if trace.from_file else None
    classes: Counter[str] = Counter()
    for run in metadata.page_classes or ():
        classes[run.page_class] += run.n_pages
    plain = metadata.to_plain()
    for bulky in ("page_classes", "rearm_times_ns"):
        plain.pop(bulky)
    return {
        "path": str(trace.path),
        "digest": trace.digest,
        **plain,
        "n_pages": metadata.n_pages,
        "rearms": None if metadata.rearm_times_ns is None else len(metadata.rearm_times_ns),
        "pages_by_class": None if metadata.page_classes is None else dict(classes),
        "n_events": trace.n_events,
        "row_groups": len(trace.row_groups()),
        "file_bytes": on_disk,
        "bytes_per_event": None if on_disk is None else on_disk / trace.n_events,
    }
