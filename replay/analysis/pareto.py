"""Pareto fronts: the settings that no other setting beats in one figure without being worse in another.

A setting dominates another when it is at most equal in every figure and less in one. Figures that are compared are
exact means, so settings that come to the same figures are all on the front.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import polars as pl

_CHUNK = 256


def front(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows nobody dominates (bool), and for each other one the first that dominates it (-1: none).

    values: (settings, figures), less is better. O(settings^2 figures), in chunks of bounded memory.
    """
    count = len(values)
    by = np.full(count, -1)
    for first in range(0, count, _CHUNK):
        part = values[first : first + _CHUNK]
        less = np.less(values[None, :, :], part[:, None, :]).any(axis=2)
        better = np.less_equal(values[None, :, :], part[:, None, :]).all(axis=2) & less
        by[first : first + _CHUNK] = np.where(better.any(axis=1), better.argmax(axis=1), -1)
    return by < 0, by


def fronts(settings: pl.DataFrame, columns: list[str], apart: list[str]) -> pl.DataFrame:
    """The settings with `on_front` (null where a figure is missing, so that the setting is not compared) and
    `beaten_by`, the row number of one on the front that dominates it.

    settings: one row each; columns: their figures; apart: columns whose values separate guests that are not compared.
    """
    import polars as pl

    rows = settings.to_dicts()
    on: list[bool | None] = [None] * len(rows)
    by: list[int | None] = [None] * len(rows)
    groups: dict[Any, list[int]] = {}
    for number, row in enumerate(rows):
        if all(row[name] is not None for name in columns):
            groups.setdefault(tuple(row[name] for name in apart), []).append(number)
    for members in groups.values():
        values = np.array([[float(rows[number][name]) for name in columns] for number in members])
        best, beaten = front(values)
        for place, number in enumerate(members):
            on[number] = bool(best[place])
            at = place
            while beaten[at] >= 0:
                at = int(beaten[at])
            by[number] = None if at == place else members[at]
    return settings.with_columns(
        on_front=pl.Series(on, dtype=pl.Boolean), beaten_by=pl.Series(by, dtype=pl.Int64)
    )  # fmt: skip
