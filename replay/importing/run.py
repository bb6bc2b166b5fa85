"""An import from end to end: read, count, number the pages, write, and refuse what lost too much.

Two passes. The first reads the recording and puts its events on a nameless temporary file beside the output, 25 bytes
each: what slots there are, how much memory and how many vCPUs is known only at the end of a recording. The second gives
the pages their numbers and writes the trace. Both hold one batch at a time.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from replay import plugins
from replay.errors import TraceError, UsageError
from replay.files import replacing
from replay.importing.options import Options
from replay.importing.places import Layout
from replay.importing.report import EVENT, Report
from replay.importing.streams import STDIN, Progress, Sources
from replay.importing.tally import Tally
from replay.trace.reader import Trace, open_trace
from replay.trace.schema import TraceMetadata
from replay.trace.writer import TraceWriter
from replay.version import __version__

SPOOL_EVENTS = 1 << 18
MAX_VCPUS = 8191
REASON_OUTSIDE = "page beyond its slot, block or --memory"


@dataclass(frozen=True)
class Imported:
    """What an import made: a trace, or, of logs that only tell of rounds, `rounds`."""

    path: Path
    kind: str
    counts: dict[str, Any]
    trace: Trace | None = None
    rounds: dict[str, Any] | None = field(default=None, repr=False)

    def to_plain(self) -> dict[str, Any]:
        """What `replay import --json` prints."""
        plain: dict[str, Any] = {"path": str(self.path), "kind": self.kind, "counts": self.counts}
        if self.trace is not None:
            plain |= {"digest": self.trace.digest, "n_events": self.trace.n_events, **self.trace.metadata.to_plain()}
        return plain | ({} if self.rounds is None else {"rounds": self.rounds})


def import_files(
    importer: plugins.Plugin,
    files: list[str],
    output: str | os.PathLike[str],
    options: Options,
    progress: Progress | None = None,
) -> Imported:
    """Import recordings, in their order, into one file. Raises UsageError, and TraceError when too much is missing."""
    if not files:
        raise UsageError("import: no input file given; - is standard input")
    if files.count(STDIN) > 1:
        raise UsageError("import: standard input (-) can be given once")
    path = Path(output)
    if any(name != STDIN and Path(name).exists() and path.exists() and path.samefile(name) for name in files):
        raise UsageError(f"{path}: is an input file, and would be overwritten")
    report = Report(
        reorder_ns=options.reorder, max_gap_ns=options.max_gap, memory_bytes=_whole_pages(options.memory) or None
    )
    sources = Sources(files, progress)
    if getattr(importer.module, "PRODUCES", "trace") == "rounds":
        rounds = importer.module.read(importer.config, sources, report)
        _check_share(report.tally, options.max_dropped, sources)
        told = {"kind": importer.name, **rounds, "import": report.tally.to_plain()}
        _write_json(path, told)
        return Imported(path, importer.name, report.tally.to_plain(), rounds=rounds)
    try:
        with tempfile.TemporaryFile(dir=path.parent) as spool:
            n_events = _spool(importer.module.read(importer.config, sources, report), spool, report)
            _check_share(report.tally, options.max_dropped, sources)
            if not n_events:
                raise TraceError(f"{_named(sources)}: no events of {importer.name} found; {_counted(report.tally)}")
            trace = _write(importer, path, options, report, sources, spool)
    except OSError as error:
        raise TraceError(f"{path}: cannot be written: {error.strerror or error}") from None
    return Imported(path, importer.name, report.tally.to_plain(), trace=trace)


def _spool(batches: Iterator[Any], spool: IO[bytes], report: Report) -> int:
    """Write all events to the temporary file; returns how many."""
    n_events = 0
    for batch in batches:
        events = batch if isinstance(batch, np.ndarray) else batch.records()
        if not len(events):
            continue
        n_events += len(events)
        _note_furthest(events, report)
        spool.write(events.tobytes())
    report.tally.events = n_events
    return n_events


def _note_furthest(events: Any, report: Report) -> None:
    """How far each extent reaches, over offsets that can be pages of a trace at all."""
    reach = np.zeros(len(report.places.extents), np.int64)
    sane = events[events["offset"] < np.uint64(1 << 32)]
    np.maximum.at(reach, sane["extent"], sane["offset"].astype(np.int64) + 1)
    for number in np.flatnonzero(reach):
        report.places.furthest[number] = max(report.places.furthest[number], int(reach[number]))


def _write(
    importer: plugins.Plugin, path: Path, options: Options, report: Report, sources: Sources, spool: IO[bytes]
) -> Trace:
    """The second pass. The output is there when all of it is, and enough of the recording is in it."""
    layout = report.places.layout(report.memory_bytes)
    if not layout.n_pages:
        raise TraceError(f"{_named(sources)}: no event lies in a page that a trace can hold; {_counted(report.tally)}")
    n_vcpus, numbers = _vcpus(spool, report)
    metadata = _metadata(importer, options, report, sources, layout, n_vcpus)
    with TraceWriter(path, metadata, reorder_ns=report.lateness_ns, sources=report.sources) as writer:
        outside = 0
        for events in _unspool(spool):
            page, inside = layout.pages(events["extent"], events["offset"])
            outside += len(events) - int(inside.sum())
            vcpu = numbers(events["vcpu"])
            writer.append(
                (events["t_ns"] - (report.earliest_ns or 0))[inside], page[inside], vcpu[inside],
                events["source"][inside] if report.sources else None,
            )  # fmt: skip
        if outside:
            report.tally.undo(REASON_OUTSIDE, outside)
        _check_share(report.tally, options.max_dropped, sources)
        if not writer.n_events:
            raise TraceError(f"{_named(sources)}: no event is left; {_counted(report.tally)}")
        writer.metadata = _metadata(importer, options, report, sources, layout, n_vcpus)
    return open_trace(path)


def _unspool(spool: IO[bytes]) -> Iterator[Any]:
    spool.seek(0)
    while block := spool.read(SPOOL_EVENTS * EVENT.itemsize):
        yield np.frombuffer(block, EVENT)


def _vcpus(spool: IO[bytes], report: Report) -> tuple[int, Any]:
    """(vCPUs, function from what events call them to their numbers)."""
    met: set[int] = set()
    for events in _unspool(spool):
        met.update(np.unique(events["vcpu"]).tolist())
    names = report.vcpu_names
    if names is None:
        return max(met) + 1, lambda vcpu: vcpu
    missing = sorted(met - names.keys())
    if missing:
        raise UsageError(f"no vCPU is given for {', '.join(map(str, missing[:8]))}; there are {sorted(names)}")
    keys = np.array(sorted(names), np.int64)
    values = np.array([names[key] for key in keys.tolist()], np.int64)
    if values.max() >= MAX_VCPUS:
        raise TraceError(f"the recording has more than {MAX_VCPUS} writers; look for damaged lines")
    return int(max(names[key] for key in met)) + 1, lambda vcpu: values[np.searchsorted(keys, vcpu)]


def _metadata(
    importer: plugins.Plugin, options: Options, report: Report, sources: Sources, layout: Layout, n_vcpus: int
) -> TraceMetadata:
    origin = report.earliest_ns or 0
    rearms = tuple(sorted(max(t - origin, 0) for t in report.rearm_ns)) or None
    start = report.migration_start_ns
    notes = {
        name: [t - origin for t in value] if name.endswith("_ns") and isinstance(value, list) else value
        for name, value in report.notes.items()
    }
    files = ["standard input" if name == STDIN else Path(name).name for name in sources.names]
    made_at = _recorded_at(report, sources)
    provenance = {
        "made_by": f"replay import {importer.name}",
        "made_from": ", ".join(files),
        **({} if made_at is None else {"made_at": made_at}),
        "tool": f"dirtyreplay {__version__}",
        "source_digest": f"sha256 {sources.digest.hexdigest()}",
        "importer": {"name": importer.name, **dataclasses.asdict(importer.config)},
        "import": report.tally.to_plain() | notes,
    }
    limits = [*report.limits, report.tally.sentence()]
    duration_ns = max(report.latest_ns - origin, 1)
    return TraceMetadata(
        title=options.title.strip() or f"{importer.name}: {', '.join(files)}"[:200],
        guest=options.guest.strip() or report.guest or "unknown: not in the recording",
        workload=options.workload.strip() or "unknown: not in the recording",
        memory_bytes=layout.n_pages * 4096,
        ram_blocks=layout.blocks,
        n_vcpus=n_vcpus,
        duration_ns=duration_ns,
        clock=report.clock,
        capture=report.capture,
        limits=". ".join(part[0].upper() + part[1:] for part in limits if part) + "." if any(limits) else "unknown",
        rearm_times_ns=rearms,
        rearm_gap_ns=None if rearms or not report.rearm_gap_ns else min(max(report.rearm_gap_ns, 1), duration_ns),
        throttled=report.throttled,
        migration_start_ns=None if start is None else max(start - origin, 0),
        provenance=provenance,
        licence=options.licence.strip() or "LicenseRef-unknown",
    )


def _recorded_at(report: Report, sources: Sources) -> str | None:
    """When it was recorded: as the times say, or the first file's."""
    seconds = (report.earliest_ns or 0) / 1e9 if report.wall_clock else None
    if seconds is None and sources.names[0] != STDIN:
        seconds = Path(sources.names[0]).stat().st_mtime
    if seconds is None or not 0 <= seconds < 1 << 37:
        return None
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).isoformat()


