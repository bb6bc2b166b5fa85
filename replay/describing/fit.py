"""Fits: which workload, or mixture of workloads, has figures nearest to a trace's, and how near.

Every candidate (replay.describing.candidates) is generated, described (replay.describing.stat) and scored against the
trace; its parameters are improved by a pattern search: one step up or down in each, steps halved when none helps. All
candidates are tried on a short part of the trace; the best is tried with one more part of every kind; the best ones are
tried again on a long part, and the best of those is generated at full length and set beside the whole trace. The score
is the weighted mean of |log(generated / original)| over working sets, extents, runs, popularity, reuse, the rate's
variation and period, each cut off at a factor of e^2; the mean rate is met by construction. Of two that are nearly as
good the one with fewer parts is taken.

A fit knows nothing but these figures. It is not the program: what comes after what, which addresses, how vCPUs share
the work, and everything that the recording did not see are not in it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from replay.describing.against import Row, compare
from replay.describing.candidates import Candidate, Figures, Parameters, Part, candidates, first_guesses
from replay.describing.stat import stat
from replay.errors import UsageError
from replay.files import replacing
from replay.synthesis import config_file, synthetic
from replay.trace.reader import Trace
from replay.units import spell_duration

if TYPE_CHECKING:
    from replay.synthesis.synthetic import Synthetic

SHORT_EVENTS, LONG_EVENTS, LEAST_NS = 150_000, 1_500_000, 400_000_000
TRIES, LONG_TRIES, FINALISTS = 20, 20, 3
STEPS = (0.6, 0.3, 0.15)
CUT_OFF = 2.0
PART_COST = 0.02  # one more part must better the score by this much
ADDED_SHARE = 0.2  # of the writes, where the search for one more part begins
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The best mixture found: `parts` and `guest` as in a config file, figures of both, and every candidate's score."""

    name: str
    score: float  # weighted mean of |log(generated / original)|, 0: all figures alike
    parts: list[Part]
    guest: dict[str, Any]
    original: Figures
    generated: Figures
    tried: list[tuple[str, float]]  # candidate and score on the part of the trace that all were tried on, best first
    source: str  # name and digest of the trace

    def rows(self) -> list[Row]:
        """Figure by figure: the trace, the generated guest, the error."""
        return compare(self.original, self.generated)

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "fit": self.name, "score": self.score, "source": self.source, "guest": self.guest, "parts": self.parts,
            "tried": [{"candidate": name, "score": score} for name, score in self.tried],
            "rows": [row._asdict() for row in self.rows()],
            "original": self.original, "generated": self.generated,
        }  # fmt: skip

    def text(self) -> str:
        """The generator config: `replay generate FILE` takes it."""
        told = {"source": self.source, "title": self.original["title"], "score": round(self.score, 4)}
        for row in self.rows():
            if row.error is not None and row.figure in _TOLD:
                told[row.figure.replace(" ", "-").replace("-%", "pct").replace(".", "_")] = (
                    f"{100 * row.error + 0.0:+.1f} %"
                )
        comment = (
            f"A fit of {self.name} to {self.source}.\nIt has figures near the trace's (table [fit]: the errors); "
            "it is not the program that was recorded."
        )
        return config_file.toml(self.guest, self.parts, told, comment)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the config; the name must end in .toml. Raises UsageError."""
        target = Path(path)
        check_name(path)
        try:
            with replacing(target) as temporary:
                temporary.write_text(self.text(), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{target}: cannot be written: {error.strerror or error}") from None


_TOLD = ("rate", "pages ever written", "mean run", "writes to the top 10 % of pages")


def check_name(path: str | os.PathLike[str]) -> None:
    """Raises UsageError for a name that `replay generate` would not take for a config."""
    if Path(path).suffix != config_file.SUFFIX:
        raise UsageError(f"{path}: a generator config's name must end in {config_file.SUFFIX}")


def fit(trace: Trace | Synthetic, *, seed: int = 1, progress: Progress | None = None) -> Fit:
    """The best mixture for a trace. progress: called with (guests generated, guests to generate at most).

    Raises UsageError for pages of other than 4096 bytes, TraceError for a damaged trace.
    """
    if trace.metadata.page_size != synthetic.PAGE_BYTES:
        raise UsageError(f"workloads write pages of {synthetic.PAGE_BYTES} bytes, not of {trace.metadata.page_size}")
    original = stat(trace).figures
    recipes = candidates(original)
    guesses = first_guesses(original)
    steps = _Count((len(recipes) + len(guesses)) * TRIES + FINALISTS * LONG_TRIES + 1, progress)
    short, long = (_part(trace, original, events) for events in (SHORT_EVENTS, LONG_EVENTS))
    tried = sorted((_search(recipe, recipe.start, short, TRIES, seed, steps) for recipe in recipes), key=_by_score)
    more = [tried[0].recipe.with_part(tried[0].at, name, start, ADDED_SHARE) for name, start in guesses.items()]
    tried = sorted([*tried, *(_search(one, one.start, short, TRIES, seed, steps) for one in more)], key=_by_score)
    best = tried[:FINALISTS]
    if long is not short:
        best = sorted((_search(f.recipe, f.at, long, LONG_TRIES, seed, steps) for f in best), key=_by_score)
    parts = best[0].recipe.build(best[0].at, original)
    guest = {
        "memory": str(trace.metadata.memory_bytes),
        "vcpus": trace.metadata.n_vcpus,
        "duration": spell_duration(trace.metadata.duration_ns),
        "seed": seed,
    }
    generated = _figures(guest, parts, seed)
    steps.finish()
    return Fit(
        name=best[0].recipe.name, score=score(original, generated), parts=parts, guest=guest, original=original,
        generated=generated, tried=[(found.recipe.name, found.score) for found in tried],
        source=f"{trace.path.name} (sha256 {trace.digest})",
    )  # fmt: skip


class _Count:
    """Guests generated so far, out of how many at most."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self._progress = 0, total, progress

    def step(self) -> None:
        self.done += 1
        if self._progress is not None:
            self._progress(self.done, self.total)

    def finish(self) -> None:
        self.done = self.total - 1
        self.step()


