"""From arrays that a caller gives to the format's types, and between page classes and bitmaps."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from replay.errors import TraceError
from replay.trace.events import Array, Columns, source_codes
from replay.trace.schema import PageRun, TraceMetadata, whole_memory


def minimal_metadata(memory_bytes: int, n_vcpus: int, duration_ns: int, zero: Any = None) -> TraceMetadata:
    """Metadata for events that were made, not captured. zero: optional (n_pages,) booleans."""
    return TraceMetadata(
        title="events from arrays", guest="none", workload="none", memory_bytes=memory_bytes,
        ram_blocks=whole_memory(memory_bytes), n_vcpus=n_vcpus, duration_ns=duration_ns,
        clock="virtual", capture="none: events given as arrays", limits="none: complete by definition",
        page_classes=None if zero is None else page_runs(zero),
        provenance={"made_by": "from_arrays", "made_from": "arrays"}, licence="CC0-1.0",
    )  # fmt: skip


def page_runs(zero: Any) -> tuple[PageRun, ...]:
    """Run-length page classes of a boolean array over all pages, True where a page is zero."""
    flags = np.asarray(zero, bool)
    edges = [0, *(np.flatnonzero(flags[1:] != flags[:-1]) + 1).tolist(), len(flags)]
    return tuple(PageRun(a, b - a, "zero" if flags[a] else "data") for a, b in itertools.pairwise(edges))


def given_columns(t_ns: Any, page: Any, vcpu: Any, source: Any) -> Columns:
    """Columns of freshly copied arrays. vcpu and source (names or codes) may be one value for all.

    Raises TraceError for other than 1-d integers of one length that fit into the format's types.
    """
    t, pages = np.atleast_1d(np.asarray(t_ns)), np.atleast_1d(np.asarray(page))
    if t.shape != pages.shape or t.ndim != 1:
        raise TraceError(f"t_ns and page must be 1-d and of one length, not {t.shape} and {pages.shape}")
    vcpus, sources = np.asarray(vcpu), source_codes(0 if source is None else source)
    for name, array in (("vcpu", vcpus), ("source", sources)):
        if array.shape not in ((), t.shape):
            raise TraceError(f"{name} must be one value or as many as t_ns ({len(t)}), not {array.shape}")
    return Columns(
        as_column("t_ns", t, np.int64),
        as_column("page", pages, np.uint32),
        as_column("vcpu", np.broadcast_to(vcpus, t.shape), np.uint16),
        np.broadcast_to(sources, t.shape),
        {},
    )


def as_column(name: str, given: Array, dtype: Any) -> Array:
    """A fresh contiguous array of dtype with the same integers; TraceError names one that does not fit."""
    if given.dtype.kind not in "iu" and len(given):
        raise TraceError(f"{name}: expected integers, got {given.dtype}")
    info = np.iinfo(dtype)
    fits = not len(given) or (int(given.min()) >= info.min and int(given.max()) <= info.max)
    if not fits:
        at = next(row for row, value in enumerate(given.tolist()) if not info.min <= value <= info.max)
        raise TraceError(f"event {at}: {name} {given[at]} does not fit into {np.dtype(dtype)}")
    return np.array(given, dtype, order="C")


def zero_bitmap(runs: Iterable[PageRun], n_pages: int) -> Array:
    """(ceil(n_pages / 64),) uint64: the bits of the pages in runs of class zero are set."""
    words = np.zeros((n_pages + 63) // 64, np.uint64)
    for run in runs:
        if run.page_class == "zero":
            _set_bits(words, run.first_page, run.first_page + run.n_pages)
    return words


def _set_bits(words: Array, start: int, end: int) -> None:
    """Set bits start..end-1; cost is in words, not bits."""
    first, last = start // 64, (end - 1) // 64
    low = (1 << 64) - (1 << start % 64)
    high = (1 << ((end - 1) % 64 + 1)) - 1
    if first == last:
        words[first] |= np.uint64(low & high)
        return
    words[first] |= np.uint64(low)
    words[first + 1 : last] = np.uint64((1 << 64) - 1)
    words[last] |= np.uint64(high)
