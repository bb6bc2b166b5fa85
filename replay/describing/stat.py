"""What a trace looks like, in figures: rate, working sets, runs, reuse, skew, period. One pass, bounded memory.

Memory: 16 bytes for each page of the parts of memory that are written, an eighth of a byte for each window length, and
eight bytes for every bin and window; nothing grows with the number of events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from replay.describing import period
from replay.describing.reuse import Reuse, percentile
from replay.describing.windows import LENGTHS, Curve, Windows
from replay.errors import UsageError
from replay.kernels import describe
from replay.trace.events import Array, Events, origin_vcpu
from replay.trace.metadata_checks import MAX_VCPUS
from replay.trace.operations import WINDOWS_NS

if TYPE_CHECKING:
    from replay.synthesis.synthetic import Synthetic
    from replay.trace.reader import Trace

WINDOW_EVENTS = 1 << 19
OFTEN = 8
Progress = Callable[[int, int], None]
"""Called after every window of events with (guest time read, duration), both ns; raise from it to cancel."""


@dataclass(frozen=True, kw_only=True)
class Stat:
    """`figures` as plain JSON-ready values, and what they were taken from."""

    figures: dict[str, Any]
    curves: tuple[Curve, ...]  # one a window length
    popularity: Array  # (written pages,) uint32: writes of each, most first
    reuse_times: Array  # histogram (replay.describing.reuse.bucket_edges), ns
    reuse_distances: Array  # histogram, pages

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        curves = [{"window_ns": c.window_ns} | {k: v.tolist() for k, v in c._asdict().items() if k != "window_ns"}
                  for c in self.curves]  # fmt: skip
        return {**self.figures, "curves": curves}

    def frame(self) -> Any:
        """The curves as a polars DataFrame, one row a window: window_ns, begin_ns, events, unique_pages, extents."""
        import polars as pl

        return pl.concat(
            pl.DataFrame(
                {
                    "window_ns": np.full(c.events.size, c.window_ns),
                    "begin_ns": np.arange(c.events.size) * c.window_ns,
                    "events": c.events,
                    "unique_pages": c.unique_pages,
                    "extents": c.extents,
                }
            )
            for c in self.curves
        )


def stat(trace: Trace | Synthetic, windows_ns: Sequence[int] = WINDOWS_NS, progress: Progress | None = None) -> Stat:
    """The figures of a trace. windows_ns: lengths of the windows of working sets and rates.

    Raises UsageError for windows that make no sense or a guest that writes nothing, TraceError for a damaged trace.
    """
    if not windows_ns or len(set(windows_ns)) < len(windows_ns):
        raise UsageError("stat: give one or more different lengths of windows")
    meter = _Meter(trace.metadata.n_pages, trace.metadata.duration_ns, sorted(windows_ns))
    for events in trace.windows(WINDOW_EVENTS):
        if events.t_ns.size:
            meter.add(events)
            if progress is not None:
                progress(int(events.t_ns[-1]), trace.metadata.duration_ns)
    if not meter.n_events:
        raise UsageError(f"{trace.path}: no event in {trace.metadata.duration_ns / 1e9:g} s; choose a longer duration")
    return meter.stat(trace)


class _Meter:
    """All that is counted in the one pass."""

    def __init__(self, n_pages: int, duration_ns: int, windows_ns: list[int]) -> None:
        self.duration_ns = duration_ns
        self.n_events = 0
        self.windows = [Windows(length, duration_ns) for length in windows_ns]
        self.reuse = Reuse(n_pages)
        self.bin_ns = period.bin_ns(duration_ns)
        self.rate = np.zeros(-(-duration_ns // self.bin_ns), np.int64)
        self.run_lengths = np.zeros(LENGTHS, np.uint64)
        self._run_page, self._run_length = np.full(MAX_VCPUS + 1, -1, np.int64), np.zeros(MAX_VCPUS + 1, np.uint64)

    def add(self, events: Events) -> None:
        t_ns, page, _ = events
        self.n_events += t_ns.size
        self.reuse.add(t_ns, page)  # first: it refuses what would not fit into memory
        for windows in self.windows:
            windows.add(t_ns, page)
        describe.count_runs(page, origin_vcpu(events.origin), self._run_page, self._run_length, self.run_lengths)
        bins = np.minimum(t_ns // np.uint64(self.bin_ns), np.uint64(self.rate.size - 1)).astype(np.int64)
        low = int(bins[0])
        counts = np.bincount(bins - low)
        self.rate[low : low + counts.size] += counts

    def stat(self, trace: Trace | Synthetic) -> Stat:
        curves = tuple(windows.curve() for windows in self.windows)
        under_way = np.minimum(self._run_length[self._run_page >= 0], np.uint64(LENGTHS - 1)).astype(np.int64)
        runs = self.run_lengths + np.bincount(under_way, minlength=LENGTHS).astype(np.uint64)
        meta, popularity = trace.metadata, self.reuse.popularity()
        figures = {
            "path": str(trace.path),
            "title": meta.title,
            "memory_bytes": meta.memory_bytes,
            "page_size": meta.page_size,
            "n_vcpus": meta.n_vcpus,
            "duration_ns": meta.duration_ns,
            "n_events": self.n_events,
            "written_pages": popularity.size,
            "density": popularity.size / meta.n_pages,
            "middle_page": self.reuse.middle_page(),
            "rate": _rate(self.n_events, curves[0], meta.duration_ns),
            "windows": [
                _window(curve, meta.duration_ns, windows.extent_lengths)
                for curve, windows in zip(curves, self.windows, strict=True)
            ],
            "runs": _lengths(runs),
            "reuse": {
                "rewrites_share": 1 - popularity.size / self.n_events,
                "time_ns": _percentiles(self.reuse.times),
                "distance_pages": _percentiles(self.reuse.distances),
            },
            "skew": skew(popularity),
            "period": self._period(),
        }
        return Stat(
            figures=figures, curves=curves, popularity=popularity, reuse_times=self.reuse.times,
            reuse_distances=self.reuse.distances,
        )  # fmt: skip

    def _period(self) -> dict[str, float] | None:
        found = period.find(self.rate[: self.duration_ns // self.bin_ns], self.bin_ns)
        return None if found is None else {"period_ns": found[0], "strength": found[1]}


def _rate(n_events: int, curve: Curve, duration_ns: int) -> dict[str, float]:
    """Events a second over all, and over the windows of the shortest length (the last one if it is whole)."""
    whole = max(1, duration_ns // curve.window_ns)
    rates = curve.events[:whole] / (min(curve.window_ns, duration_ns) / 1e9)
    low, median, high = np.quantile(rates, (0.05, 0.5, 0.95)).tolist()
    return {
        "window_ns": curve.window_ns,
        "mean": n_events / (duration_ns / 1e9),
        "p5": low,
        "median": median,
        "p95": high,
        "peak": float(rates.max()),
        "variation": float(rates.std() / rates.mean()) if rates.mean() else 0.0,
    }


def _window(curve: Curve, duration_ns: int, extent_lengths: Array) -> dict[str, Any]:
    pages = curve.unique_pages
    median, high = np.quantile(pages, (0.5, 0.95)).tolist()
    return {
        "window_ns": curve.window_ns,
        "windows": pages.size,
        "mean_unique_pages": float(pages.mean()),
        "median_unique_pages": median,
        "p95_unique_pages": high,
        "max_unique_pages": int(pages.max()),
        "peak_events_per_s": float(curve.events.max()) / (min(curve.window_ns, duration_ns) / 1e9),
        "extents": _lengths(extent_lengths),
    }


def _lengths(counts: Array) -> dict[str, float]:
    """Mean, percentiles and maximum of lengths counted in a histogram; pages in the longest half of all pages."""
    length, many = np.arange(counts.size), counts.astype(np.int64)
    total, pages = int(many.sum()), int(many @ length)
    passed = np.cumsum(many)
    low, high = (int(np.searchsorted(passed, share * total)) for share in (0.5, 0.95))
    half = int(np.searchsorted(np.cumsum(many * length), pages / 2))
    return {
        "count": total,
        "mean": pages / total,
        "median": low,
        "p95": high,
        "longest": int(np.flatnonzero(many)[-1]),
        "half_of_pages_in": half,
    }


def _percentiles(histogram: Array) -> dict[str, float | None]:
    return {f"p{round(share * 100)}": percentile(histogram, share) for share in (0.1, 0.5, 0.9)}


def skew(popularity: Array) -> dict[str, float]:
    """How uneven writes are spread over pages that were written. popularity: writes of each, most first.

    zipf_exponent: the slope of log(writes) over log(rank), by least squares at up to 200 ranks evenly spaced in log,
    among pages with OFTEN writes and more (all, where there are few such): counts of a few writes say little of a page.
    """
    passed, n = np.cumsum(popularity, dtype=np.int64), popularity.size
    total = int(passed[-1])
    often = int(np.searchsorted(-popularity.astype(np.int64), -OFTEN, side="right"))
    last = often if often >= 10 else n
    ranks = np.unique(np.geomspace(1, last, min(last, 200)).round().astype(np.int64))
    exponent = 0.0
    if ranks.size > 1:
        exponent = -float(np.polyfit(np.log(ranks), np.log(popularity[ranks - 1]), 1)[0])
    return {
        "top_1pct_share": float(passed[max(1, round(n / 100)) - 1]) / total,
        "top_10pct_share": float(passed[max(1, round(n / 10)) - 1]) / total,
        "half_of_writes_pages": int(np.searchsorted(passed, total / 2)) + 1,
        "zipf_exponent": exponent + 0.0,
    }
