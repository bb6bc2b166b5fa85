"""Rows of a benchmark for people: a table on the terminal, or Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tools.bench import moved
from tools.bench.harness import Row, short_ratio

HEADS = ("what", "ours", "theirs", "unit", "ratio", "quartiles", "target", "met")
WIDTH = 100
READING = "ratio: ours / theirs, below 1 is faster; target: must / stretch"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def cells(row: Row) -> tuple[str, ...]:
    """One row as text, in the order of HEADS."""
    ratio = "-" if row.ratio is None else short_ratio(row.ratio)
    quartiles = "-".join(map(short_ratio, row.spread["ratio"])) if "ratio" in row.spread else "-"
    met = "stretch" if row.stretch else {None: "-", True: "yes", False: "NO"}[row.met]
    return (row.what, _number(row.ours), _number(row.theirs), row.unit, ratio, quartiles, row.target or "-", met)


def machine_line(machine: dict[str, Any]) -> str:
    """The machine in one line."""
    gcc = f"gcc {machine['gcc']} {machine['gcc_flags']}" if machine["gcc"] else "no gcc"
    return (
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}; Python {machine['python']}, "
        f"numba {machine['numba']}, llvmlite {machine['llvmlite']}, numpy {machine['numpy']}, {gcc}"
    )


def plain(rows: Sequence[Row], machine: dict[str, Any]) -> None:
    """Print a table at most 100 columns wide."""
    console = Console(width=WIDTH, highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for head in HEADS:
        table.add_column(head, justify="right" if head in ("ours", "theirs", "ratio", "quartiles") else "left")
    for row in rows:
        table.add_row(*cells(row), style="bold red" if row.met is False else None)
    console.print(table)
    console.print(f"\n{READING}. {machine_line(machine)}", style="dim")


def markdown(rows: Sequence[Row], machine: dict[str, Any]) -> str:
    """The same as a Markdown table; a missed target is bold."""
    lines = ["| " + " | ".join(HEADS) + " |", "|---|---:|---:|---|---:|---:|---|---|"]
    for row in rows:
        text = list(cells(row))
        if row.met is False:
            text[-1] = "**no**"
        lines.append("| " + " | ".join(text) + " |")
    lines += ["", f"{READING.capitalize()}. {machine_line(machine)}."]
    if missed := moved.missed(rows):
        lines += ["", "Missed:", "", *(f"- {line}" for line in missed)]
    return "\n".join(lines)
