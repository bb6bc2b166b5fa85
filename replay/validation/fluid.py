"""The fluid model of the literature, to be shown beside our figures.

Rounds follow one another without gaps: the first sends all data pages at the bandwidth, each later one what was
dirtied during the one before, at the trace's mean rate of distinct pages per second and at most the pages ever
written. It stops when a round would fit into the downtime limit, or at the time limit. (After Akoush 2010, Nathan
2015: one dirty rate, no slices, no flushes.)
"""

from __future__ import annotations

import numpy as np

from replay.migration.link import NORMAL_BYTES, ZERO_BYTES
from replay.validation.case import Inputs
from replay.validation.traces import Recorded

_UNLIMITED = 500_000_000


def fluid(inputs: Inputs, recorded: Recorded) -> dict[str, float | int | bool]:
    """total-time (ms), normal pages, dirty-sync-count and converged, by the fluid model."""
    bandwidth = int(inputs.parameters["max-bandwidth"])
    bandwidth = _UNLIMITED if bandwidth < 10 else bandwidth
    limit_s, give_up_s = int(inputs.parameters["downtime-limit"]) / 1000, inputs.give_up_ns / 1e9
    during = recorded.t_ns >= 0
    page, second = recorded.page[during], recorded.t_ns[during] // 1_000_000_000
    seconds = max(1.0, float(recorded.t_ns[-1]) / 1e9)
    rate = np.unique(page + (second << 32)).size / seconds
    most = np.unique(page).size
    n_zero = int(inputs.zero.sum())
    pending: float = inputs.n_pages - n_zero
    normal, elapsed, syncs = pending, (pending * NORMAL_BYTES + n_zero * ZERO_BYTES) / bandwidth, 2
    last = elapsed
    while elapsed < give_up_s:
        pending = min(rate * last, most)
        last = pending * NORMAL_BYTES / bandwidth
        normal += pending
        elapsed += last
        if last < max(limit_s, 1e-6):
            return {
                "total-time": round(elapsed * 1000),
                "normal": round(normal),
                "dirty-sync-count": syncs + 1,
                "converged": True,
            }
        syncs += 1
    return {"total-time": round(elapsed * 1000), "normal": round(normal), "dirty-sync-count": syncs, "converged": False}
