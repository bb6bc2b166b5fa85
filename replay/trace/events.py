"""Decoded events, and the checks that every batch of events passes, whoever reads or writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from replay.errors import TraceError
from replay.trace.schema import SOURCE_CODES, SOURCE_NAMES, SOURCE_SHIFT, TraceMetadata

Array = npt.NDArray[Any]

EVENT_BYTES = 8 + 4 + 2
BEFORE_ALL_NS = -(1 << 63)  # the time before the first event


class Events(NamedTuple):
    """Events in time order: three read-only, C-contiguous arrays of equal length."""

    t_ns: Array  # (n,) uint64, guest time since the start of the recording, non-decreasing
    page: Array  # (n,) uint32, dense page index
    origin: Array  # (n,) uint16, vcpu | source code << 13


class Fault(NamedTuple):
    """One thing that is wrong with a trace file. Row numbers count from 0 within their row group."""

    what: str
    row_group: int | None
    row: int | None
    message: str

    def __str__(self) -> str:
        where = [f"row group {self.row_group}"] if self.row_group is not None else []
        where += [f"row {self.row}"] if self.row is not None else []
        return f"{', '.join(where)}: {self.message}" if where else self.message


class FaultyRows(NamedTuple):
    """All rows of a batch with one kind of fault."""

    what: str
    rows: Array  # (k,) int64, ascending, k > 0
    describe: Callable[[int], str]  # row to sentence


class Columns(NamedTuple):
    """One undecoded batch. A mask marks nulls (its value is 0 there); a column without nulls has none."""

    t_ns: Array  # (n,) int64
    page: Array  # (n,) uint32
    vcpu: Array  # (n,) uint8 or uint16
    source: Array  # (n,) uint8 code, 255: unknown; or (1,) for all
    null_masks: dict[str, Array]

    def after(self, row: int) -> Columns:
        """The same without the first rows."""
        source = self.source[row:] if len(self.source) == len(self.t_ns) else self.source
        masks = {name: mask[row:] for name, mask in self.null_masks.items()}
        return Columns(self.t_ns[row:], self.page[row:], self.vcpu[row:], source, masks)


def pack_origin(vcpu: Array, source: Array) -> Array:
    """uint16 origin of vCPU numbers and source codes."""
    return np.asarray(vcpu, np.uint16) | (np.asarray(source, np.uint16) << np.uint16(SOURCE_SHIFT))


def origin_vcpu(origin: Array) -> Array:
    """vCPU numbers (uint16) of origins."""
    return origin & np.uint16((1 << SOURCE_SHIFT) - 1)


def origin_source(origin: Array) -> Array:
    """Source codes (uint16) of origins."""
    return origin >> np.uint16(SOURCE_SHIFT)


def source_codes(source: Any) -> Array:
    """Source codes (uint8) from names or codes, scalar or array; 255 marks what is neither."""
    given = np.asarray(source)
    if given.dtype.kind in "UOS":
        names, where = np.unique(given.astype(str), return_inverse=True)
        return np.array([SOURCE_CODES.get(name, 255) for name in names], np.uint8)[where].reshape(given.shape)
    known = (given >= 0) & (given < len(SOURCE_NAMES))
    return np.where(known, given, 255).astype(np.uint8)


def seal(array: Array) -> Array:
    """The array itself, read-only from now on."""
    array.flags.writeable = False
    return array


def to_events(columns: Columns) -> Events:
    """Events of checked columns. Shares memory with them where the types allow it."""
    if len(columns.source) == 1 and not columns.source[0] and columns.vcpu.dtype == np.uint16:
        origin = np.ascontiguousarray(columns.vcpu).view()
    else:
        origin = np.ascontiguousarray(pack_origin(columns.vcpu, columns.source))
    return Events(seal(columns.t_ns.view(np.uint64)), seal(columns.page), seal(origin))


def find_faults(columns: Columns, metadata: TraceMetadata | None, last_t_ns: int) -> Iterator[FaultyRows]:
    """Every kind of fault in a batch after an event at last_t_ns. Without metadata, only what needs none."""
    for name, mask in columns.null_masks.items():
        yield FaultyRows("null value", np.flatnonzero(mask), lambda _, name=name: f"{name} is null")  # type: ignore[misc]
    end_ns = (1 << 63) - 1 if metadata is None else metadata.duration_ns
    yield from _order_faults(columns.t_ns, columns.null_masks.get("t_ns"), end_ns, last_t_ns)
    yield from range_faults(columns, metadata)


def range_faults(columns: Columns, metadata: TraceMetadata | None) -> Iterator[FaultyRows]:
    """Faults of single events, in whatever order they are."""
    t, page, vcpu = columns.t_ns, columns.page, columns.vcpu
    n_pages = 1 << 32 if metadata is None else metadata.n_pages
    n_vcpus = 1 << 16 if metadata is None else metadata.n_vcpus
    if t.min() < 0:
        yield FaultyRows("negative time", np.flatnonzero(t < 0), lambda row: f"t_ns is negative ({t[row]})")
    if page.max() >= n_pages:
        yield FaultyRows(
            "page beyond memory",
            np.flatnonzero(page >= n_pages),
            lambda row: f"page {page[row]} is beyond memory, which has {n_pages} pages",
        )
    if vcpu.max() >= n_vcpus:
        yield FaultyRows(
            "vCPU beyond count",
            np.flatnonzero(vcpu >= n_vcpus),
            lambda row: f"vcpu {vcpu[row]} is beyond the guest's {n_vcpus} vCPUs",
        )
    if columns.source.max() == 255:
        rows = np.flatnonzero(np.broadcast_to(columns.source == 255, t.shape))
        known = ", ".join(SOURCE_NAMES)
        yield FaultyRows("unknown source", rows, lambda row: f"source is none of {known}")


def _order_faults(t: Array, nulls: Array | None, end_ns: int, last_t_ns: int) -> Iterator[FaultyRows]:
    if nulls is not None:
        # A null takes the time before it, so that it does not count as a step back.
        seen = np.where(nulls, 0, np.arange(1, len(t) + 1))
        t = np.concatenate([[max(last_t_ns, 0)], t])[np.maximum.accumulate(seen)]
    if t[0] < last_t_ns or (t[1:] < t[:-1]).any():
        before = np.concatenate([[np.int64(last_t_ns)], t[:-1]])
        yield FaultyRows(
            "decreasing time",
            np.flatnonzero(t < before),
            lambda row: (
                f"t_ns goes back by {int(before[row]) - int(t[row])} ns (to {t[row]}); "
                "traces must be sorted by time (TraceWriter sorts)"
            ),
        )
    if t.max() > end_ns:
        yield FaultyRows(
            "time after the end",
            np.flatnonzero(t > end_ns),
            lambda row: f"t_ns {t[row]} is after the end of the recording at {end_ns}",
        )


def first_fault(kinds: Iterable[FaultyRows]) -> tuple[str, int, str] | None:
    """(kind, row, sentence) of the first faulty row, None when there is none."""
    found = list(kinds)
    if not found:
        return None
    first = min(found, key=lambda kind: int(kind.rows[0]))
    row = int(first.rows[0])
    return first.what, row, first.describe(row)


def check(
    columns: Columns,
    metadata: TraceMetadata,
    last_t_ns: int,
    name: str,
    row_group: int | None = None,
    row: int = 0,
) -> None:
    """Raise TraceError for the first faulty row of a batch that starts at `row` of its row group."""
    if len(columns.t_ns) and (found := first_fault(find_faults(columns, metadata, last_t_ns))):
        what, at, message = found
        raise TraceError(f"{name}: {Fault(what, row_group, row + at, message)}")
