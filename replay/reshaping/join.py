"""Merges: several recordings as one trace, in time order.

*guests*: the guests stand side by side in memory (disjoint pages, RAM blocks named after their guest) and their vCPUs
are numbered on: a host with several guests, or one guest with several programs that were recorded alone. *vcpus*: vCPUs
of one guest that were recorded apart: the same memory and pages, the vCPUs of each recording numbered on. All start at
t = 0; what ends earlier is quiet from then on. What guests that share a machine take from one another is not modelled.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from replay.errors import UsageError, unknown_name
from replay.reshaping.history import provenance
from replay.reshaping.ranges import merged_runs
from replay.reshaping.streams import check_output, joined, write
from replay.trace.events import Events
from replay.trace.metadata_checks import MAX_PAGES, MAX_VCPUS
from replay.trace.reader import Trace
from replay.trace.schema import PageRun, RamBlock, TraceMetadata, largest_gap
from replay.trace.writer import Progress

KINDS = ("guests", "vcpus")
TOTAL_WINDOW_EVENTS = 1 << 20
LEAST_WINDOW_EVENTS = 1 << 12


def merge_traces(
    traces: Sequence[Trace], output: str | os.PathLike[str], *, of: str = "guests", progress: Progress | None = None
) -> Trace:
    """Writes the events of all `traces` in (time, trace) order; memory grows with the number of traces only.

    Raises UsageError for fewer than two, unequal page sizes or (vcpus) unequal memory, or more pages or vCPUs than a
    trace can hold; TraceError for damaged input.
    """
    check_output(output, traces)
    if of not in KINDS:
        raise unknown_name("kind of merge", of, KINDS)
    if len(traces) < 2:
        raise UsageError("merge: give two or more traces")
    metas = [trace.metadata for trace in traces]
    _check(metas, of)
    first_vcpus = np.cumsum([0, *(meta.n_vcpus for meta in metas)]).tolist()
    first_pages = np.cumsum([0, *(meta.n_pages for meta in metas)]).tolist() if of == "guests" else [0] * len(metas)
    metadata = _metadata(traces, metas, of, first_pages)
    size = max(LEAST_WINDOW_EVENTS, TOTAL_WINDOW_EVENTS // len(traces))
    streams = [
        _placed(trace, size, page, vcpu) for trace, page, vcpu in zip(traces, first_pages, first_vcpus, strict=False)
    ]
    sources = any(trace.has_sources for trace in traces)
    return write(output, lambda: metadata, joined(streams), sources=sources, nothing="no events", progress=progress)


def _placed(trace: Trace, size: int, first_page: int, first_vcpu: int) -> Iterator[Events]:
    for window in trace.windows(size):
        yield Events(window.t_ns, window.page + np.uint32(first_page), window.origin + np.uint16(first_vcpu))


def _check(metas: Sequence[TraceMetadata], of: str) -> None:
    if len({meta.page_size for meta in metas}) > 1:
        raise UsageError(f"merge: the traces have pages of {', '.join(str(meta.page_size) for meta in metas)} bytes")
    if of == "vcpus" and len({(meta.memory_bytes, meta.ram_blocks) for meta in metas}) > 1:
        raise UsageError(
            "merge: vCPUs of one guest share its memory, but the RAM blocks of these traces differ; "
            "side by side they can be merged as guests"
        )
    n_pages, n_vcpus = sum(meta.n_pages for meta in metas), sum(meta.n_vcpus for meta in metas)
    if of == "guests" and n_pages > MAX_PAGES:
        raise UsageError(f"merge: {n_pages} pages in all are more than a trace can number ({MAX_PAGES})")
    if n_vcpus > MAX_VCPUS:
        raise UsageError(f"merge: {n_vcpus} vCPUs in all are more than a trace can number ({MAX_VCPUS})")


def _metadata(traces: Sequence[Trace], metas: Sequence[TraceMetadata], of: str, first: list[int]) -> TraceMetadata:
    guests = of == "guests"
    duration = max(meta.duration_ns for meta in metas)
    rearms = _same([meta.rearm_times_ns for meta in metas])
    gaps = [meta.rearm_gap_ns for meta in metas]
    gap = None if None in gaps else max(value for value in gaps if value is not None)
    if gap is not None and rearms is not None:
        gap = max(gap, largest_gap(rearms, duration))
    limits = _told([meta.limits for meta in metas])
    short = [number for number, meta in enumerate(metas, 1) if meta.duration_ns < duration]
    notes = [f"recording {number} is quiet from {metas[number - 1].duration_ns / 1e9:.3f} s on" for number in short]
    if len({meta.page_classes_at_ns for meta in metas}) > 1:
        notes.append("page classes hold at different times; the latest is given")
    return TraceMetadata(
        title=f"merged {of}: " + "; ".join(meta.title for meta in metas),
        guest=_told([meta.guest for meta in metas]),
        workload=_told([meta.workload for meta in metas]),
        page_size=metas[0].page_size,
        memory_bytes=sum(meta.memory_bytes for meta in metas) if guests else metas[0].memory_bytes,
        ram_blocks=_blocks(metas, first) if guests else metas[0].ram_blocks,
        n_vcpus=sum(meta.n_vcpus for meta in metas),
        duration_ns=duration,
        clock=_told([meta.clock for meta in metas]),
        capture=_told([meta.capture for meta in metas]),
        limits="; ".join(
            [limits, *notes, "recorded apart: what the recordings would have cost one another is not in it"]
        ),
        rearm_times_ns=rearms,
        rearm_gap_ns=gap,
        throttled=any(meta.throttled for meta in metas),
        page_classes=_side_by_side(metas, first) if guests else _same([meta.page_classes for meta in metas]),
        page_classes_at_ns=max(meta.page_classes_at_ns for meta in metas),
        migration_start_ns=_same([meta.migration_start_ns for meta in metas]),
        provenance=provenance(traces, "merge", {"of": of}),
        licence=" AND ".join(dict.fromkeys(meta.licence for meta in metas)),
    )


def _same(values: Sequence[Any]) -> Any:
    """The value that all have, or None."""
    return values[0] if all(value == values[0] for value in values) else None


def _told(texts: Sequence[str]) -> str:
    """A text that all have, or each with the number of its recording."""
    if len(set(texts)) == 1:
        return texts[0]
    return "; ".join(f"[{number}] {text}" for number, text in enumerate(texts, 1))


def _blocks(metas: Sequence[TraceMetadata], first: list[int]) -> tuple[RamBlock, ...]:
    return tuple(
        RamBlock(f"{number}/{block.name}", start + block.first_page, block.n_pages)
        for number, (meta, start) in enumerate(zip(metas, first, strict=False), 1)
        for block in meta.ram_blocks
    )


def _side_by_side(metas: Sequence[TraceMetadata], first: list[int]) -> tuple[PageRun, ...] | None:
    """All page classes; a guest whose classes are unknown counts as data. None when no guest knows any."""
    if all(meta.page_classes is None for meta in metas):
        return None
    return merged_runs(
        PageRun(start + run.first_page, run.n_pages, run.page_class)
        for meta, start in zip(metas, first, strict=False)
        for run in meta.page_classes or (PageRun(0, meta.n_pages, "data"),)
    )
