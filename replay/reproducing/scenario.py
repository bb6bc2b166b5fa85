"""A published experiment as data: its figures, its conditions as options of replays, and what it leaves open.

A scenario is a TOML file in scenarios/ (or a path to one of your own). Its figures are the authors'; everything a
source does not say is an `[[assumption]]`, and what one is worth is a `[[sensitivity]]` row: the same cells with other
options. Constants that are chosen so that some cells come out right are `[[fit]]` entries; those cells are then fits,
all others predictions.

    kind = "replays"          # or "scan", "accuracy"
    title, source, unit       # unit: of the figures: "ms" or "s" of total time
    [options]                 # options of every replay (names as in replay.config, with - or _), and `trace`
    [[table]]                 # name (may be empty), compared = [A, B] (the columns whose difference has a sign)
    [table.columns.A]         # options of a column's replays
    [table.rows.R]            # options of a row's replays
    [table.published.R]       # A = [figures of single runs] or a figure; inf: did not converge
    [[fit]]                   # name, cells = [[row, column], ...], and costs = [ENTRY, ...], or option = NAME with
                              # within = [low, high], or by_hand = {what = value} for what was chosen with them in view

A table may have figure = "cpu-share" instead of total time: the share (%) of its time that is left to a vCPU that does
not write while the migration runs; with relative_to = C its published figures are taken as percent of column C's.

    [[assumption]]            # name, text
    [[sensitivity]]           # name, change = {option = value}, and rows, columns to which it applies (default: all)
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replay.config import RunConfig
from replay.errors import UsageError, unknown_name

_FOLDER = Path(__file__).resolve().parent / "scenarios"
KINDS = ("replays", "scan", "accuracy")
TOTAL_TIME, CPU_SHARE = "total-time", "cpu-share"
UNITS_NS = {"ms": 1e6, "s": 1e9}
_OPTIONS = ("trace", *(field.name for field in dataclasses.fields(RunConfig)))
Options = dict[str, Any]
Place = tuple[str, str]
"""A cell: row, column."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table: options of its columns and rows, and `published` figures by cell, math.inf: did not converge."""

    name: str
    compared: tuple[str, str] | None
    columns: dict[str, Options]
    rows: dict[str, Options]
    published: dict[Place, float]
    figure: str = TOTAL_TIME

    def label(self, row: str) -> str:
        """A row's name among those of all tables."""
        return f"{self.name}, {row}" if self.name else row


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Constants chosen so that `cells` come out right: entries of the cost table, or one option within `within`.

    `by_hand`: what was chosen beforehand, with the cells in view.
    """

    name: str
    cells: tuple[Place, ...]
    costs: tuple[str, ...]
    option: str
    within: tuple[float, float]
    by_hand: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Another answer to an open question: options that change, in some rows and columns (empty: in all)."""

    name: str
    change: Options
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    fitted: bool  # whether the fits are made anew


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A published experiment. `about` holds what else the file says, for the kinds that are no replays."""

    name: str
    kind: str
    title: str
    source: str
    unit: str
    conclusion: str
    options: Options
    tables: tuple[Table, ...]
    fits: tuple[Fit, ...]
    assumptions: tuple[tuple[str, str], ...]
    sensitivities: tuple[Sensitivity, ...]
    about: dict[str, Any]


def names() -> list[str]:
    """The shipped scenarios."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load(name: str) -> Scenario:
    """A shipped scenario by name, or a file by its path. Raises UsageError naming what is wrong in which file."""
    path = Path(name) if name.endswith(".toml") else _FOLDER / f"{name}.toml"
    if not path.is_file():
        if name.endswith(".toml"):
            raise UsageError(f"{name}: no such scenario file")
        raise unknown_name("published experiment", name, names())
    try:
        data = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a scenario: {error}") from error
    try:
        return _scenario(path, data)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        missing = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"{path}: not a scenario: {missing}") from error


