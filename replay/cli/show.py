"""What the terminal shows: tables of at most 100 columns, a progress line on stderr, JSON."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from replay.units import format_bytes, format_duration

if TYPE_CHECKING:
    from rich.console import Console

    from replay.migration.precopy import Progress
    from replay.results.result import Result
    from replay.synthesis.synthetic import Synthetic
    from replay.trace.reader import Trace

WIDTH = 100
QUIET = False
"""No progress and no notes on stderr (--quiet)."""
_MANY_ROUNDS = 24
_PATIENCE_S = 0.5


def console(*, stderr: bool = False) -> Console:
    """A console no wider than 100 columns; rich honours NO_COLOR and plain pipes."""
    from rich.console import Console

    out = Console(stderr=stderr, highlight=False)
    return Console(stderr=stderr, highlight=False, width=min(out.width, WIDTH) if out.is_terminal else WIDTH)


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    print(json.dumps(value))


def note_compiling() -> bool:
    """Say once, on stderr, that kernels are being compiled, if they are; returns whether they are."""
    from replay import jit

    cold = jit.COLD and not jit.DISABLED
    if cold and not QUIET:
        where = "" if jit.CACHE_FOLDER else " (no writable cache folder: every run will)"
        print(f"replay: compiling kernels for this machine, once; later runs start in a second{where}", file=sys.stderr)
        jit.COLD = False
    return cold


@contextmanager
def progress_line(label: str, give_up_ns: int) -> Iterator[Progress | None]:
    """A progress bar over virtual time on stderr, only on a terminal and only when the run takes a moment."""
    if QUIET or not sys.stderr.isatty():
        yield None
        return
    bar: Any = None
    begun, task, last = time.monotonic(), None, 0.0

    def report(virtual_ns: int, round_: int, pending: int, events: int) -> None:
        nonlocal bar, task, last
        now = time.monotonic()
        if now - last < 0.05 or now - begun < _PATIENCE_S:
            return
        last = now
        state = f"round {round_}, {virtual_ns / 1e9:.1f} s, {pending:,} pages pending"
        if bar is None:
            bar = _bar_with_state()
            bar.start()
            task = bar.add_task(label, total=give_up_ns, state=state)
        bar.update(task, completed=virtual_ns, state=state)

    try:
        yield report
    finally:
        if bar is not None:
            bar.stop()


def _bar_with_state() -> Any:
    from rich.progress import BarColumn, Progress as Bar, TextColumn, TimeElapsedColumn, TimeRemainingColumn  # isort: skip

    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console(stderr=True),
        transient=True,
    )


@contextmanager
def task_line(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar with the time left on stderr, only on a terminal; it is called with (done, total)."""
    if QUIET or not sys.stderr.isatty():
        yield None
        return
    from rich.progress import Progress as Bar

    with Bar(*Bar.get_default_columns(), console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


@contextmanager
def no_line() -> Iterator[None]:
    """No progress: the terminal belongs to a program that is being recorded."""
    yield None


def trace_line(trace: Trace | Synthetic) -> str:
    """What was written: a trace's file, events, length, memory and vCPUs."""
    meta = trace.metadata
    return (
        f"{trace.path}: {trace.n_events:,} events in {format_duration(meta.duration_ns)}, "
        f"{format_bytes(meta.memory_bytes)}, {meta.n_vcpus} vCPUs"
    )


def summary_lines(result: Result) -> list[str]:
    """A result in a few lines."""
    from replay.analysis.guest_cost import lost, spell_lost

    shares = lost(result.guest["vcpus"])
    ram, config, done = result.summary["ram"], result.config, result.status == "completed"
    end = f"downtime {result.summary['downtime']} ms" if done else f"{format_bytes(ram['remaining'])} left"
    checked = (
        "not checked"
        if result.lost_pages is None
        else f"{result.lost_pages:,} lost, {result.redundant_pages:,} redundant"
    )
    lines = [
        f"{config['design']} on {config['log']}, {format_bytes(config['memory'])}: {result.status}",
        f"modelled: total {result.summary['total-time']:,} ms, {end}, {ram['dirty-sync-count']} syncs",
        f"sent: {ram['normal']:,} normal + {ram['duplicate']:,} zero pages, {format_bytes(ram['transferred'])}",
        f"pages: {checked}",
        f"guest: lost {spell_lost(shares)}; most, of one vCPU: {shares['modelled_lost_most_pct']:.3g} %",
    ]
    last = result.rows[-1]
    if last["cause"] == "postcopy":
        lines.append(
            f"postcopy: {last['postcopy_pages']:,} pages after the switch, {last['postcopy_faults']:,} faults, waits "
            f"{format_duration(last['modelled_stall_ns'])}"
        )
    if result.unsafe:
        lines.append(f"unsafe: {result.unsafe}")
    if result.guest["trace_repeats"]:
        times = result.guest["trace_repeats"]
        lines.append(f"the trace ended before the migration and was repeated {times} time(s) (--at-end loop)")
    if result.guest["trace_ended"]:
        lines.append("the trace ended before the migration: from then on the guest was idle (--at-end hold)")
    return lines


def compact(value: int | None) -> str:
    """A count in at most six characters: 99,999 as it is, 25.2M."""
    if value is None:
        return "-"
    if value < 100_000:
        return f"{value:,}"
    for scale, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= scale:
            return f"{value / scale:.3g}{letter}"
    raise AssertionError("unreachable")


def rounds_lines(result: Result, title: str) -> list[str]:
    """The per-round record, the columns that fit; modelled first, measured last. Plain: rich takes 60 ms to import."""
    heads = (
        "round", "cause", "begin", "dirty", "pending", "normal", "zero", "redund.", "find", "sync", "stall", "measured"
    )  # fmt: skip
    rows = [heads, *map(_round_cells, result.rows)]
    half = _MANY_ROUNDS // 2
    if len(result.rows) > _MANY_ROUNDS:
        rows[1 + half : -half] = [("...", f"{len(result.rows) - 2 * half} more", *[""] * (len(heads) - 2))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = textwrap.wrap(title, WIDTH)
    for row in rows:
        cells = [
            cell.ljust(w) if at == 1 else cell.rjust(w) for at, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(" ".join(cells).rstrip())
    return [*lines, "find, sync, stall: modelled; measured: our kernels on this machine, not QEMU's"]


def _round_cells(row: dict[str, Any]) -> tuple[str, ...]:
    counts = ("dirty_pages", "pending_after_pages", "normal_pages", "zero_pages", "redundant_pages")
    times = (
        row["modelled_find_ns"],
        row["modelled_harvest_ns"] + row["modelled_sync_ns"],
        row["modelled_stall_ns"],
        row["measured_harvest_ns"] + row["measured_sync_ns"] + row["measured_send_ns"],
    )
    return (
        str(row["round"]),
        row["cause"],
        f"{row['sync_begin_ns'] / 1e9:.3f} s",
        *(compact(row[name]) for name in counts),
        *(format_duration(ns) for ns in times),
    )


_COUNTS = {
    "syncs": "syncs",
    "normal_pages": "normal pages",
    "zero_pages": "zero pages",
    "redundant_pages": "redundant pages",
    "lost_pages": "lost pages",
    "fallback_rounds": "fallback rounds",
    "kring_full_exits": "ring-full exits",
}


def compare_table(results: list[Result]) -> Any:
    """Designs side by side: a column a result, ratios to the first in brackets, modelled and measured in blocks."""
    from rich.table import Table

    from replay.analysis.compare import compare
    from replay.analysis.guest_cost import spell_lost
    from replay.columns import LOST

    frame = compare(results).to_dicts()
    table = Table(title="Side by side (ratio to the first)", title_justify="left", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for row in frame:
        table.add_column(f"{row['design']}\non {row['log']}", justify="right")
    table.add_row("status", *(row["status"] for row in frame))
    for name, label in _COUNTS.items():
        table.add_row(label, *("-" if row[name] is None else f"{row[name]:,}" for row in frame))
    if any(row["unsafe"] for row in frame):
        table.add_row("unsafe", *(row["unsafe"] or "-" for row in frame))
    for name, label in (("total_ms", "total time"), ("downtime_ms", "downtime"), ("sent_bytes", "sent")):
        table.add_row(f"{label}, modelled", *(_with_ratio(row, name) for row in frame))
    table.add_row("guest lost, modelled", *(spell_lost(row, 1) for row in frame))
    for prefix in ("modelled", "measured"):
        table.add_section()
        for name in (key for key in frame[0] if key.startswith(prefix) and key.endswith("_ns")):
            if name in LOST and not any(row[name] for row in frame):
                continue
            label = name.removeprefix(f"{prefix}_").removesuffix("_ns").replace("_", " ")
            table.add_row(f"{label}, {prefix}", *(_with_ratio(row, name) for row in frame))
    table.caption = (
        "modelled: counted work x cost table, deterministic; measured: our kernels on this machine, not QEMU's"
    )
    table.caption_justify = "left"
    return table


def _with_ratio(row: dict[str, Any], name: str) -> str:
    value, ratio = row[name], row[f"ratio_{name}"]
    if value is None:
        return "-"
    text = (
        f"{value:,} ms"
        if name.endswith("_ms")
        else format_bytes(value)
        if name.endswith("_bytes")
        else format_duration(value)
    )
    return f"{text} ({ratio:.3f})" if ratio is not None else text