@dataclass(frozen=True)
class _Found:
    recipe: Candidate
    at: Parameters
    score: float


def _by_score(found: _Found) -> float:
    return found.score + PART_COST * len(found.recipe.workloads)


def _search(recipe: Candidate, start: Parameters, figures: Figures, tries: int, seed: int, steps: _Count) -> _Found:
    """The best parameters that `tries` generated guests find."""
    guest = {
        "memory": str(figures["memory_bytes"]), "vcpus": figures["n_vcpus"], "duration": f"{figures['duration_ns']}ns"
    }  # fmt: skip
    seen: dict[str, float] = {}

    def of(at: Parameters) -> float:
        parts = recipe.build(at, figures)
        key = repr(parts)
        if key not in seen:
            steps.step()
            seen[key] = score(figures, _figures(guest, parts, seed))
        return seen[key]

    at, best = dict(start), of(start)
    for step in STEPS:
        improved = True
        while improved and len(seen) < tries:
            improved = False
            for name in at:
                for move in (step, -step):
                    if len(seen) >= tries:
                        break
                    moved = at | {name: at[name] + move}
                    value = of(moved)
                    if value < best:
                        at, best, improved = moved, value, True
                        break
    return _Found(recipe, at, best)


def _figures(guest: dict[str, Any], parts: list[Part], seed: int) -> Figures:
    """The figures of a generated guest; one too quiet to write anything has none of its own and scores worst."""
    shared = {key: value for key, value in guest.items() if key != "seed"}
    made = synthetic.open_workload(config_file.spelled(shared, parts, "fit"), seed=seed)
    return stat(made).figures


def _part(trace: Trace | Synthetic, original: Figures, events: int) -> Figures:
    """The figures of the middle of a trace, about as long as `events` events; of all of it when it is no longer."""
    duration = original["duration_ns"]
    length = max(LEAST_NS, int(duration * events / original["n_events"]))
    if length >= duration:
        return original
    begin = (duration - length) // 2
    columns: list[list[Any]] = [[], [], []]
    for window in trace.windows(1 << 18, begin):
        last = int(np.searchsorted(window.t_ns, np.uint64(begin + length)))
        for column, values in zip(columns, window, strict=True):
            column.append(values[:last])
        if last < window.t_ns.size:
            break
    t_ns, page, origin = (np.concatenate(column) for column in columns)
    if not t_ns.size:
        return original
    meta = trace.metadata
    part = Trace.from_arrays(
        t_ns - np.uint64(begin), page, origin & np.uint16(0x1FFF), memory_bytes=meta.memory_bytes,
        n_vcpus=meta.n_vcpus, duration_ns=length,
    )  # fmt: skip
    return stat(part).figures


def score(original: Figures, generated: Figures) -> float:
    """The weighted mean of |log(generated / original)| over the figures of a fit; 0: all alike, at most CUT_OFF."""
    terms: list[tuple[float, float]] = [
        (1.0, _off(original["written_pages"], generated["written_pages"])),
        (1.0, _off(original["runs"]["mean"], generated["runs"]["mean"])),
        (0.5, min(CUT_OFF, 2 * abs(original["rate"]["variation"] - generated["rate"]["variation"]))),
        (0.5, _period_off(original["period"], generated["period"])),
    ]
    terms += [(1.0, _off(original["skew"][k], generated["skew"][k])) for k in ("top_1pct_share", "top_10pct_share")]
    terms += [
        (0.5, _off(original["reuse"][k]["p50"], generated["reuse"][k]["p50"])) for k in ("time_ns", "distance_pages")
    ]
    for a, b in zip(original["windows"], generated["windows"], strict=True):
        terms.append((2.0, _off(a["mean_unique_pages"], b["mean_unique_pages"])))
        terms.append((0.5, _off(a["extents"]["mean"], b["extents"]["mean"])))
        terms.append((0.5, _off(a["extents"]["half_of_pages_in"], b["extents"]["half_of_pages_in"])))
    return sum(weight * term for weight, term in terms) / sum(weight for weight, _ in terms)


def _off(original: float | None, generated: float | None) -> float:
    if original is None or generated is None:
        return 0.0 if original is generated else CUT_OFF
    if original <= 0 or generated <= 0:
        return 0.0 if original == generated else CUT_OFF
    return min(CUT_OFF, abs(math.log(generated / original)))


def _period_off(original: dict[str, float] | None, generated: dict[str, float] | None) -> float:
    if original is None or generated is None:
        return 0.0 if original is generated else 1.0
    return min(1.0, _off(original["period_ns"], generated["period_ns"]))
