"""The HTML of a report: sections of prose, facts, charts with their data as tables, and provenance, in one file.

Everything is inside: style, script, data. A content security policy forbids the file to load anything else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from replay.errors import ReplayError

_HERE = Path(__file__).resolve().parent
MOST_BYTES = 3_000_000
TABLE_ROWS = 400
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart: `spec` as report.js draws it, and the rows behind it."""

    title: str
    note: str
    spec: dict[str, Any]
    rows: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading with, in this order: a note, facts (name, figure), charts, and rows of a table that is open.

    long: the rows hold long texts, which are broken into lines instead of scrolled.
    """

    title: str
    note: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    charts: tuple[Chart, ...] = ()
    rows: tuple[dict[str, Any], ...] = ()
    long: bool = False


def page(title: str, sections: list[Section]) -> str:
    """The whole file. Raises ReplayError when it would be larger than 3 MB."""
    style, script = (_HERE / "report.css").read_text(), (_HERE / "report.js").read_text()
    body = "\n".join(_section(section) for section in sections)
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n'
        f"<h1>{escape(title)}</h1>\n"
        '<p class="note hint">Point at a chart for its values; drag across it to zoom, double-click to go back. '
        "The figures behind each chart are below it.</p>\n"
        f"{body}\n<script>\n{script}</script>\n</body>\n</html>\n"
    )
    if len(text.encode()) > MOST_BYTES:
        raise ReplayError(
            f"the report would have {len(text.encode()) / 1e6:.1f} MB: take fewer results or runs at once"
        )
    return text


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>"]
    if section.note:
        parts.append(f'<p class="note">{escape(section.note)}</p>')
    if section.facts:
        facts = "".join(f"<div>{escape(name)}<b>{escape(value)}</b></div>" for name, value in section.facts)
        parts.append(f'<div class="facts">{facts}</div>')
    parts += [_chart(chart) for chart in section.charts]
    if section.rows:
        parts.append(_table(list(section.rows), long=section.long))
    return f"<section>\n{chr(10).join(parts)}\n</section>"


def _chart(chart: Chart) -> str:
    spec = json.dumps(chart.spec | {"title": chart.title}, allow_nan=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )
    more = f"<br><small>{escape(chart.note)}</small>" if chart.note else ""
    return (
        f'<figure data-chart="{chart.spec["type"]}">\n<figcaption>{escape(chart.title)}{more}</figcaption>\n'
        f'<div class="legend"></div>\n<div class="plot"></div>\n<script type="application/json">{spec}</script>\n'
        f"<details><summary>data</summary>\n{_table(chart.rows)}\n</details>\n</figure>"
    )


def _table(rows: list[dict[str, Any]], *, long: bool = False) -> str:
    """Rows as a table; of many only the first and the last."""
    if not rows:
        return '<p class="note">nothing</p>'
    names = list(dict.fromkeys(name for row in rows for name in row))
    heads = "".join(f'<th scope="col">{escape(name.replace("_", " "))}</th>' for name in names)
    half, lines = TABLE_ROWS // 2, []
    for index, row in enumerate(rows):
        if len(rows) > TABLE_ROWS and half <= index < len(rows) - half:
            if index == half:
                lines.append(f'<tr><td colspan="{len(names)}">{len(rows) - 2 * half:,} more rows</td></tr>')
            continue
        lines.append("<tr>" + "".join(f"<td>{escape(_cell(row.get(name)))}</td>" for name in names) + "</tr>")
    return (
        f'<div class="table{" long" if long else ""}" tabindex="0" role="region" aria-label="data"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>\n"
        f"{chr(10).join(lines)}\n</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 1e4 else f"{value:.6g}"
    return str(value)
