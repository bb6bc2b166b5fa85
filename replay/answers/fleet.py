"""A folder of guests at one setting: which will never converge, worst first.

Every trace of the folder (and of folders in it) is replayed from several moments of its recording. A guest *never*
converges when none of these migrations was over within give-up, *always* when all were. Worst first: by the share that
converged, then, of those that never did, by the least downtime that hindsight would leave (replay.answers.hindsight,
from the start of the recording), of the others by their total time. Where hindsight finds no switchover within the
limit either, no design helps: only bandwidth, a longer downtime, or a slower guest. Files that are no sound traces are
named and left out.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replay import plugins
from replay.analysis.share import NAME, interval
from replay.answers.bound import source_of
from replay.answers.hindsight import hindsight
from replay.answers.search import means
from replay.answers.trials import Trials
from replay.config import RunConfig, make
from replay.errors import TraceError, UsageError
from replay.units import NS_PER_S, PS_PER_MS, PS_PER_NS

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

STARTS, GIVE_UP = 4, "60s"
NEVER, SOMETIMES, ALWAYS = "never", "sometimes", "always"


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """What `replay.fleet` returns. rows: one dict a guest, worst first; skipped: {"file", "error"} of what is no sound
    trace."""

    rows: list[dict[str, Any]]
    skipped: list[dict[str, str]]
    config: dict[str, Any]
    starts: int

    @property
    def frame(self) -> pl.DataFrame:
        """`guest`, `file`, `converges` (never, sometimes, always), `completed` of `starts` with the interval `low` to
        `high`, means over the completed ones (`total_ns`, `downtime_ns`, `sent_bytes`, `stall_ns`, `slowed`,
        and, over all, what vCPUs lost by cause: columns.SHARES),
        `writes_per_s`, `memory_bytes`, and hindsight's `least_downtime_ns` and `possible` (null where not bounded).
        """
        import polars as pl

        return pl.DataFrame(self.rows, infer_schema_length=None)

    def as_dict(self) -> dict[str, Any]:
        """The object that `replay fleet --json` prints."""
        return {
            "guests": self.rows, "skipped": self.skipped, "config": self.config, "starts": self.starts,
            "interval_of": NAME,
        }  # fmt: skip

    def plot(self) -> Figure:
        """The share that converges of each guest, and how long it takes. Needs matplotlib."""
        from replay.analysis.answer_plots import fleet_figure

        return fleet_figure(self.as_dict())


def fleet(
    folder: str | os.PathLike[str],
    *,
    starts: int = STARTS,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Fleet:
    """Every trace in a folder at one setting.

    starts: moments of each recording at which a migration begins. options: those of `replay.run` but start; give_up is
    60 s unless given. progress: called with (guests done, guests in all). Raises UsageError when there is no trace.
    """
    if "start" in options:
        raise UsageError("fleet chooses start itself: leave it out")
    config = make({"give_up": GIVE_UP} | options)
    plugins.parse("log", config.log), plugins.parse("design", config.design)
    if config.policy:
        plugins.parse("policy", config.policy)
    place = Path(folder)
    if not place.is_dir():
        raise UsageError(f"{folder}: no such folder; give one that holds traces (*.parquet)")
    files = sorted(path for path in place.rglob("*.parquet") if path.is_file())
    if not files:
        raise UsageError(f"{folder}: holds no trace (*.parquet)")
    rows, skipped = [], []
    for number, path in enumerate(files):
        try:
            with Trials(path, threads=threads) as trials:
                rows.append({"guest": _name(path, place), "file": str(path)} | _row(trials, config, starts))
        except TraceError as error:
            skipped.append({"file": str(path), "error": str(error)})
        if progress is not None:
            progress(number + 1, len(files))
    rows.sort(key=_trouble)
    told = {key: value for key, value in config.as_dict().items() if key != "start"}
    return Fleet(rows=rows, skipped=skipped, config=told, starts=starts)


def _name(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder).with_suffix(""))


def _row(trials: Trials, config: RunConfig, starts: int) -> dict[str, Any]:
    results = trials.all([dataclasses.replace(config, start=start) for start in trials.starts(starts)])
    completed = sum(result.status == "completed" and not result.lost_pages for result in results)
    low, high = interval(completed, starts)
    meta = trials.guest.metadata
    row: dict[str, Any] = {
        "converges": NEVER if not completed else ALWAYS if completed == starts else SOMETIMES,
        "completed": completed, "starts": starts, "low": low, "high": high, **means(results),
        "writes_per_s": trials.guest.n_events * NS_PER_S / meta.duration_ns,
        "memory_bytes": results[0].config["memory"],
        "least_downtime_ns": None, "possible": None,
    }  # fmt: skip
    try:
        source, channel = source_of(trials.guest, config)
    except UsageError:
        return row
    found = hindsight(
        source, channel, loop=config.at_end == "loop", until_ps=config.give_up * PS_PER_NS,
        limit_ps=config.downtime_limit * PS_PER_MS, all_data=config.zero_page_detection == "none",
    )  # fmt: skip
    return row | {
        "least_downtime_ns": found.best.downtime_ps // PS_PER_NS,
        "possible": found.soonest is not None and found.soonest.at_ps <= config.give_up * PS_PER_NS,
    }


def _trouble(row: dict[str, Any]) -> tuple[float, float, str]:
    share = row["completed"] / row["starts"]
    worse = row["total_ns"] if row["completed"] else row["least_downtime_ns"]
    return share, -(worse or 0), row["guest"]
