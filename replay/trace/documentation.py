"""Generated documentation: a trace's data card, and the generated sections of traces/README.md.

A section stands between `<!-- begin: NAME -->` and `<!-- end: NAME -->`; the tests compare it with what is
generated, so that tables and files cannot drift apart.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from replay.errors import TraceError
from replay.trace.events import origin_vcpu
from replay.trace.operations import describe
from replay.trace.reader import Trace
from replay.trace.schema import markdown_table
from replay.trace.shipped import capture_kind
from replay.trace.writer import write_trace
from replay.units import format_bytes, format_duration


def data_card(path: str | os.PathLike[str]) -> str:
    """The data card (Markdown) of a trace file: guest, workload, capture, limits, figures, licence."""
    f = describe(path)
    name = Path(path).stem
    start, classes, gap = f["migration_start_ns"], f["pages_by_class"], f["rearm_gap_ns"]
    about = {
        "Guest": f["guest"],
        "Workload": f["workload"],
        "Capture": f["capture"],
        "Clock": f["clock"],
        "Can miss": f["limits"],
        "Re-armed": "unknown" if gap is None else f"after {format_duration(gap)} at most"
        + ("" if f["rearms"] is None else f" ({f['rearms']} recorded times)"),
        "Throttled": "yes: do not throttle it again" if f["throttled"] else "no",
        "Migration": "none in this run" if start is None else f"a real one began at t = {start / 1e9:.3f} s",
        "Page classes": "unknown" if classes is None else
        ", ".join(f"{count:,} {kind}" for kind, count in sorted(classes.items()))
        + f" (at t = {f['page_classes_at_ns'] / 1e9:.3f} s)",
        "Recorded": f"{f['provenance']['made_at']}, {f['provenance']['made_from']}",
        "Licence": "CC0-1.0: public domain" if f["licence"] == "CC0-1.0" else f["licence"],
    }  # fmt: skip
    lines = [f"# {name}: {f['title']}", ""]
    lines += [f"- **{key}**: {value}" for key, value in about.items()]
    lines += [
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in _figures(f).items()),
    ]
    return "\n".join(lines) + "\n"


def _figures(f: dict[str, Any]) -> dict[str, str]:
    sets = {
        f"distinct pages in {format_duration(w['window_ns'])}": f"{w['mean_unique_pages']:,.0f} on average, "
        f"{w['max_unique_pages']:,} at most"
        for w in f["working_set"]
    }
    return {
        "events": f"{f['n_events']:,}",
        "length": f"{f['duration_ns'] / 1e9:.3f} s",
        "events a second": f"{f['events_per_s']:,.0f}",
        "memory": f"{format_bytes(f['memory_bytes'])}, {f['n_pages']:,} pages",
        "pages ever written": f"{f['unique_pages']:,} ({f['density']:.2%} of memory)",
        **sets,
        "events by vCPU": ", ".join(f"{vcpu}: {share:.1%}" for vcpu, share in f["vcpu_shares"].items()),
        "file": f"{f['file_bytes']:,} bytes, {f['bytes_per_event']:.2f} an event",
        "sha256": f"`{f['digest']}`",
    }


def traces_table(folder: Path, names: Sequence[str]) -> str:
    """The list of shipped traces, one row each, from their files."""
    lines = [
        "| trace | what | capture | length | events | bytes | bytes/event |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        f = describe(folder / f"{name}.parquet", windows=())
        kind = capture_kind(f["capture"])
        every = format_duration(f["rearm_gap_ns"]) if f["rearm_gap_ns"] else "unknown gap"
        lines.append(
            f"| [{name}]({name}.md) | {f['title']} | {kind}, gap {every} | {f['duration_ns'] / 1e9:.1f} s "
            f"| {f['n_events']:,} | {f['file_bytes']:,} | {f['bytes_per_event']:.2f} |"
        )
    return "\n".join(lines)


def synthetic_streams(n: int = 1 << 20) -> dict[str, Trace]:
    """Streams of n events over 16 GiB that bracket real ones: for measuring bytes an event."""
    rng = np.random.default_rng(1)
    n_pages = 1 << 22
    poisson = np.cumsum(rng.exponential(1000, n)).astype(np.int64)
    hot = np.where(rng.random(n) < 0.6, rng.integers(0, n_pages // 50, n), rng.integers(0, n_pages, n))
    batches = n // 2000
    harvested = np.sort(rng.integers(0, n_pages, (batches, 2000)), axis=1).ravel()
    times = np.repeat(np.arange(1, batches + 1) * 10_000_000, 2000)
    vcpu = rng.integers(0, 4, n)
    return {
        "Poisson times, 1 us apart; 60 % of writes to 2 % of pages": _stream(poisson, hot, vcpu),
        "Poisson times, uniform pages": _stream(poisson, rng.integers(0, n_pages, n), vcpu),
        "harvested: 2000 ascending pages every 10 ms": _stream(times, harvested, 0),
    }


def encodings_table() -> str:
    """Bytes an event that TraceWriter needs for each synthetic stream."""
    lines = ["| events | bytes/event |", "|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        for name, trace in synthetic_streams().items():
            path = Path(folder, "stream.parquet")
            events = trace.decode()
            write_trace(path, trace.metadata, events.t_ns, events.page, origin_vcpu(events.origin))
            lines.append(f"| {name} | {path.stat().st_size / trace.n_events:.2f} |")
    return "\n".join(lines)


def _stream(t_ns: Any, page: Any, vcpu: Any) -> Trace:
    return Trace.from_arrays(t_ns, page, vcpu, memory_bytes=1 << 34, n_vcpus=4)


def with_section(text: str, name: str, body: str) -> str:
    """The text with the body of its section `name` replaced. Raises TraceError when there is no such
    section."""
    pattern = re.compile(rf"(<!-- begin: {name} -->\n).*?(<!-- end: {name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise TraceError(f"no section {name!r} in the text")
    return pattern.sub(lambda match: f"{match[1]}{body}\n{match[2]}", text)


def with_generated_sections(text: str, folder: Path, names: Sequence[str]) -> str:
    """traces/README.md with its sections `fields`, `encodings` and `traces` generated anew."""
    text = with_section(text, "fields", markdown_table())
    text = with_section(text, "encodings", encodings_table())
    return with_section(text, "traces", traces_table(folder, names))
