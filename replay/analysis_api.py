"""What explains and shows results: part of what `replay.api` offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

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
