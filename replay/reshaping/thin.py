"""Samples: some of the pages with all of their events, or some of the events of all pages.

*pages*: a page is in the sample or not, by a hash of its number and the seed. What is kept is complete: when each page
is written and rewritten, reuse times, how popular pages differ. Rates, working sets and densities shrink to the share
(divide by it), and runs of neighbouring pages fall apart. *events*: every event stays with the same chance. The shape
of the rate over time, the shares of vCPUs and the proportions of popularity stay; what depends on single events does
not: reuse times grow, seldom written pages vanish, working sets shrink by less than the share.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from replay.chance import shares
from replay.errors import UsageError, unknown_name
from replay.reshaping.history import reshaped
from replay.reshaping.streams import WINDOW_EVENTS, check_output, write
from replay.trace.events import Events
from replay.trace.reader import Trace
from replay.trace.writer import Progress

KINDS = ("pages", "events")


def sample_trace(
    trace: Trace,
    output: str | os.PathLike[str],
    *,
    keep: float,
    by: str = "pages",
    seed: int = 1,
    progress: Progress | None = None,
) -> Trace:
    """Writes a sample of `trace`: a share `keep` (0 to 1, exclusive) of its pages or events.

    Raises UsageError for other shares, an unknown kind, or nothing left; TraceError for damaged input.
    """
    check_output(output, [trace])
    if by not in KINDS:
        raise unknown_name("kind of sample", by, KINDS)
    if not 0 < keep < 1:
        raise UsageError(f"sample: keep a share between 0 and 1 (or 0% and 100%), not {keep:g}")
    options: dict[str, Any] = {"keep": f"{keep:g}", "by": by, "seed": seed}
    limit = (
        f"a sample of {keep:.4g} of the pages (all events of each): divide rates and working sets by it; "
        "runs of neighbouring pages are broken"
        if by == "pages"
        else f"a sample: each event was kept with probability {keep:.4g}: divide rates by it; reuse and working sets "
        "are not those of the guest"
    )
    metadata = reshaped(trace, "sample", options, limit)
    nothing = f"no event was left of {trace.n_events}; keep a larger share"
    events = _thinned(trace, keep, by, seed)
    return write(output, lambda: metadata, events, sources=trace.has_sources, nothing=nothing, progress=progress)


def _thinned(trace: Trace, keep: float, by: str, seed: int) -> Iterator[Events]:
    row = 0
    for window in trace.windows(WINDOW_EVENTS):
        number = np.arange(row, row + window.t_ns.size, dtype=np.uint64) if by == "events" else window.page
        row += window.t_ns.size
        kept = shares(seed, f"sample {by}", number.astype(np.uint64)) < keep
        yield Events(*(column[kept] for column in window))
