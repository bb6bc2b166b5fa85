"""Charts that `replay plot` draws and notebooks ask for, as matplotlib figures. Modelled, but for `phases-measured`.

Needs the extra `plots` (pip install 'dirtyreplay[plots]').
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replay.analysis import plots
from replay.analysis.explain import HEADS, explain, label
from replay.analysis.plots import COLOURS
from replay.analysis.series import TIMELINE, timeline
from replay.errors import UsageError, unknown_name
from replay.units import format_bytes, format_duration

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from replay.analysis.explain import Explanation
    from replay.results.result import Result

KINDS = {
    "timeline": "pending, dirty rate, bandwidth, throttle and stalls over time; results",
    "rounds": "pages pending and stalls over time, one line a result; results",
    "phases": "where the modelled time of the dirty-page machinery went; results",
    "phases-measured": "the same by this machine's clock; results",
    "waterfall": "causes of one result's total time, or of the difference of two; one or two results",
    "compare": "total time, downtime, bytes and stalls side by side; results",
    "heatmap": "writes by address and time; a trace",
}
LEAST_SHARE = 0.002


def draw(kind: str, results: list[Result]) -> Figure:
    """The chart of some results. Raises UsageError for an unknown kind or a senseless number of results."""
    if kind not in KINDS:
        raise unknown_name("kind of chart", kind, KINDS)
    if kind == "heatmap":
        raise UsageError("a heatmap is of a trace, not of a result")
    if not results:
        raise UsageError(f"{kind}: give at least one result")
    if kind == "waterfall":
        if len(results) > 2:
            raise UsageError(f"a waterfall is of one result, or of the difference of two, not of {len(results)}")
        return waterfall(explain(*results))
    if kind == "timeline":
        return over_time(results)
    if kind == "rounds":
        return plots.rounds(results)
    if kind == "compare":
        return side_by_side(results)
    return plots.phases(results, "measured" if kind == "phases-measured" else "modelled")


def over_time(results: list[Result]) -> Figure:
    """Five panels, one a figure of series.TIMELINE, a line a result; steps at the syncs."""
    figure, panels = plots.panels(len(TIMELINE), 9.0)
    for number, result in enumerate(results):
        entries = timeline(result)
        times = [entry["begin_s"] for entry in entries] + [entries[-1]["end_s"]]
        for panel, name in zip(panels, TIMELINE, strict=True):
            values = [entry[name] for entry in entries]
            panel.step(
                times, [*values, values[-1]], where="post", color=COLOURS[number % len(COLOURS)],
                linestyle=plots.STYLES[number % len(plots.STYLES)], label=label(result),
            )  # fmt: skip
    for panel, text in zip(panels, TIMELINE.values(), strict=True):
        panel.set_title(text, loc="left", fontsize="small")
        panel.grid(alpha=0.3)
        panel.set_ylim(bottom=0)
    for panel in panels[:3]:  # a burst while the guest is stopped is a hundred times what is sent otherwise
        panel.set_yscale("symlog")
        panel.set_ylim(bottom=0)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", fontsize="small", ncols=2)
    panels[-1].set_xlabel("host time since the migrate command (s), modelled")
    return figure


def waterfall(found: Explanation, metric: str = "total") -> Figure:
    """The causes of a metric one after the other, largest first, ending at the sum. Small ones are put together."""
    figure, (axis,) = plots.panels(1, 1.6 + 0.3 * (len(steps(found, metric)) + 1))
    bars = steps(found, metric)
    for y, bar in enumerate(bars):
        low, high = sorted((bar["from"], bar["to"]))
        colour = "0.3" if bar["kind"] == "total" else COLOURS[1] if bar["to"] < bar["from"] else COLOURS[0]
        axis.barh(y, (high - low) / 1e9, left=low / 1e9, color=colour, height=0.7)
    axis.set_yticks(range(len(bars)), [f"{bar['name']}   {bar['text']}" for bar in bars], fontsize="small")
    axis.invert_yaxis()
    axis.axvline(0, color="0.5", linewidth=0.8)
    axis.set_xlabel("ms, modelled" if metric != "bytes" else "GB, modelled")
    axis.set_title(f"{HEADS[metric]}: " + " to ".join(found.labels), loc="left", fontsize="small")
    axis.grid(axis="x", alpha=0.3)
    return figure


def steps(found: Explanation, metric: str) -> list[dict[str, Any]]:
    """A waterfall's bars: name, from, to (ps or bytes), kind (total for the last), text. Of two results it ends at the
    difference. Causes below 0.2 % of the largest one are one bar. Raises UsageError when the metric has no causes."""
    rows = sorted(found.of(metric), key=lambda row: -abs(row["difference"]))
    if not rows:
        raise UsageError(f"there is no {HEADS[metric]} to take apart")
    least = LEAST_SHARE * abs(rows[0]["difference"])
    parts = [(row["cause"], row["difference"]) for row in rows if abs(row["difference"]) > least]
    small = [row["difference"] for row in rows if 0 < abs(row["difference"]) <= least]
    if small:
        parts.append((f"{len(small)} smaller causes", sum(small)))
    bars, at = [], 0
    for name, value in parts:
        bars.append({"name": name, "from": at, "to": at + value, "kind": "", "text": _text(value, metric, found)})
        at += value
    bars.append({"name": "all", "from": 0, "to": at, "kind": "total", "text": _text(at, metric, found)})
    return bars


def _text(value: int, metric: str, found: Explanation) -> str:
    spelled = format_bytes(abs(value)) if metric == "bytes" else format_duration(abs(value) / 1000)
    return ("-" if value < 0 else "+" if len(found.labels) == 2 else "") + spelled


def side_by_side(results: list[Result]) -> Figure:
    """Total time, downtime, bytes and stalls, a panel each with axes of their own; a bar a result."""
    from replay.analysis.compare import figures

    try:
        from matplotlib.figure import Figure as NewFigure
    except ImportError:
        raise UsageError("plots need matplotlib: pip install 'dirtyreplay[plots]'") from None
    rows = [figures(result) for result in results]
    wanted = (
        ("total_ms", "total time, ms", 1.0), ("downtime_ms", "downtime, ms", 1.0), ("sent_bytes", "sent, MB", 1e-6),
        ("modelled_stall_ns", "vCPU stall, ms", 1e-6),
    )  # fmt: skip
    figure = NewFigure(figsize=(10, 1.6 + 0.5 * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(wanted), sharey=True)
    for axis, (name, text, scale) in zip(axes, wanted, strict=True):
        values = [(row[name] or 0) * scale for row in rows]
        axis.barh(range(len(rows)), values, color=[COLOURS[n % len(COLOURS)] for n in range(len(rows))])
        for y, (value, row) in enumerate(zip(values, rows, strict=True)):
            axis.text(value, y, " none" if row[name] is None else f" {value:,.4g}", va="center", fontsize="small")
        axis.set_title(text, fontsize="small")
        axis.set_xlim(0, 1.35 * max(1e-9, *values))
        axis.locator_params(axis="x", nbins=4)
    axes[0].set_yticks(range(len(rows)), [label(result) for result in results], fontsize="small")
    axes[0].invert_yaxis()
    return figure
