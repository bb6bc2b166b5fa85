"""What a metadata field may hold: kinds of JSON values, ranges, and tables that must cover all of memory.

Every check returns sentences instead of raising, because a validator wants all of them. Nothing here
allocates in proportion to a number that a file states.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from replay.trace.schema import TraceMetadata

FORMAT_VERSION = 1
MAX_PAGES = 1 << 32
MAX_VCPUS = 8191
MAX_TIME_NS = (1 << 63) - 1
PAGE_CLASSES = ("zero", "data")
REQUIRED_PROVENANCE = ("made_by", "made_from", "made_at", "tool")


class RamBlock(NamedTuple):
    """A named, contiguous range of pages; the blocks in order cover all of memory."""

    name: str
    first_page: int
    n_pages: int


class PageRun(NamedTuple):
    """A run of pages of one class, "zero" or "data"."""

    first_page: int
    n_pages: int
    page_class: str


def is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_block(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and set(value) == set(RamBlock._fields)
        and isinstance(value["name"], str)
        and is_integer(value["first_page"])
        and is_integer(value["n_pages"])
    )


def _is_run(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and is_integer(value[0])
        and is_integer(value[1])
        and isinstance(value[2], str)
    )


def _is_object(value: object) -> bool:
    try:
        return isinstance(value, dict) and json.loads(json.dumps(value)) == value
    except (TypeError, ValueError, RecursionError):
        return False


def _list_of(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _or_null(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or check(value)


KINDS: dict[str, Callable[[object], bool]] = {
    "integer": is_integer,
    "integer or null": _or_null(is_integer),
    "text": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "list of integers or null": _or_null(_list_of(is_integer)),
    "list of {name, first_page, n_pages}": _list_of(_is_block),
    "list of [first_page, n_pages, class] or null": _or_null(_list_of(_is_run)),
    "object": _is_object,
}


def short(value: object) -> str:
    """A value for an error message, cut at 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def value_faults(m: TraceMetadata) -> list[str]:
    """Faults of well-typed metadata; later checks rely on the sizes, so they come first and alone."""
    return _size_faults(m) or [*_block_faults(m), *_time_faults(m), *_class_faults(m), *_text_faults(m)]


def _size_faults(m: TraceMetadata) -> list[str]:
    faults = []
    if m.format_version != FORMAT_VERSION:
        faults.append(f"format version {m.format_version} is unknown; this program reads {FORMAT_VERSION}")
    if not 512 <= m.page_size <= 1 << 30 or m.page_size & (m.page_size - 1):
        faults.append(f"page_size: {short(m.page_size)} is not a power of two from 512 to 2**30")
    elif m.memory_bytes <= 0 or m.memory_bytes % m.page_size:
        faults.append(f"memory_bytes: {short(m.memory_bytes)} is not a positive multiple of {m.page_size}")
    elif m.memory_bytes // m.page_size > MAX_PAGES:
        faults.append(f"memory_bytes: {short(m.memory_bytes)} is more than 2**32 pages of {m.page_size}")
    if not 1 <= m.n_vcpus <= MAX_VCPUS:
        faults.append(f"n_vcpus: {short(m.n_vcpus)} is not from 1 to {MAX_VCPUS}")
    if not 1 <= m.duration_ns <= MAX_TIME_NS:
        faults.append(f"duration_ns: {short(m.duration_ns)} is not from 1 to 2**63 - 1")
    return faults


def _block_faults(m: TraceMetadata) -> list[str]:
    names = Counter(block.name for block in m.ram_blocks)
    wrong = [name for name, count in names.items() if count > 1 or not name.strip()]
    faults = [f"ram_blocks: name {short(name)} is blank or not unique" for name in wrong]
    return faults + _cover_faults("ram_blocks", ((b[1], b[2]) for b in m.ram_blocks), m.n_pages)


def _class_faults(m: TraceMetadata) -> list[str]:
    if m.page_classes is None:
        return []
    wrong = {run.page_class for run in m.page_classes} - set(PAGE_CLASSES)
    faults = [f"page_classes: unknown class {short(name)}; use zero or data" for name in sorted(wrong)]
    return faults + _cover_faults("page_classes", ((r[0], r[1]) for r in m.page_classes), m.n_pages)


def _cover_faults(name: str, runs: Iterable[tuple[int, int]], n_pages: int) -> list[str]:
    end = 0
    for index, (first, count) in enumerate(runs):
        if first != end or count <= 0:
            wrong = f"page {short(first)}, {short(count)} pages"
            return [f"{name}: entry {index} ({wrong}) should start at page {end} and hold at least one page"]
        end += count
    return [] if end == n_pages else [f"{name}: cover {short(end)} pages, but memory has {n_pages}"]


def _time_faults(m: TraceMetadata) -> list[str]:
    faults = []
    times = m.rearm_times_ns or ()
    if any(b < a for a, b in itertools.pairwise(times)):
        faults.append("rearm_times_ns: must not decrease")
    elif times and not 0 <= times[0] <= times[-1] <= m.duration_ns:
        faults.append("rearm_times_ns: outside of 0 to duration_ns")
    elif m.rearm_gap_ns is not None and m.rearm_times_ns is not None:
        least = largest_gap(times, m.duration_ns)
        if m.rearm_gap_ns < least:
            faults.append(f"rearm_gap_ns: {m.rearm_gap_ns} is less than the gap of {least} in rearm_times_ns")
    if m.rearm_gap_ns is not None and not 0 < m.rearm_gap_ns <= MAX_TIME_NS:
        faults.append(f"rearm_gap_ns: {short(m.rearm_gap_ns)} is not from 1 to 2**63 - 1")
    for name in ("migration_start_ns", "page_classes_at_ns"):
        value = getattr(m, name)
        if value is not None and not 0 <= value <= m.duration_ns:
            faults.append(f"{name}: {short(value)} is outside of 0 to duration_ns {m.duration_ns}")
    return faults


def _text_faults(m: TraceMetadata) -> list[str]:
    texts = [field.name for field in dataclasses.fields(m) if field.metadata["kind"] == "text"]
    return [f"{name}: must not be blank" for name in texts if not getattr(m, name).strip()]


def largest_gap(times_ns: Iterable[int], duration_ns: int) -> int:
    """Longest time without a re-arm, from 0 (a recording starts armed) to the end of the recording."""
    edges = [0, *times_ns, duration_ns]
    return max(b - a for a, b in itertools.pairwise(edges))
