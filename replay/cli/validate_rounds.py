"""`replay validate ROUNDS.json`: the passes of a migration beside two predictions of them."""

from __future__ import annotations

import textwrap
from typing import Any

from replay.cli import show
from replay.units import format_duration

EXPLAINED = (
    "predicted: full passes, Cloud Hypervisor's loop; QEMU's loop: MiB pending after its sync of that number, which "
    "comes at another time, so it is no prediction of this pass"
)


def show_rounds(report: dict[str, Any]) -> None:
    """A table a migration, and what enters it."""
    out = show.console()
    for one in report["migrations"]:
        out.print(_table(one))
        _say(out, EXPLAINED)
        for line in _lines(one):
            out.print(line, markup=False)
        out.print()
    for note in report["notes"]:
        _say(out, f"note: {note}")
    if report["migrations"]:
        _say(
            out,
            f"Trace {report['trace']}, from {report['members']} start offsets; cost table {report['costs']}. Of the "
            "log, the first pass's size and bandwidth and the downtime limit enter the predictions, nothing else.",
        )


def _say(out: Any, text: str) -> None:
    out.print(textwrap.fill(text, min(out.width, show.WIDTH), subsequent_indent="  "), markup=False)


def _table(one: dict[str, Any]) -> Any:
    from rich.table import Table

    limit = one["downtime_limit_ns"]
    title = (
        f"Migration {one['migration']}: {_mib(one['memory_bytes'])} MiB, {_mib(one['bandwidth_bytes_per_s'])} MiB/s, "
        f"downtime limit {'not known' if limit is None else format_duration(limit)}"
    )
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    heads = ("pass", "began", "MiB", "predicted", "80 %", "error", "began, pred.", "QEMU's loop")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for row in one["rounds"]:
        table.add_row(
            str(row["pass"]),
            _seconds(row["actual_begin_ns"]),
            _mib(row["actual_bytes"]),
            _mib(row["predicted_bytes"]),
            "-" if row["predicted_80_bytes"] is None else "-".join(_mib(edge) for edge in row["predicted_80_bytes"]),
            "-" if row["error_pct"] is None else f"{row['error_pct']:+.1f}%",
            _seconds(row["predicted_begin_ns"]),
            _mib(row["qemu_bytes"]),
        )
    return table


def _lines(one: dict[str, Any]) -> list[str]:
    summary, qemu = one["summary"], one["summary"]["qemu"]
    chance = summary["p_converged"]
    lines = [
        f"passes: predicted {summary['passes']['predicted']}, actual {summary['passes']['actual']}"
        + ("" if chance is None else f"; P(converged) {chance:.2f}"),
    ]
    if chance is not None:
        rest, rest_ns, total = summary["rest_bytes"], summary["rest_ns"], summary["total_ns"]
        lines += [
            f"sent with the guest stopped: predicted {_mib(rest['predicted'])} MiB in {_time(rest_ns['predicted'])}, "
            f"actual {_mib(rest['actual'])} MiB in {_time(rest_ns['actual'])}",
            f"total: predicted {_time(total['predicted'])} (80 % {' to '.join(map(_time, total['predicted_80']))}), "
            f"actual {_time(total['actual'])}",
            f"downtime: actual {_time(summary['downtime_ns']['actual'])}; that of the guest's state is not predicted",
        ]
    if qemu is not None:
        lines.append(
            f"QEMU's loop: {qemu['syncs']} syncs, total {_ms(qemu['total_ms'])}, downtime {_ms(qemu['downtime_ms'])}, "
            f"P(converged) {qemu['p_converged']:.2f}"
        )
    return lines


def _mib(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:,.0f}" if size >= 10 << 20 else f"{size / 2**20:.1f}"


def _seconds(ns: int | None) -> str:
    return "-" if ns is None else f"{ns / 1e9:.2f} s"


def _time(ns: int | None) -> str:
    return "-" if ns is None else format_duration(ns)


def _ms(value: int | None) -> str:
    return "-" if value is None else f"{value:,} ms"
