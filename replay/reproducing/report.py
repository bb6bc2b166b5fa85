"""What a reproduction came to: cells, fits, what open conditions matter; as a dict, as text, as Markdown for a mail."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from replay.reproducing.scenario import Place

if TYPE_CHECKING:
    import polars as pl

FIT, PREDICTION = "fit", "prediction"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One cell. None: there is no such figure; math.inf: did not converge."""

    place: Place
    published: float
    replayed: float
    kind: str
    unit: str = ""
    """Where it is not the report's."""

    @property
    def error_pct(self) -> float | None:
        """Replayed against published, in percent; None where either did not converge."""
        if not math.isfinite(self.published) or not math.isfinite(self.replayed):
            return None
        return 100 * (self.replayed / self.published - 1)

    def as_dict(self) -> dict[str, Any]:
        """The cell as JSON has it: null is what did not converge."""
        error = self.error_pct
        return {
            "row": self.place[0],
            "column": self.place[1],
            "published": self.published if math.isfinite(self.published) else None,
            "replayed": round(self.replayed, 3) if math.isfinite(self.replayed) else None,
            "error_pct": None if error is None else round(error, 3),
            "kind": self.kind,
        }


@dataclass(frozen=True, kw_only=True)
class Sign:
    """A row's two compared columns: whether the first is above (1), below (-1) or as large as the second, in both."""

    row: str
    columns: tuple[str, str]
    published: int
    replayed: int

    @property
    def agrees(self) -> bool:
        """Whether the difference points the same way."""
        return self.published == self.replayed