def _check_share(tally: Tally, max_dropped: float, sources: Sources) -> None:
    if tally.share > max_dropped and (tally.n_dropped or tally.n_lost):
        raise TraceError(
            f"{_named(sources)}: {tally.share:.2%} of the events are missing (of {tally.read:,} {tally.unit}s "
            f"{tally.n_dropped:,} were dropped, {tally.n_lost:,} events were lost in the recording), more than "
            f"--max-dropped {max_dropped:.4g}; no file is written. {tally.complaint()}"
        )


def _counted(tally: Tally) -> str:
    other = ", ".join(f"{count:,} {name}" for name, count in tally.other.most_common(4) if count)
    parts = [f"{tally.read:,} {tally.unit}s read", other, tally.complaint()]
    return "; ".join(part for part in parts if part)


def _named(sources: Sources) -> str:
    shown = ["standard input" if name == STDIN else name for name in sources.names]
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


def _whole_pages(memory_bytes: int) -> int:
    if memory_bytes % 4096:
        raise UsageError(f"--memory: {memory_bytes} is not a multiple of 4096 bytes")
    return memory_bytes


def _write_json(path: Path, told: dict[str, Any]) -> None:
    try:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(told, indent=1) + "\n")
    except OSError as error:
        raise TraceError(f"{path}: cannot be written: {error.strerror or error}") from None
