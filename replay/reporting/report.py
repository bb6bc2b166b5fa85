"""A report of results, or of a sweep: what is on the page, from the same frames as everything else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replay.analysis.charts import steps
from replay.analysis.compare import figures
from replay.analysis.explain import HEADS, METRICS, explain, label, rounds
from replay.analysis.series import TIMELINE, timeline
from replay.errors import ReplayError, UsageError
from replay.reporting.page import Chart, Section, page
from replay.units import format_bytes

if TYPE_CHECKING:
    from replay.describing.heat import Heat
    from replay.results.result import Result

HEAT_ROWS, HEAT_COLUMNS = 40, 120
MOST_RESULTS = 6
_COMPARED = {
    "design": "", "log": "", "status": "", "total_ms": "", "downtime_ms": "", "syncs": "", "normal_pages": "",
    "zero_pages": "", "sent_bytes": "", "redundant_pages": "", "lost_pages": "", "fallback_rounds": "",
    "kring_full_exits": "",
}  # fmt: skip


def of_results(results: list[Result], heat: Heat | None = None) -> str:
    """The page of one result or of several, side by side. Raises UsageError for none or more than six."""
    if not 1 <= len(results) <= MOST_RESULTS:
        raise UsageError(
            f"a report is of 1 to {MOST_RESULTS} results, not {len(results)}; a sweep has a report of its own"
        )
    sections = [_summary(results), _over_time(results)]
    sections.append(_heatmap(heat))
    sections.append(_waterfalls(results))
    if len(results) > 1:
        sections.append(_comparison(results))
    sections += [_rounds_section(result) for result in results]
    sections.append(provenance([(label(result), result.config, result.provenance) for result in results]))
    names = " and ".join(label(result) for result in results[:2]) + (" and more" if len(results) > 2 else "")
    return page(f"{results[0].provenance['trace']['title']}: {names}", sections)


def _summary(results: list[Result]) -> Section:
    facts = []
    for result in results:
        who = f"{label(result)}, " if len(results) > 1 else ""
        done = result.status == "completed"
        facts.append((f"{who}total time", f"{result.summary['total-time']:,} ms" if done else result.status))
        facts.append((f"{who}downtime", f"{result.summary['downtime']} ms" if done else "-"))
        facts.append((f"{who}sent", format_bytes(result.summary["ram"]["transferred"])))
        facts.append((f"{who}syncs", f"{result.summary['ram']['dirty-sync-count']:,}"))
        lost = "not checked" if result.lost_pages is None else f"{result.lost_pages:,}"
        facts.append((f"{who}lost pages", lost))
    notes = [f"{label(result)} is unsafe: {result.unsafe}." for result in results if result.unsafe]
    note = "All times are modelled (counted work and a cost table, in virtual time) unless a table says measured. "
    return Section(title="Summary", note=note + " ".join(notes), facts=tuple(facts))


def _over_time(results: list[Result]) -> Section:
    entries = [timeline(result) for result in results]
    charts = []
    for name, text in TIMELINE.items():
        series = []
        for result, rows in zip(results, entries, strict=True):
            points: list[list[Any]] = [
                [
                    row["begin_s"],
                    row[name],
                    f"round {row['round']} ({row['cause']}), {row['begin_s']:.3f} s: {row[name]:,}",
                ]
                for row in rows
            ]
            points.append([rows[-1]["end_s"], rows[-1][name], f"end, {rows[-1]['end_s']:.3f} s: {rows[-1][name]:,}"])
            series.append({"name": label(result), "points": points, "step": True})
        data = [
            {"result": label(result), "round": row["round"], "begin_s": row["begin_s"], name: row[name]}
            for result, rows in zip(results, entries, strict=True)
            for row in rows
        ]
        spec = {
            "type": "xy",
            "x": "s since the migrate command",
            "series": series,
            "log": name in ("pending", "dirty_rate", "bandwidth"),
            "height": 190,
        }
        charts.append(
            Chart(title=text if text.startswith("vCPU") else text[0].upper() + text[1:], note="", spec=spec, rows=data)
        )
    return Section(title="Rounds over time", charts=tuple(charts))


def _heatmap(heat: Heat | None) -> Section:
    title = "Writes by address and time"
    if heat is None:
        return Section(title=title, note="The trace was not at hand: give it with --trace to see its writes here.")
    cells = [
        [row, column, int(count)] for row, line in enumerate(heat.cells) for column, count in enumerate(line) if count
    ]
    mib = heat.page_size / (1 << 20)
    spec = {
        "type": "heat", "x": "s of guest time; up: MiB of guest memory",
        "x0": heat.from_ns / 1e9, "x1": heat.to_ns / 1e9,
        "y0": heat.first_page * mib, "y1": heat.end_page * mib, "rows": heat.cells.shape[0],
        "columns": heat.cells.shape[1], "cells": cells,
    }  # fmt: skip
    per_s = [
        {"from_s": round(heat.from_ns / 1e9 + column * (heat.to_ns - heat.from_ns) / 1e9 / heat.cells.shape[1], 3),
         "writes": int(heat.cells[:, column].sum())}
        for column in range(heat.cells.shape[1])
    ]  # fmt: skip
    counts = [cell[2] for cell in cells] or [0]
    note = (
        f"{heat.title}. Yellow to dark blue: {min(counts):,} to {max(counts):,} writes in a cell, on a logarithmic "
        "scale. The table has the writes of each column."
    )
    return Section(title=title, charts=(Chart(title="Heatmap of the trace", note=note, spec=spec, rows=per_s),))


def _waterfalls(results: list[Result]) -> Section:
    """Of one result every metric; of several what each differs by from the first."""
    charts = []
    pairs: list[tuple[Result, Result | None]] = [(results[0], None)]
    pairs += [(results[0], other) for other in results[1:]]
    for a, b in pairs:
        found = explain(a, b)
        for metric in METRICS if len(results) == 1 else ("total",):
            rows = [{key: row[key] for key in ("cause", "a", "b", "difference")} for row in found.of(metric)]
            if not any(row["difference"] for row in rows):
                continue
            unit = "bytes" if metric == "bytes" else "ps"
            scale, axis = (1e6, "MB") if metric == "bytes" else (1e9, "ms")
            bars = [bar | {"from": bar["from"] / scale, "to": bar["to"] / scale} for bar in steps(found, metric)]
            who = found.labels[0] if b is None else f"{found.labels[1]}, against {found.labels[0]}"
            charts.append(
                Chart(
                    title=f"{HEADS[metric]}: {who}", note=f"causes sum to the last bar exactly; the table is in {unit}",
                    spec={"type": "bars", "x": axis, "bars": bars}, rows=rows if b is not None else _one(rows),
                )
            )  # fmt: skip
    return Section(title="What it went into", charts=tuple(charts))


def _one(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"cause": row["cause"], "value": row["a"]} for row in rows]


def _comparison(results: list[Result]) -> Section:
    rows = [{name: figures(result)[name] for name in _COMPARED} for result in results]
    charts = []
    for name, text, scale, unit in (
        ("total_ms", "Total time", 1.0, "ms"), ("downtime_ms", "Downtime", 1.0, "ms"),
        ("sent_bytes", "Sent", 1e6, "MB"),
    ):  # fmt: skip
        known = [row for row in rows if row[name] is not None]
        bars = [
            {"name": f"{row['design']} on {row['log']}", "from": 0, "to": row[name] / scale, "kind": "",
             "text": f"{row[name] / scale:,.6g} {unit}, {row['status']}"}
            for row in known
        ]  # fmt: skip
        if bars:
            data = [{key: row[key] for key in ("design", "log", "status", name)} for row in rows]
            charts.append(Chart(title=text, note="", spec={"type": "bars", "x": unit, "bars": bars}, rows=data))
    return Section(title="Side by side", charts=tuple(charts), rows=tuple(rows))


def _rounds_section(result: Result) -> Section:
    spent = {entry["round"]: entry for entry in rounds(result)}
    rows = []
    for row in result.rows:
        entry = spent[row["round"]]
        rows.append(
            {name: row[name] for name in ("round", "cause", "dirty_pages", "pending_after_pages", "normal_pages")}
            | {
                f"{part}_us": round(entry[f"{part}_ps"] / 1e6, 3)
                for part in ("harvest", "sync", "find", "send", "wait")
            }
            | {"stall_us": row["modelled_stall_ns"] / 1000}
        )
    return Section(title=f"Rounds: {label(result)}", note="Modelled, us.", rows=tuple(rows))


def provenance(entries: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> Section:
    rows: list[dict[str, Any]] = []
    flat = []
    for name, config, provenance in entries:
        told = {f"config {key}": value for key, value in config.items()}
        for key, value in provenance.items():
            told |= {f"{key} {k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
        flat.append((name, told))
    for key in dict.fromkeys(key for _, told in flat for key in told):
        values = [as_text(told.get(key)) for _, told in flat]
        if len(set(values)) == 1:
            rows.append({"what": key, "value": values[0]})
        else:
            rows += [{"what": f"{key}: {name}", "value": value} for (name, _), value in zip(flat, values, strict=True)]
    return Section(title="Provenance", rows=tuple(rows), long=True)


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def write(text: str, output: str | os.PathLike[str]) -> None:
    """Write a text file under a temporary name first. Raises ReplayError."""
    target = Path(output)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ReplayError(f"{target}: cannot be written: {error.strerror or error}") from error


def heat_of(trace: Any) -> Heat:
    """The heatmap that a report shows."""
    from replay.describing.heat import heat

    return heat(trace, rows=HEAT_ROWS, columns=HEAT_COLUMNS)
