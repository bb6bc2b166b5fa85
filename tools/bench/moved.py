"""What moved between two reports of `tools/bench --json`, and which targets are missed.

Rows are matched by name. Of a row with two sides the ratio is compared, since both sides were measured together; of one
with a single side the figure itself, which means little between different machines. A row has moved when it changed by
more than MARGIN and its new median lies outside the old quartiles.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.bench.harness import Row, short_ratio
from tools.bench.tried import TRIED

MARGIN = 0.05


class ReportError(Exception):
    """A file that is no report of this benchmark."""


def read(path: str) -> tuple[list[Row], dict[str, Any]]:
    """Rows and machine of a report. Raises ReportError."""
    try:
        report = json.loads(Path(path).read_text())
        rows = [Row(**row, samples=report["samples"].get(row["what"], {})) for row in report["rows"]]
        return rows, dict(report["machine"])
    except OSError as error:
        raise ReportError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ReportError(f"{path}: no report of this version of tools/bench --json") from None


def compare(old: Sequence[Row], new: Sequence[Row]) -> list[str]:
    """A line for every row that moved, came or went; worse ones first."""
    before = {row.what: row for row in old}
    moved: list[tuple[float, str]] = []
    for row in new:
        if row.what not in before:
            moved.append((0.0, f"new     {row.what}"))
            continue
        was, now, spread = _figures(before.pop(row.what), row)
        if was and now and abs(now / was - 1) > MARGIN and not (spread and spread[0] <= now <= spread[1]):
            unit = "" if row.ratio is not None else f" {row.unit}"
            word = "slower" if now > was else "faster"
            text = f"{word}  {row.what}: {short_ratio(was)} -> {short_ratio(now)}{unit} ({now / was - 1:+.0%})"
            moved.append((now / was, text))
    lines = [text for _, text in sorted(moved, key=lambda pair: -pair[0])]
    lines += [f"gone    {what}" for what in before]
    return lines or ["nothing moved"]


def _figures(old: Row, new: Row) -> tuple[float | None, float | None, list[float] | None]:
    if old.ratio is not None and new.ratio is not None:
        return old.ratio, new.ratio, old.spread.get("ratio")
    if old.unit != new.unit:
        return None, None, None
    return old.ours, new.ours, old.spread.get("ours")


def missed(rows: Sequence[Row]) -> list[str]:
    """A line for each row that misses what it must reach, with what was tried."""
    lines = []
    for row in rows:
        if row.met is False:
            tried = next((text for start, text in TRIED.items() if row.what.startswith(start)), "nothing noted")
            figure = short_ratio(row.ratio) if row.ratio is not None and row.unit != "B" else f"{row.ours:.3g}"
            lines.append(f"{row.what}: {figure}, target {row.target}. Tried: {tried}.")
    return lines
