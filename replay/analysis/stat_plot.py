"""The picture of a trace's figures: rate and working set over time, popularity by rank, reuse distances."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from replay.analysis.heat_plot import short_number
from replay.analysis.plots import COLOURS
from replay.describing.reuse import bucket_edges
from replay.errors import UsageError
from replay.units import format_duration

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from replay.describing.stat import Stat
    from replay.trace.events import Array

_STYLES = ("-", "--", "-.", ":")


def draw(found: Stat) -> Figure:
    """Four panels, 10 x 6.5 inches. Raises UsageError without matplotlib."""
    try:
        from matplotlib.figure import Figure as NewFigure
    except ImportError:
        raise UsageError("plots need matplotlib: pip install 'dirtyreplay[plots]'") from None
    figure = NewFigure(figsize=(10, 6.5), layout="constrained")
    (rate, popular), (pages, reuse) = figure.subplots(2, 2, width_ratios=(1.5, 1))
    pages.sharex(rate)
    duration_s = found.figures["duration_ns"] / 1e9
    for index, curve in enumerate(found.curves):
        style = {"color": COLOURS[index % len(COLOURS)], "linewidth": 1.2, "linestyle": _STYLES[index % len(_STYLES)]}
        edges = np.append(np.arange(curve.events.size) * (curve.window_ns / 1e9), duration_s)
        rate.stairs(
            curve.events / np.diff(edges), edges, baseline=None, label=format_duration(curve.window_ns), **style
        )
        pages.stairs(curve.unique_pages, edges, baseline=None, **style)
    rate.set_ylabel("writes/s")
    rate.set_ylim(bottom=0)
    rate.yaxis.set_major_formatter(lambda value, _: short_number(value))
    rate.legend(title="in windows of", fontsize="small", title_fontsize="small", ncols=2, loc="lower left")
    pages.set_ylabel("distinct pages in a window")
    pages.set_yscale("log")
    pages.set_xlabel("guest time (s)")
    ranks = np.unique(np.geomspace(1, found.popularity.size, 400).round().astype(np.int64))
    popular.loglog(ranks, found.popularity[ranks - 1], color=COLOURS[0])
    popular.set_xlabel("rank of a page")
    popular.set_ylabel("writes to it")
    _share_up_to(reuse, found.reuse_distances)
    for axes in (rate, popular, pages, reuse):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("\n".join(textwrap.wrap(found.figures["title"], 100)), fontsize="medium", x=0.01, ha="left")
    return figure


def _share_up_to(axes: Any, histogram: Array) -> None:
    """The share of rewrites whose reuse distance is at most so many pages."""
    axes.set_xlabel("reuse distance (other pages written since)")
    axes.set_ylabel("share of rewrites up to it")
    axes.set_ylim(0, 1)
    total = int(histogram.sum())
    if not total:
        return
    last = int(np.flatnonzero(histogram)[-1])
    edges = np.array([high for _, high in bucket_edges()[: last + 1]], np.float64)
    axes.plot(edges, np.cumsum(histogram[: last + 1]) / total, color=COLOURS[0])
    axes.set_xscale("log")