@dataclass(frozen=True, kw_only=True)
class WhatIf:
    """A sensitivity row: the same cells with another answer to an open question."""

    name: str
    figures: tuple[Figure, ...]
    signs: tuple[Sign, ...]
    moved_pct: float  # largest change of a cell against the reproduction itself; inf: one converges or does not
    fits: tuple[dict[str, Any], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return {
            "name": self.name,
            "moved_pct": round(self.moved_pct, 3) if math.isfinite(self.moved_pct) else None,
            "sign_agreement": agreement(self.signs),
            "cells": [figure.as_dict() for figure in self.figures],
            "fits": list(self.fits),
        }


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `replay.reproduce` returns. `measured`: figures are this machine's clock, not the virtual one's."""

    experiment: str
    title: str
    source: str
    unit: str
    conclusion: str
    measured: bool
    figures: tuple[Figure, ...]
    signs: tuple[Sign, ...]
    fits: tuple[dict[str, Any], ...] = ()
    assumptions: tuple[tuple[str, str], ...] = ()
    what_ifs: tuple[WhatIf, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def sign_agreement(self) -> float | None:
        """Share of the compared differences that point the same way; None where nothing is compared."""
        return agreement(self.signs)

    @property
    def frame(self) -> pl.DataFrame:
        """The cells as a polars DataFrame."""
        import polars as pl

        return pl.DataFrame([figure.as_dict() for figure in self.figures], infer_schema_length=None)

    def as_dict(self) -> dict[str, Any]:
        """The object that `replay reproduce --json` prints."""
        return {
            "experiment": self.experiment,
            "cells": [figure.as_dict() for figure in self.figures],
            "sign_agreement": self.sign_agreement,
            "unit": self.unit,
            "clock": "measured" if self.measured else "modelled",
            "source": self.source,
            "fits": list(self.fits),
            "assumptions": [{"name": name, "text": text} for name, text in self.assumptions],
            "sensitivity": [what_if.as_dict() for what_if in self.what_ifs],
            "provenance": self.provenance,
        }


def agreement(signs: tuple[Sign, ...]) -> float | None:
    """Share of signs that agree."""
    return sum(sign.agrees for sign in signs) / len(signs) if signs else None


def signs_of(figures: dict[Place, Figure], rows: list[str], compared: tuple[str, str]) -> list[Sign]:
    """The signs of rows of which both columns are there."""
    found = []
    for row in rows:
        pair = [figures.get((row, column)) for column in compared]
        if pair[0] is not None and pair[1] is not None:
            found.append(
                Sign(
                    row=row, columns=compared, published=_sign(pair[0].published, pair[1].published),
                    replayed=_sign(pair[0].replayed, pair[1].replayed),
                )
            )  # fmt: skip
    return found


def _sign(a: float, b: float) -> int:
    return (a > b) - (a < b)


def spelled(value: float, unit: str = "") -> str:
    """A figure of a table, with its unit where that is not the table's."""
    if not math.isfinite(value):
        return "never"
    digits = 0 if value >= 1000 else 1 if value >= 100 else 2 if value >= 10 else 3
    return f"{value:,.{digits}f}" + (f" {unit}" if unit else "")


def rows(report: Report) -> list[tuple[str, ...]]:
    """The cells as text: row, column, published, replayed, error, kind, sign."""
    agrees = {(sign.row, column): sign for sign in report.signs for column in sign.columns}
    lines: list[tuple[str, ...]] = []
    for figure in report.figures:
        error, sign = figure.error_pct, agrees.get(figure.place)
        both = not math.isfinite(figure.published) and not math.isfinite(figure.replayed)
        lines.append(
            (
                *figure.place,
                spelled(figure.published, figure.unit),
                spelled(figure.replayed, figure.unit),
                ("same" if both else "-") if error is None else f"{error:+.1f} %",
                figure.kind,
                "" if sign is None else "same" if sign.agrees else "other",
            )
        )
    return lines


def markdown(report: Report) -> str:
    """The report as Markdown that can be pasted into a mail: lines of at most 78 columns but for tables."""
    import textwrap

    def wrapped(text: str, first: str = "- ") -> str:
        return textwrap.fill(text, 78, initial_indent=first, subsequent_indent=" " * len(first))

    clock = "measured on this machine" if report.measured else "replayed in virtual time"
    lines = [f"## {report.title}", "", wrapped(f"Published: {report.source}.", ""), ""]
    heads = ("row", "column", f"published, {report.unit}", f"replayed, {report.unit}", "error", "kind", "sign")
    lines += [f"| {' | '.join(heads)} |", "|---|---|---:|---:|---:|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows(report)]
    lines += ["", wrapped(f"{_agreement_text(report)} Figures are {clock}.", "")]
    if report.conclusion:
        lines += ["", wrapped(report.conclusion, "")]
    if report.fits:
        lines += ["", "Fits:", ""] + [wrapped(fit_text(fit)) for fit in report.fits]
    if report.assumptions:
        lines += ["", "Assumed, because the source does not say:", ""]
        lines += [wrapped(f"{name}: {text}") for name, text in report.assumptions]
    if report.what_ifs:
        lines += [
            "",
            "How much it matters:",
            "",
            "| if instead | moves a cell by up to | signs | errors |",
            "|---|---:|---:|---:|",
        ]
        lines += [f"| {' | '.join(what_if_row(one))} |" for one in report.what_ifs]
    made = report.provenance
    if made:
        lines += ["", wrapped(f"Made by replay {made['replay']} (numba {made['numba']}) on {made['cpu']}.", "")]
    return "\n".join(lines) + "\n"


def _agreement_text(report: Report) -> str:
    if not report.signs:
        return "No two columns are compared."
    same = sum(sign.agrees for sign in report.signs)
    return f"The sign of the difference is the same in {same} of {len(report.signs)} rows."


def fit_text(fit: dict[str, Any]) -> str:
    """A fit in one line."""
    values = ", ".join(f"{name} = {value} {fit['unit']}".rstrip() for name, value in fit["values"].items())
    errors = [error for error in fit["left_pct"] if error is not None]
    left = f"{min(errors):+.1f} to {max(errors):+.1f} %" if len(errors) > 1 else f"{errors[0]:+.1f} %"
    cells = (
        "; ".join(" ".join(cell) for cell in fit["cells"]) if len(fit["cells"]) <= 4 else f"{len(fit['cells'])} cells"
    )
    how = "by hand, in view of" if fit["by_hand"] else "chosen on"
    return f"{fit['name']}: {values}, {how} {cells} (left: {left})"


def what_if_row(one: WhatIf) -> tuple[str, str, str, str]:
    """A sensitivity row as text."""
    moved = f"{one.moved_pct:.1f} %" if math.isfinite(one.moved_pct) else "converges or not"
    same = sum(sign.agrees for sign in one.signs)
    errors = [figure.error_pct for figure in one.figures if figure.error_pct is not None]
    spread = f"{min(errors):+.1f} to {max(errors):+.1f} %" if errors else "-"
    return one.name, moved, f"{same} of {len(one.signs)}" if one.signs else "-", spread
