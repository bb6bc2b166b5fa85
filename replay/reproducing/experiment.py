"""Replay a published experiment: make its fits, replay every cell, ask what the open conditions are worth."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from replay.reproducing import fitting, runs
from replay.reproducing.report import FIT, PREDICTION, Figure, Report, Sign, WhatIf, signs_of
from replay.reproducing.runs import Cell, Progress, Runs
from replay.reproducing.scenario import CPU_SHARE, Place, Scenario, Sensitivity


def replayed(scenario: Scenario, *, sensitivity: bool = True, progress: Progress | None = None) -> Report:
    """Every cell of a scenario of replays. Raises UsageError for a scenario that cannot be replayed."""
    at_work = Runs(progress)
    published = {
        (table.label(row), column): value
        for table in scenario.tables
        for (row, column), value in table.published.items()
    }
    cells = runs.cells(scenario)
    found, figures = _figures(scenario, cells, published, at_work, None)
    what_ifs = tuple(
        _what_if(scenario, one, cells, published, at_work, found, figures)
        for one in scenario.sensitivities
        if sensitivity
    )
    return Report(
        experiment=scenario.name,
        title=scenario.title,
        source=scenario.source,
        unit=scenario.unit,
        conclusion=scenario.conclusion,
        measured=False,
        figures=tuple(figures.values()),
        signs=_signs(scenario, figures),
        fits=tuple(one.as_dict() for one in found),
        assumptions=scenario.assumptions,
        what_ifs=what_ifs,
        provenance={key: value for key, value in at_work.provenance.items() if key not in ("log", "design", "costs")}
        | {"replays": at_work.done},
    )


def _figures(
    scenario: Scenario,
    cells: list[Cell],
    published: dict[Place, float],
    at_work: Runs,
    found: list[fitting.Fitted] | None,
) -> tuple[list[fitting.Fitted], dict[Place, Figure]]:
    """The fits (made now, unless they are given) and every cell with them."""
    if found is None:
        found = []
        for fit in scenario.fits:
            ready = [fitting.applied(found, cell) for cell in cells]
            found.append(fitting.fitted(fit, scenario, ready, published, at_work))
    chosen = {place for fit in scenario.fits for place in fit.cells}
    results = at_work.all([fitting.applied(found, cell) for cell in cells])
    return found, {
        cell.place: Figure(
            place=cell.place, published=published[cell.place],
            replayed=runs.figure_of(results[cell.place], cell, scenario.unit),
            kind=FIT if cell.place in chosen else PREDICTION,
            unit="%" if cell.figure == CPU_SHARE else "",
        )
        for cell in cells
    }  # fmt: skip


def _signs(scenario: Scenario, figures: dict[Place, Figure]) -> tuple[Sign, ...]:
    found: list[Sign] = []
    for table in scenario.tables:
        if table.compared is not None:
            found += signs_of(figures, [table.label(row) for row in table.rows], table.compared)
    return tuple(found)


def _what_if(
    scenario: Scenario,
    one: Sensitivity,
    cells: list[Cell],
    published: dict[Place, float],
    at_work: Runs,
    found: list[fitting.Fitted],
    before: dict[Place, Figure],
) -> WhatIf:
    """The rows that a sensitivity is about, with its change; fits are made anew, on all of their cells."""

    def changed(cell: Cell) -> Cell:
        if (one.rows and cell.place[0] not in one.rows and not _is_fitted(scenario, cell)) or (
            one.columns and cell.place[1] not in one.columns
        ):
            return cell
        return dataclasses.replace(cell, options=cell.options | one.change)

    chosen = [cell for cell in cells if not one.rows or cell.place[0] in one.rows or _is_fitted(scenario, cell)]
    kept = None if one.fitted else _without(found, one.change)
    fits, figures = _figures(scenario, [changed(cell) for cell in chosen], published, at_work, kept)
    shown = {place: figure for place, figure in figures.items() if not one.rows or place[0] in one.rows}
    return WhatIf(
        name=one.name,
        figures=tuple(shown.values()),
        signs=_signs(scenario, shown),
        moved_pct=max(
            (_moved(before[place].replayed, figure.replayed) for place, figure in shown.items()), default=0.0
        ),
        fits=tuple(fit.as_dict() for fit in fits) if one.fitted else (),
    )


def _is_fitted(scenario: Scenario, cell: Cell) -> bool:
    return any(cell.place in fit.cells for fit in scenario.fits if not fit.by_hand)


def _without(found: list[fitting.Fitted], change: dict[str, Any]) -> list[fitting.Fitted]:
    """The fitted constants less those that the change itself states."""
    table = str(change.get("costs", ""))
    kept = []
    for one in found:
        values = {name: value for name, value in one.values.items() if f"{name}=" not in table and name not in change}
        kept.append(dataclasses.replace(one, values=values))
    return [one for one in kept if one.values]


def _moved(before: float, after: float) -> float:
    if not math.isfinite(before) and not math.isfinite(after):
        return 0.0
    return abs(after / before - 1) * 100 if math.isfinite(before) and math.isfinite(after) else math.inf
