"""Charts of results, as matplotlib figures. Modelled and measured figures never share an axis.

Needs the extra `plots` (pip install 'dirtyreplay[plots]').
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replay.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from replay.results.result import Result

# Okabe and Ito's colours: told apart by colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", "--", ":", "-.")
_STEPS = 60


def panels(count: int, height: float) -> Any:
    """A figure and its panels, one above the other with one time axis. Raises UsageError without matplotlib."""
    try:
        from matplotlib.figure import Figure as NewFigure
    except ImportError:
        raise UsageError("plots need matplotlib: pip install 'dirtyreplay[plots]'") from None
    figure = NewFigure(figsize=(8, height), layout="constrained")
    return figure, figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]


def rounds(results: list[Result]) -> Figure:
    """Pages pending and vCPU stall over host time, a line a result. Modelled.

    Pending is drawn falling evenly from each sync to the next.
    """
    figure, (above, below) = panels(2, 5.5)
    for number, result in enumerate(results):
        colour, style = COLOURS[number % len(COLOURS)], STYLES[number % len(STYLES)]
        label = f"{result.config['design']} on {result.config['log']}"
        above.plot(*_pending_over_time(result), color=colour, linestyle=style, label=label)
        stall_ms = [0.0, *(result.rounds["modelled_stall_ns"].cum_sum() / 1e6)]
        below.step([0.0, *(result.rounds["end_ns"] / 1e9)], stall_ms, color=colour, linestyle=style, where="post")
    above.set_ylabel("pages pending")
    above.set_yscale("symlog")
    above.set_ylim(bottom=0)
    above.legend()
    below.set_ylabel("vCPU stall so far (ms)")
    below.set_ylim(bottom=0)
    below.set_xlabel("host time since the migrate command (s), modelled")
    for axis in (above, below):
        axis.grid(alpha=0.3)
    return figure


def _pending_over_time(result: Result) -> tuple[list[float], list[float]]:
    """Points along each round's drain, close enough together to look right on a logarithmic axis."""
    times: list[float] = []
    pending: list[float] = []
    for row in result.rows:
        begin, end = row["sync_end_ns"] / 1e9, row["end_ns"] / 1e9
        high, sent = row["pending_after_pages"], row["normal_pages"] + row["zero_pages"]
        for step in range(_STEPS + 1):
            times.append(begin + (end - begin) * step / _STEPS)
            pending.append(high - sent * step / _STEPS)
    return times, pending


def phases(results: list[Result], kind: str) -> Figure:
    """Where the time of the dirty-page machinery went, a bar a result: kind "modelled" or "measured"."""
    parts = {
        "modelled": ("modelled_harvest_ns", "modelled_sync_ns", "modelled_find_ns"),
        "measured": ("measured_harvest_ns", "measured_sync_ns", "measured_send_ns"),
    }
    if kind not in parts:
        raise UsageError(f"phases are modelled or measured, not {kind!r}")
    figure, (axis,) = panels(1, 1.6 + 0.5 * len(results))
    names = [f"{result.config['design']}\non {result.config['log']}" for result in results]
    left = [0.0] * len(results)
    for part, colour in zip(parts[kind], COLOURS, strict=False):
        values = [result.total(part) / 1e6 for result in results]
        axis.barh(names, values, left=left, color=colour, label=part.removeprefix(f"{kind}_").removesuffix("_ns"))
        left = [a + b for a, b in zip(left, values, strict=True)]
    axis.invert_yaxis()
    axis.set_xlabel(f"ms, {kind}" + (" on this machine, not QEMU's" if kind == "measured" else ""))
    figure.legend(loc="outside lower center", ncols=len(parts[kind]))
    return figure
