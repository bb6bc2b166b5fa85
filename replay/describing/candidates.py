"""What a fit chooses among: the workloads there are, alone and beside one another, and their parameters.

A candidate is a recipe from parameters to the parts of a generator config. Every part but the first has a share of the
rate, of what the parts behind it left; the first has the rest. Parameters are kept where a step of one is
about as much everywhere: sizes and times as logarithms, shares as logits. Sizes are relative to the number of pages
that the trace writes, so that what was found on a part of the trace serves for all of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Figures = dict[str, Any]
Part = dict[str, Any]
Parameters = dict[str, float]
Make = Callable[[Parameters, Figures, int], Part]  # parameters, a trace's figures, writes a second


@dataclass(frozen=True)
class Candidate:
    """A mixture: the name of each part's workload, where the search begins ("0 size": part 0's size)."""

    workloads: tuple[str, ...]
    start: Parameters

    @property
    def name(self) -> str:
        """The workloads of its parts."""
        return " + ".join(self.workloads)

    def build(self, p: Parameters, f: Figures) -> list[Part]:
        """The parts for a trace with the figures `f`: together they write as often as it does."""
        left = max(len(self.workloads), round(f["rate"]["mean"]))
        parts = []
        for index in range(len(self.workloads) - 1, -1, -1):
            wanted = round(left * _share(p[f"{index} share"])) if index else left
            rate = min(max(1, wanted), left - index)
            left -= rate
            own = {key.partition(" ")[2]: value for key, value in p.items() if key.startswith(f"{index} ")}
            parts.append(MAKES[self.workloads[index]](own, f, rate))
        return parts[::-1]

    def with_part(self, at: Parameters, workload: str, start: Parameters, share: float) -> Candidate:
        """The same, its parameters at `at`, with one more part that has `share` of the writes."""
        index = len(self.workloads)
        own = {f"{index} {key}": value for key, value in start.items()}
        return Candidate((*self.workloads, workload), at | own | {f"{index} share": _logit(share)})


def candidates(f: Figures) -> list[Candidate]:
    """Every workload alone, and beside an idle guest, with first guesses from a trace's figures."""
    starts = first_guesses(f)
    alone = [Candidate((name,), {f"0 {key}": value for key, value in start.items()}) for name, start in starts.items()]
    share = min(0.95, max(0.05, f["skew"]["top_1pct_share"]))
    timers = {"pages": math.log(max(3.0, 0.03 * f["written_pages"]) / f["written_pages"])}
    beside = [one.with_part(one.start, "idle", timers, share) for one in alone if one.name != "idle"]
    return [*alone, *beside]


def first_guesses(f: Figures) -> dict[str, Parameters]:
    """Where the search of each workload's parameters begins."""
    exponent = min(3.0, max(0.05, f["skew"]["zipf_exponent"]))
    top = min(0.98, max(0.15, f["skew"]["top_10pct_share"]))
    extent = max(1.0, f["windows"][0]["extents"]["p95"])
    guesses: dict[str, Parameters] = {
        "idle": {"pages": 0.0},
        "uniform": {"size": 0.0},
        "sequential": {"size": 0.0},
        "zipf": {"size": 0.5, "skew": math.log(exponent)},
        "hot-cold": {"size": 0.1, "hot": _logit(0.1), "writes": _logit(top)},
        "file-cache": {"size": 0.1, "largest": math.log(extent), "metadata": _logit(0.2)},
    }
    if f["period"] is not None:
        period = math.log(f["period"]["period_ns"])
        guesses["phases"] = {"size": 0.1, "period": period, "busy": 0.0, "quiet": -2.0, "set": _logit(0.5)}
    return guesses


def _idle(p: Parameters, f: Figures, rate: int) -> Part:
    """Scattered over all of memory."""
    return {"workload": "idle", "rate": rate, "pages": min(_pages(p["pages"], f), _memory_pages(f))}


def _uniform(p: Parameters, f: Figures, rate: int) -> Part:
    return {"workload": "uniform", "rate": rate, "within": _within(p, f)}


def _sequential(p: Parameters, f: Figures, rate: int) -> Part:
    return {"workload": "sequential", "rate": rate, "within": _within(p, f)}


def _zipf(p: Parameters, f: Figures, rate: int) -> Part:
    skew = round(min(8.0, math.exp(p["skew"])), 3)
    return {"workload": "zipf", "rate": rate, "skew": skew, "within": _within(p, f)}


def _hot_cold(p: Parameters, f: Figures, rate: int) -> Part:
    hot, writes = (round(_share(p[key]), 4) for key in ("hot", "writes"))
    return {"workload": "hot-cold", "rate": rate, "hot": hot, "writes": writes, "within": _within(p, f)}


def _file_cache(p: Parameters, f: Figures, rate: int) -> Part:
    largest = 1 << min(24, max(0, round(p["largest"] / math.log(2))))
    metadata = round(_share(p["metadata"]), 4)
    return {
        "workload": "file-cache", "rate": rate, "largest": largest, "metadata": metadata, "within": _within(p, f)
    }  # fmt: skip


def _phases(p: Parameters, f: Figures, rate: int) -> Part:
    """Its rate is that of busy spells; the mean over a period is the rate asked for."""
    busy, quiet, part = (round(_share(p[key]), 4) for key in ("busy", "quiet", "set"))
    mean = busy + (1 - busy) * quiet
    return {
        "workload": "phases", "rate": max(1, round(rate / max(mean, 1e-3))),
        "period": f"{max(1_000_000, round(math.exp(min(p['period'], 40))))}ns", "busy": busy, "quiet": quiet,
        "working-set": part, "within": _within(p, f),
    }  # fmt: skip


def _within(p: Parameters, f: Figures) -> str:
    """As many pages as `size` says, around the middle of those that the trace writes."""
    n_pages, size = _memory_pages(f), min(_pages(p["size"], f), _memory_pages(f))
    low = min(max(0, f["middle_page"] - size // 2), n_pages - size)
    return f"{low * f['page_size']}-{(low + size) * f['page_size']}"


def _pages(log_ratio: float, f: Figures) -> int:
    return max(1, round(f["written_pages"] * math.exp(min(log_ratio, 30.0))))


def _memory_pages(f: Figures) -> int:
    return int(f["memory_bytes"] // f["page_size"])


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


def _share(logit: float) -> float:
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, logit))))


MAKES: dict[str, Make] = {
    "idle": _idle,
    "uniform": _uniform,
    "sequential": _sequential,
    "zipf": _zipf,
    "hot-cold": _hot_cold,
    "file-cache": _file_cache,
    "phases": _phases,
}
