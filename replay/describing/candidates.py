"""What a fit chooses among: the workloads there are, alone and with an idle guest beside them, and their parameters.

A candidate is a recipe from parameters to the parts of a generator config. Parameters are kept where a step of one is
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

LARGEST_FILE = 1 << 24


@dataclass(frozen=True)
class Candidate:
    """A recipe: its name, where the search begins, and the parts that it makes of parameters for a trace's figures."""

    name: str
    start: Parameters
    build: Callable[[Parameters, Figures], list[Part]]
    n_parts: int = 1


def candidates(f: Figures) -> list[Candidate]:
    """Every recipe, with first guesses from a trace's figures."""
    mains = _mains(f)
    alone = [Candidate(name, start, _alone(make)) for name, (start, make) in mains.items()]
    idle = Candidate("idle", {"pages": 0.0}, lambda p, f: [_idle(_rate(f), p["pages"], f)])
    share = min(0.95, max(0.05, f["skew"]["top_1pct_share"]))
    timers = math.log(max(3.0, 0.03 * f["written_pages"]) / f["written_pages"])
    beside = {"idle share": _logit(share), "idle pages": timers}
    mixed = [Candidate(f"idle + {name}", beside | start, _beside(make), 2) for name, (start, make) in mains.items()]
    return [idle, *alone, *mixed]


def _mains(f: Figures) -> dict[str, tuple[Parameters, Callable[[Parameters, Figures, int], Part]]]:
    exponent = min(3.0, max(0.05, f["skew"]["zipf_exponent"]))
    top = min(0.98, max(0.15, f["skew"]["top_10pct_share"]))
    extent = max(1.0, f["windows"][0]["extents"]["p95"])
    recipes: dict[str, tuple[Parameters, Callable[[Parameters, Figures, int], Part]]] = {
        "uniform": ({"size": 0.0}, _uniform),
        "sequential": ({"size": 0.0}, _sequential),
        "zipf": ({"size": 0.5, "skew": math.log(exponent)}, _zipf),
        "hot-cold": ({"size": 0.1, "hot": _logit(0.1), "writes": _logit(top)}, _hot_cold),
        "file-cache": ({"size": 0.1, "largest": math.log(extent), "metadata": _logit(0.2)}, _file_cache),
    }
    if f["period"] is not None:
        start = {
            "size": 0.1,
            "period": math.log(f["period"]["period_ns"]),
            "busy": 0.0,
            "quiet": -2.0,
            "set": _logit(0.5),
        }
        recipes["phases"] = (start, _phases)
    return recipes


def _alone(make: Callable[[Parameters, Figures, int], Part]) -> Callable[[Parameters, Figures], list[Part]]:
    return lambda p, f: [make(p, f, _rate(f))]


def _beside(make: Callable[[Parameters, Figures, int], Part]) -> Callable[[Parameters, Figures], list[Part]]:
    def build(p: Parameters, f: Figures) -> list[Part]:
        rate = _rate(f)
        quiet = min(max(1, round(rate * _share(p["idle share"]))), max(1, rate - 1))
        return [_idle(quiet, p["idle pages"], f), make(p, f, max(1, rate - quiet))]

    return build


def _rate(f: Figures) -> int:
    return max(1, round(f["rate"]["mean"]))


def _idle(rate: int, pages: float, f: Figures) -> Part:
    """Scattered over all of memory."""
    return {"workload": "idle", "rate": rate, "pages": min(_pages(pages, f), _memory_pages(f))}


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
