"""Constants that are chosen so that some published cells come out right: fits, and nothing else is.

Prices of the cost table enter a total time as counts x prices, so a few of them follow from linear least squares over
relative errors; the counts hardly depend on the prices, and a second and third pass settle what does. An option is
searched by false position on the error of its one cell, which must change its sign between the two ends.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from replay.errors import UsageError
from replay.migration import costs
from replay.reproducing.runs import Cell, Runs, figure_of
from replay.reproducing.scenario import UNITS_NS, Fit, Options, Place, Scenario
from replay.work import INDEX

PASSES = 4
SEARCH_STEPS = 8
CLOSE_PCT = 0.5
_FAR_PCT = 1000.0


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What a fit came to: `values` by entry (ns) or option, and the error that is left in its cells (%)."""

    fit: Fit
    values: dict[str, float]
    left_pct: dict[Place, float]

    def as_dict(self) -> dict[str, Any]:
        """The same as a report shows it."""
        return {
            "name": self.fit.name,
            "values": self.fit.by_hand or self.values,
            "unit": "ns" if self.fit.costs else "",
            "by_hand": bool(self.fit.by_hand),
            "cells": [list(cell) for cell in self.left_pct],
            "left_pct": [round(left, 2) if math.isfinite(left) else None for left in self.left_pct.values()],
        }


def fitted(fit: Fit, scenario: Scenario, cells: list[Cell], published: dict[Place, float], runs: Runs) -> Fitted:
    """Choose the constants of `fit` by replaying its cells. Raises UsageError when the cells do not determine them."""
    own = [cell for cell in cells if cell.place in fit.cells]
    if fit.by_hand:
        return _with_errors(Fitted(fit=fit, values={}, left_pct={}), scenario, own, published, runs)
    if fit.costs:
        return _prices(fit, scenario, own, published, runs)
    return _option(fit, scenario, own, published, runs)


def applied(found: list[Fitted], cell: Cell) -> Cell:
    """A cell with the constants that were chosen."""
    options: Options = dict(cell.options)
    for one in found:
        if one.fit.costs:
            options["costs"] = _spelled(str(options.get("costs", costs.DEFAULT)), one.values)
        else:
            options |= one.values
    return dataclasses.replace(cell, options=options)


def _spelled(table: str, values: dict[str, float]) -> str:
    if not values:
        return table
    entries = ",".join(f"{name}={value:.3f}" for name, value in values.items())
    return f"{table}{',' if ':' in table else ':'}{entries}"


def _prices(fit: Fit, scenario: Scenario, own: list[Cell], published: dict[Place, float], runs: Runs) -> Fitted:
    for name in fit.costs:
        if name not in INDEX:
            raise UsageError(
                f"{scenario.name}: fit {fit.name!r}: {name} is no price of a counter (replay list counters)"
            )
    values: dict[str, float] = {}
    chosen = Fitted(fit=fit, values=values, left_pct={})
    for _ in range(PASSES):
        results = runs.all([applied([chosen], cell) if values else cell for cell in own])
        table = costs.load(str(own[0].options.get("costs", costs.DEFAULT)))
        now = np.array([values.get(name, table.prices_ps[name] / 1000) for name in fit.costs])
        goal = np.array([published[cell.place] for cell in own])
        reached = np.array([figure_of(results[cell.place], cell, scenario.unit) for cell in own])
        if not np.isfinite(reached).all():
            raise UsageError(f"{scenario.name}: fit {fit.name!r}: a migration of its cells does not converge")
        counts = np.array([[results[cell.place].total(name) for name in fit.costs] for cell in own], dtype=float)
        slope = counts / UNITS_NS[scenario.unit] / goal[:, None]
        step, _, rank, _ = np.linalg.lstsq(slope, (goal - reached) / goal, rcond=None)
        if rank < len(fit.costs):
            raise UsageError(f"{scenario.name}: fit {fit.name!r}: its cells do not tell {', '.join(fit.costs)} apart")
        new = [round(max(0.0, value), 3) for value in now + step]
        if new == [round(value, 3) for value in now]:
            break
        values = dict(zip(fit.costs, new, strict=True))
        chosen = Fitted(fit=fit, values=values, left_pct={})
    return _with_errors(chosen, scenario, own, published, runs)


def _option(fit: Fit, scenario: Scenario, own: list[Cell], published: dict[Place, float], runs: Runs) -> Fitted:
    if len(own) != 1:
        raise UsageError(f"{scenario.name}: fit {fit.name!r}: an option is fitted on one cell, not {len(own)}")

    def at(value: float) -> tuple[float, float, Fitted]:
        values = {fit.option: round(value) if fit.within[1] > 1 else round(value, 5)}
        one = _with_errors(Fitted(fit=fit, values=values, left_pct={}), scenario, own, published, runs)
        error = one.left_pct[own[0].place]
        return values[fit.option], min(error, _FAR_PCT), one

    low, high = at(fit.within[0]), at(fit.within[1])
    if low[1] * high[1] > 0:
        raise UsageError(
            f"{scenario.name}: fit {fit.name!r}: {fit.option} from {low[0]:g} to {high[0]:g} leaves {low[1]:+.1f} to "
            f"{high[1]:+.1f} %: the published figure is not between them"
        )
    best = min(low, high, key=lambda end: abs(end[1]))
    for _ in range(SEARCH_STEPS):
        if abs(best[1]) <= CLOSE_PCT:
            break
        middle = at((low[0] * high[1] - high[0] * low[1]) / (high[1] - low[1]))
        if low[1] * middle[1] > 0:
            low, high = middle, (high[0], high[1] / 2, high[2])
        else:
            low, high = (low[0], low[1] / 2, low[2]), middle
        best = min(best, middle, key=lambda end: abs(end[1]))
    return best[2]


def _with_errors(one: Fitted, scenario: Scenario, own: list[Cell], published: dict[Place, float], runs: Runs) -> Fitted:
    results = runs.all([applied([one], cell) for cell in own])
    left = {}
    for cell in own:
        reached = figure_of(results[cell.place], cell, scenario.unit)
        known = math.isfinite(reached) and math.isfinite(published[cell.place])
        left[cell.place] = 100 * (reached / published[cell.place] - 1) if known else math.inf
    return dataclasses.replace(one, left_pct=left)
