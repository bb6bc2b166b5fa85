"""Answers made of many replays, as Python calls: thin, like the rest of `replay.api`, which offers them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replay.answers.advice import Advice
    from replay.answers.bound import Bound
    from replay.answers.fleet import Fleet
    from replay.answers.pareto import Pareto
    from replay.synthesis.synthetic import Synthetic
    from replay.trace.reader import Trace


def advise(trace: Trace | Synthetic | str | os.PathLike[str], **options: Any) -> Advice:
    """What it takes for a guest to converge: bandwidth, design, rings, policy. See replay.answers.advise.advise."""
    from replay.answers.advise import advise as search

    return search(trace, **options)


def bound(trace: Trace | Synthetic | str | os.PathLike[str], **options: Any) -> Bound:
    """The optimum with hindsight, and designs' and policies' distance from it. See replay.answers.bound.bound."""
    from replay.answers.bound import bound as compare_with_optimum

    return compare_with_optimum(trace, **options)


def fleet(folder: str | os.PathLike[str], **options: Any) -> Fleet:
    """Every trace of a folder at one bandwidth, those in trouble first. See replay.answers.fleet.fleet."""
    from replay.answers.fleet import fleet as look_at_all

    return look_at_all(folder, **options)


def pareto(
    folder: str | os.PathLike[str], by: Sequence[str] | None = None, figures: Sequence[str] | None = None
) -> Pareto:
    """The settings of a finished sweep that no other beats in every figure. See replay.answers.pareto.pareto."""
    from replay.answers.pareto import pareto as front

    return front(folder, by, figures)
