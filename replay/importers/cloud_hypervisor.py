"""cloud-hypervisor: the precopy rounds in its log, as a summary; no pages are in them.

What: iterations with their bytes, bandwidth and times, and the downtime, as JSON: to put beside what `replay run`
predicts for a guest like it: `replay validate rounds.json --trace guest.parquet`. It is not a trace: the log does not
say which pages were written. How: key=value pairs of the lines, with their units turned into bytes and nanoseconds.
Cost: O(lines). Bad for: anything that asks for pages.

Models: Cloud Hypervisor from March 2026 on, vmm/src/lib.rs, log level debug (-vv).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from replay.errors import TraceError
from replay.importing.report import Report
from replay.importing.streams import Sources

PRODUCES = "rounds"
HOW = """how to record (the source's log, with debug messages):
  cloud-hypervisor -vv --log-file /tmp/source.log --api-socket /tmp/api ...
  ch-remote --api-socket /tmp/api send-migration destination_url=tcp:HOST:PORT,downtime_ms=300
then
  replay import cloud-hypervisor /tmp/source.log -o rounds.json
the log tells of rounds, not of pages: the result is a summary to compare with, not a trace that can be replayed;
beside what a trace of that guest (or of one like it) gives:
  replay validate rounds.json --trace guest.parquet
"""

_LINE = re.compile(
    rb"^(?:cloud-hypervisor|ch)?:?\s*(\d{1,9})\.(\d{1,9})s: <([^<>]{1,60})> "
    rb"(?:TRACE|DEBUG|INFO|WARN|ERROR):(\S{1,120}) -- (.*)$",
    re.DOTALL,
)
_PAIR = re.compile(r"^(\w{1,40})[=:](\d{1,15}(?:\.\d{1,9})?)([A-Za-z/]{0,8})$")
_DONE = re.compile(
    r"^Migration completed after ([\d.]{1,15})(s|ms|µs|us) with a downtime of ([\d.]{1,15})(s|ms|µs|us)"
    r"(?: \(goal was ([\d.]{1,15})(s|ms|µs|us)\))?"
)
_UNITS: dict[str, tuple[str, int]] = {
    "": ("", 1), "B": ("bytes", 1), "KiB": ("bytes", 1 << 10), "MiB": ("bytes", 1 << 20), "GiB": ("bytes", 1 << 30),
    "MiB/s": ("bytes_per_s", 1 << 20), "GiB/s": ("bytes_per_s", 1 << 30), "KiB/s": ("bytes_per_s", 1 << 10),
    "s": ("ns", 10**9), "ms": ("ns", 10**6), "us": ("ns", 10**3), "µs": ("ns", 10**3), "ns": ("ns", 1),
}  # fmt: skip
_NAMES = {"iter": "round", "total": "sent", "curr": "this_round", "bw": "bandwidth", "avg_bw": "mean_bandwidth"}
_CONVERGED = "Precopy converged: "
_NEEDED = ("iter", "total", "curr")


@dataclass(frozen=True, kw_only=True)
class Config:
    pass


def read(config: Config, sources: Sources, report: Report) -> dict[str, Any]:
    """The summary: rounds, and how the migration ended. Raises TraceError when the log has no round."""
    rounds: list[dict[str, Any]] = []
    told: dict[str, Any] = {"migrations": 0, "rounds": rounds, "completed": None}
    for chunk in sources.chunks(report.tally):
        for at, line in enumerate(chunk.lines):
            if line is not None and (reason := _take(line, told, rounds, report)):
                report.tally.drop(reason, f"{chunk.name}:{chunk.first + at}", line)
    if not rounds:
        raise TraceError(
            f"{', '.join(sources.names)}: no precopy rounds in {report.tally.read:,} lines; they are debug messages "
            f"(cloud-hypervisor -vv). {report.tally.complaint()}"
        )
    report.tally.events = len(rounds)
    return told


def _take(line: bytes, told: dict[str, Any], rounds: list[dict[str, Any]], report: Report) -> str | None:
    """Take one line; returns why it was dropped, if it was."""
    other = report.tally.other
    match = _LINE.match(line)
    if match is None:
        if not line.strip():
            other["blank lines"] += 1
            return None
        return "not a line of Cloud Hypervisor's log"
    t_ns = int(match[1]) * 10**9 + int(match[2].ljust(9, b"0"))
    message = match[5].decode("utf-8", "replace").strip()
    if message.startswith("Precopy: iter="):
        values = _pairs(message.removeprefix("Precopy: "))
        if values is None or any(_key(name, values) is None for name in _NEEDED):
            return "damaged: a round"
        if reason := report.late(t_ns):
            return reason
        begun = values["round"] == 0 or not rounds
        told["migrations"] += begun
        rounds.append({"migration": told["migrations"], "t_ns": t_ns, **values})
        return None
    if message.startswith("Migration completed after "):
        done = _DONE.match(message)
        numbers = [_scaled(done[k], done[k + 1]) for k in (1, 3, 5) if done[k]] if done else []
        if not numbers or None in numbers:
            return "damaged: end of the migration"
        told["completed"] = {"migration": told["migrations"]} | dict(
            zip(("total_ns", "downtime_ns", "downtime_limit_ns"), numbers, strict=False)
        )
    elif message.startswith(_CONVERGED):
        values = _pairs(message.removeprefix(_CONVERGED))
        if values is None or _key("curr", values) is None:
            return "damaged: convergence"
        kept = {name: values[name] for name in ("round", "this_round_bytes", "est_downtime_ns") if name in values}
        told["converged"] = {"migration": told["migrations"], "t_ns": t_ns, **kept}
    elif message.startswith("Downtime breakdown: "):
        parts = message.removeprefix("Downtime breakdown: ").partition(" ")[2].strip("() ")
        values = _pairs(parts)
        if values is None:
            return "damaged: downtime breakdown"
        told["downtime_parts"] = values
    else:
        other["other messages"] += 1
        return None
    other["ends of migrations"] += 1
    return None


def _key(name: str, values: dict[str, Any]) -> str | None:
    stem = _NAMES.get(name, name)
    return next((key for key in values if key == stem or key.startswith(f"{stem}_")), None)


def _pairs(text: str) -> dict[str, Any] | None:
    """key=value pairs with units in their names: curr=5418MiB is this_round_bytes. None: one cannot be read."""
    values: dict[str, Any] = {}
    for item in text.split():
        match = _PAIR.match(item)
        if match is None or match[3] not in _UNITS:
            return None
        unit, scale = _UNITS[match[3]]
        name = _NAMES.get(match[1], match[1])
        values[f"{name}_{unit}" if unit else name] = int(Decimal(match[2]) * scale)
    return values


def _scaled(number: str, unit: str) -> int | None:
    try:
        return int(Decimal(number) * _UNITS[unit][1])
    except ArithmeticError:
        return None