def _scenario(path: Path, data: dict[str, Any]) -> Scenario:
    kind = data["kind"]
    if kind not in KINDS:
        raise unknown_name(f"{path.name}: kind", str(kind), KINDS)
    if kind == "replays" and data["unit"] not in UNITS_NS:
        raise unknown_name(f"{path.name}: unit", str(data["unit"]), UNITS_NS)
    tables = tuple(_table(path, entry) for entry in data.get("table", ()))
    if kind == "replays" and not tables:
        raise UsageError(f"{path}: a scenario of replays needs a [[table]]")
    return Scenario(
        name=path.stem,
        kind=kind,
        title=data["title"],
        source=data["source"],
        unit=data["unit"],
        conclusion=data.get("conclusion", ""),
        options=_options(path, data.get("options", {})),
        tables=tables,
        fits=tuple(_fit(path, entry, tables) for entry in data.get("fit", ())),
        assumptions=tuple((entry["name"], entry["text"]) for entry in data.get("assumption", ())),
        sensitivities=tuple(_sensitivity(path, entry, tables) for entry in data.get("sensitivity", ())),
        about=data.get("about", {}),
    )


def _options(path: Path, given: dict[str, Any]) -> Options:
    options = {name.replace("-", "_"): value for name, value in given.items()}
    for name in options:
        if name not in _OPTIONS:
            raise unknown_name(f"{path.name}: option", name, _OPTIONS)
    return options


def _table(path: Path, entry: dict[str, Any]) -> Table:
    columns = {name: _options(path, given) for name, given in entry["columns"].items()}
    rows = {name: _options(path, given) for name, given in entry["rows"].items()}
    figure, base = entry.get("figure", TOTAL_TIME), entry.get("relative_to")
    if figure not in (TOTAL_TIME, CPU_SHARE):
        raise unknown_name(f"{path.name}: figure", str(figure), (TOTAL_TIME, CPU_SHARE))
    published = {}
    for row, figures in entry["published"].items():
        for column, value in figures.items():
            if column == base:
                continue
            if row not in rows or column not in columns:
                raise UsageError(f"{path}: a figure is published for {row}, {column}, which is no row and column")
            scale = 1.0 if base is None else 100 / _figure(path, figures[base])
            published[row, column] = scale * _figure(path, value)
    compared = tuple(entry["compared"]) if "compared" in entry else None
    if compared is not None and (len(compared) != 2 or not set(compared) <= set(columns)):
        raise UsageError(f"{path}: compared = {list(compared)} are not two of the columns {', '.join(columns)}")
    return Table(
        name=entry.get("name", ""), compared=compared, columns=columns, rows=rows, published=published, figure=figure,
    )  # fmt: skip


def _figure(path: Path, figure: Any) -> float:
    """One figure, or the median of several runs' figures."""
    value = statistics.median(figure) if isinstance(figure, list) else float(figure)
    if not value > 0:
        raise UsageError(f"{path}: a published figure must be above 0, not {figure}")
    return math.inf if math.isinf(value) else float(value)


def _fit(path: Path, entry: dict[str, Any], tables: tuple[Table, ...]) -> Fit:
    cells = tuple((row, column) for row, column in entry["cells"])
    everywhere = {(table.label(row), column) for table in tables for row, column in table.published}
    for cell in cells:
        if cell not in everywhere:
            raise UsageError(f"{path}: fit {entry['name']!r}: no figure is published for {', '.join(cell)}")
    costs, option = tuple(entry.get("costs", ())), entry.get("option", "").replace("-", "_")
    by_hand = dict(entry.get("by_hand", {}))
    if sum(map(bool, (costs, option, by_hand))) != 1:
        raise UsageError(f'{path}: fit {entry["name"]!r} has one of costs = [...], option = "...", by_hand = {{...}}')
    if len(cells) < max(1, len(costs)):
        raise UsageError(f"{path}: fit {entry['name']!r} has more constants than cells")
    low, high = entry.get("within", (0.0, 1.0))
    return Fit(
        name=entry["name"], cells=cells, costs=costs, option=option, within=(float(low), float(high)), by_hand=by_hand,
    )  # fmt: skip


def _sensitivity(path: Path, entry: dict[str, Any], tables: tuple[Table, ...]) -> Sensitivity:
    rows, columns = tuple(entry.get("rows", ())), tuple(entry.get("columns", ()))
    known = {table.label(row) for table in tables for row in table.rows}
    for row in rows:
        if row not in known:
            raise unknown_name(f"{path.name}: sensitivity {entry['name']!r}: row", row, known)
    return Sensitivity(
        name=entry["name"], change=_options(path, entry["change"]), rows=rows, columns=columns,
        fitted=entry.get("fitted", True),
    )  # fmt: skip
