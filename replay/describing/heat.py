"""Writes by address and time: a grid of counts, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from replay.describing.stat import WINDOW_EVENTS, Progress
from replay.errors import UsageError
from replay.kernels import describe
from replay.trace.events import Array
from replay.trace.schema import RamBlock
from replay.units import format_duration

if TYPE_CHECKING:
    from replay.synthesis.synthetic import Synthetic
    from replay.trace.reader import Trace

MOST_CELLS = 1 << 26


@dataclass(frozen=True, kw_only=True)
class Heat:
    """cells: (rows, columns) uint64 writes, row 0 the lowest addresses, column 0 the earliest; all edges as given."""

    cells: Array
    from_ns: int
    to_ns: int
    first_page: int
    end_page: int
    page_size: int
    title: str
    ram_blocks: tuple[RamBlock, ...]
    n_events: int  # all of the trace, inside the grid or not


def heat(
    trace: Trace | Synthetic,
    *,
    rows: int,
    columns: int,
    from_ns: int = 0,
    to_ns: int | None = None,
    pages: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> Heat:
    """Counts the writes in [from_ns, to_ns) to `pages` (the end exclusive), by default all of both.

    There are at most as many rows as pages and columns as nanoseconds. Raises UsageError for an empty or absurd grid or
    one outside the trace.
    """
    meta = trace.metadata
    end_ns = meta.duration_ns if to_ns is None else to_ns
    first, end = (0, meta.n_pages) if pages is None else pages
    if not 0 <= from_ns < end_ns <= meta.duration_ns:
        raise UsageError(
            f"{format_duration(from_ns)} to {format_duration(end_ns)} is not a part of a recording of "
            f"{format_duration(meta.duration_ns)}"
        )
    if not 0 <= first < end <= meta.n_pages:
        raise UsageError(
            f"pages {first}-{end} are not a range of the trace's {meta.n_pages} pages (the end is exclusive)"
        )
    if rows < 1 or columns < 1 or rows * columns > MOST_CELLS:
        raise UsageError(f"a grid of {columns}x{rows} cells is empty or too large; use up to {MOST_CELLS} cells")
    cells = np.zeros((min(rows, end - first), min(columns, end_ns - from_ns)), np.uint64)
    # An event at the very end of the recording belongs to the last column.
    span = end_ns - from_ns + (end_ns == meta.duration_ns)
    place = [np.uint64(value) for value in (from_ns, span, first, end - first)]
    n_events = 0
    for events in trace.windows(WINDOW_EVENTS):
        if events.t_ns.size:
            describe.count_cells(events.t_ns, events.page, *place, cells)
            n_events += events.t_ns.size
            if progress is not None:
                progress(int(events.t_ns[-1]), meta.duration_ns)
    return Heat(
        cells=cells, from_ns=from_ns, to_ns=end_ns, first_page=first, end_page=end, page_size=meta.page_size,
        title=meta.title, ram_blocks=meta.ram_blocks, n_events=n_events,
    )  # fmt: skip
