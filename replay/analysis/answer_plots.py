"""Pictures of the answers: the optimum of hindsight, what converges at which bandwidth, and Pareto fronts."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from replay.analysis.plots import COLOURS
from replay.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKERS = "osD^vP*Xp<>h"
_MANY_COLOURS = (*COLOURS, "#999999", "#000000")


def new_figure(width: float, height: float) -> Any:
    """An empty figure. Raises UsageError without matplotlib."""
    try:
        from matplotlib.figure import Figure as NewFigure
    except ImportError:
        raise UsageError("plots need matplotlib: pip install 'dirtyreplay[plots]'") from None
    return NewFigure(figsize=(width, height), layout="constrained")


def bound_figure(found: dict[str, Any]) -> Figure:
    """The least downtime by the moment at which the guest stops, and the pauses of the runs. Modelled."""
    figure = new_figure(9, 5.5)
    axis = figure.subplots()
    curve = found["curve_ns"]
    axis.plot(
        [at / 1e9 for at, _ in curve], [least / 1e6 for _, least in curve],
        color="black", linewidth=1.2, label="least with hindsight",
    )  # fmt: skip
    axis.axhline(found["config"]["downtime-limit"], color="0.6", linestyle=":", label="downtime limit")
    best = found["best"]
    axis.plot([best["switchover_ns"] / 1e9], [best["downtime_ns"] / 1e6], "k*", markersize=12, label="best switchover")
    runs = [run for run in found["runs"] if run["pause_ns"] is not None]
    designs = list(dict.fromkeys(run["design"] for run in runs))
    policies = list(dict.fromkeys(run["policy"] for run in runs))
    for run in runs:
        colour = _MANY_COLOURS[designs.index(run["design"]) % len(_MANY_COLOURS)]
        marker = _MARKERS[policies.index(run["policy"]) % len(_MARKERS)]
        label = run["design"] + (f", {run['policy']}" if run["policy"] else "")
        axis.plot(
            [run["stopped_ns"] / 1e9], [run["pause_ns"] / 1e6], marker, color=colour, label=label, alpha=0.8
        )  # fmt: skip
    axis.set_yscale("log")
    axis.set_xlim(left=0, right=_shown_until(found, runs))
    axis.set_xlabel("the guest stops, s after the migrate command")
    axis.set_ylabel("pause of the guest (ms), modelled")
    axis.grid(alpha=0.3)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right upper", fontsize="small", frameon=False)
    figure.suptitle(textwrap.fill(found["provenance"]["trace"]["title"], 100), fontsize="medium")
    return figure


def _shown_until(found: dict[str, Any], runs: list[dict[str, Any]]) -> float:
    """Twice the time of what is worth seeing: the best switchover and the runs."""
    last = max([found["best"]["switchover_ns"], *(run["stopped_ns"] for run in runs)])
    return float(max(1e-3, min(found["horizon_ns"], 1.2 * last) / 1e9))


def advice_figure(advice: dict[str, Any]) -> Figure:
    """A bar for each setting: its least bandwidth, pale where only a lower end of it is known; and the probes beside
    the best."""
    settings = [found for found in advice["settings"] if not found["refused"]]
    figure = new_figure(9, 1.8 + 0.34 * len(settings))
    axis = figure.subplots()
    labels: list[str] = []
    for place, found in enumerate(settings):
        known = found["bandwidth"] is not None
        value = (found["bandwidth"] if known else found["more_than"]) / 1e6
        colour = COLOURS[1] if found["policy"] else COLOURS[0]
        axis.barh(place, value, color=colour, alpha=1.0 if known else 0.25, height=0.7)
        labels.append(f"{found['name']}: {'' if known else '> '}{value:.3g}")
    for found in (advice["best"], advice["slowed"]):
        if found is None:
            continue
        place = [other["name"] for other in settings].index(found["name"])
        for probe in found["beside"]:
            fine = probe["enough"]
            axis.plot(probe["bandwidth"] / 1e6, place, "o" if fine else "x", color="black", markersize=5)
    now = advice["now"]["max_bandwidth"] / 1e6
    axis.axvline(now, color="0.4", linestyle=":")
    axis.text(now, -0.55, " now", ha="left", va="center", fontsize="small", color="0.3")
    axis.set_yticks(range(len(settings)), labels, fontsize="small")
    axis.set_ylim(len(settings) - 0.4, -0.9)
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    axis.set_xlim(low, high * 1.2)
    axis.set_xlabel("least bandwidth that is enough (MB/s)   o enough, x not: probed beside the path")
    title = advice["provenance"]["trace"]["title"]
    limits = advice["limits"]
    told = f"{title}\ndowntime-limit {limits['downtime_ms']} ms, {limits['total_ns'] / 1e9:g} s in all"
    figure.suptitle(told, fontsize="medium")
    return figure


def pareto_figure(found: dict[str, Any]) -> Figure:
    """A panel for every two figures: settings on a front in their guest's colour, others grey. Modelled means."""
    figures = found["figures"]
    pairs = [(x, y) for place, y in enumerate(figures) for x in figures[place + 1 :]]
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = new_figure(4.2 * columns, 3.4 * rows + 0.8)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    settings = [row for row in found["settings"] if row["on_front"] is not None]
    guests = list(dict.fromkeys(row.get("trace", "") for row in settings))
    for index, panel in enumerate(panels):
        if index >= len(pairs):
            panel.set_visible(False)
            continue
        x, y = pairs[index]
        places = {id(row): (_scaled(row, x), _scaled(row, y)) for row in settings}
        beaten = [places[id(row)] for row in settings if not row["on_front"]]
        panel.plot([a for a, _ in beaten], [b for _, b in beaten], "o", color="0.75", markersize=4, zorder=1)
        for guest in guests:
            mine = [places[id(row)] for row in settings if row["on_front"] and row.get("trace", "") == guest]
            colour = _MANY_COLOURS[guests.index(guest) % len(_MANY_COLOURS)]
            marker = _MARKERS[guests.index(guest) // len(_MANY_COLOURS) % len(_MARKERS)]
            panel.plot([a for a, _ in mine], [b for _, b in mine], marker, color=colour, markersize=6, alpha=0.8)
            edge = _staircase(mine)
            panel.plot([a for a, _ in edge], [b for _, b in edge], color=colour, linewidth=1, alpha=0.6)
        panel.set_xlabel(f"{x['name']} ({_UNITS[x['unit']][0]})")
        panel.set_ylabel(f"{y['name']} ({_UNITS[y['unit']][0]})")
        panel.grid(alpha=0.3)
        panel.margins(0.1)
    handles = [
        _handle(guest or "on the front", _MANY_COLOURS[number % len(_MANY_COLOURS)])
        for number, guest in enumerate(guests)
    ]
    figure.legend(
        handles=[*handles, _handle("beaten", "0.75")],
        loc="outside lower center",
        ncols=4,
        fontsize="small",
        frameon=False,
    )
    figure.suptitle("Pareto fronts, modelled means; lines: the edge in these two figures alone", fontsize="medium")
    return figure


_UNITS = {"ns": ("ms", 1e6), "bytes": ("MiB", float(1 << 20)), "%": ("%", 1.0)}


def _scaled(row: dict[str, Any], figure: dict[str, Any]) -> float:
    return float(row[figure["column"]] / _UNITS[figure["unit"]][1])


def _staircase(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The steps below which there is no point."""
    edge: list[tuple[float, float]] = []
    for x, y in sorted(points):
        if not edge:
            edge.append((x, y))
        elif y < edge[-1][1]:
            edge += [(x, edge[-1][1]), (x, y)]
    return edge


def _handle(label: str, colour: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], marker="o", linestyle="", color=colour, label=label)


def fleet_figure(found: dict[str, Any]) -> Figure:
    """Two panels, a line a guest, worst first: the share that converges with its interval, and the mean total time."""
    guests = found["guests"]
    figure = new_figure(9, 1.6 + 0.3 * len(guests))
    left, right = figure.subplots(1, 2, sharey=True)
    for place, row in enumerate(guests):
        share = row["completed"] / row["starts"]
        colour = {"never": COLOURS[1], "sometimes": COLOURS[4], "always": COLOURS[2]}[row["converges"]]
        left.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2)
        left.plot([share], [place], "o", color=colour)
        if row["total_ns"] is not None:
            right.barh(place, row["total_ns"] / 1e9, color=colour, height=0.7)
        else:
            right.text(0, place, " not within give-up", va="center", fontsize="small", color=colour)
    left.set_yticks(range(len(guests)), [row["guest"] for row in guests], fontsize="small")
    left.set_ylim(len(guests) - 0.4, -0.6)
    left.set_xlim(-0.03, 1.03)
    left.set_xlabel("share of start moments that converge, 95 %")
    right.set_xlabel("mean total time (s), modelled")
    right.set_xlim(left=0)
    for panel in (left, right):
        panel.grid(alpha=0.3, axis="x")
    config = found["config"]
    figure.suptitle(
        f"{config['design']} on {config['log']}, max-bandwidth {config['max-bandwidth'] / 1e6:.4g} MB/s, "
        f"downtime-limit {config['downtime-limit']} ms", fontsize="medium",
    )  # fmt: skip
    return figure
