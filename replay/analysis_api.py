"""What explains and shows results: part of what `replay.api` offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from matplotlib.figure import Figure

    from replay.analysis.explain import Explanation
    from replay.reproducing.seed import Seed
    from replay.results.result import Result


def explain(a: Result, b: Result | None = None) -> Explanation:
    """Which causes the figures of a result have, or the difference of two; they sum exactly.

    `.rows` and `.frame` have metric, cause, unit (ps or bytes), a, b, difference; see replay.analysis.explain. Raises
    UsageError when a result's own cost table is not there any more.
    """
    from replay.analysis.explain import explain as take_apart

    return take_apart(a, b)


def explain_rounds(result: Result) -> list[dict[str, Any]]:
    """The same for one result's total time, round by round: a dict a round, ps by phase."""
    from replay.analysis.explain import rounds

    return rounds(result)


def explain_seed(*, progress: Callable[[int, str], None] | None = None) -> Seed:
    """The thread's question with control arms: how many of the 202 ms at 96 GiB each difference explains.

    `.arms` and `.prices` are rows, `.waterfall` an Explanation, `.as_dict()` has all with what is shown and what not.
    """
    from replay.reproducing.seed import settled

    return settled(progress)


def plot(kind: str, *things: Any) -> Figure:
    """A chart as a matplotlib figure: kind "timeline", "rounds", "phases", "waterfall", "compare" of results (or paths
    of result files), "heatmap" of a trace. replay.analysis.charts.KINDS says what each shows. Raises UsageError.
    """
    from replay.analysis import charts

    if kind == "heatmap":
        from replay.analysis import heat_plot
        from replay.errors import UsageError
        from replay.traces_api import heatmap

        if len(things) != 1:
            raise UsageError(f"a heatmap is of one trace, not of {len(things)}")
        return heat_plot.draw(heatmap(things[0]))
    return charts.draw(kind, [_loaded(thing) for thing in things])


def report(
    results: Result | str | os.PathLike[str] | Sequence[Result | str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    trace: Any = None,
    best: str = "total-time",
) -> None:
    """One HTML file, offline: of one to six results (or paths of them), or of the folder of a finished sweep.

    trace: what a result was made of, for the heatmap; found by itself where it is a shipped one, or a workload. best:
    the figure by which a sweep is ranked. Raises UsageError, ResultError, ReplayError.
    """
    from pathlib import Path

    from replay.reporting import report as reports

    given: list[Any] = list(results) if isinstance(results, list | tuple) else [results]
    folder = given[0] if len(given) == 1 and not hasattr(given[0], "rows") else None
    if folder is not None and Path(folder).is_dir():
        from replay.api import load_sweep, rank_sweep
        from replay.reporting import sweep_report

        sweep = load_sweep(folder)
        text = sweep_report.of_sweep(sweep, rank_sweep(folder, best=best).to_dicts(), best)
    else:
        found = [_loaded(one) for one in given]
        opened = _trace_of(found[0], trace) if found else None
        text = reports.of_results(found, None if opened is None else reports.heat_of(opened))
    reports.write(text, output)


def export_perfetto(result: Result | str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Write a result as a JSON trace that ui.perfetto.dev opens. Raises ReplayError when it cannot be written."""
    import json

    from replay.reporting import perfetto
    from replay.reporting.report import write

    write(json.dumps(perfetto.trace_events(_loaded(result)), separators=(",", ":")), output)


def _loaded(thing: Any) -> Result:
    from replay.api import load

    return thing if hasattr(thing, "rows") else load(thing)


def _trace_of(result: Result, given: Any) -> Any:
    """The trace that a result was made of: as given, or found by its name when its digest is the same; else None."""
    from replay.api import open_trace
    from replay.errors import ReplayError

    if given is not None:
        return open_trace(given) if isinstance(given, str) or hasattr(given, "__fspath__") else given
    told = result.provenance["trace"]
    try:
        found = open_trace((told["name"] or "").removesuffix(".parquet"))
        return found if found.digest == told["sha256"] else None
    except ReplayError:
        return None


def doctor() -> list[dict[str, Any]]:
    """What this installation and machine can do: a dict a finding, with part, status, told, advice (how to get it)."""
    from replay.checkup import checkup

    return checkup()
