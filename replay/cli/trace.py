"""`replay trace`: what a trace file is and what is wrong with it (info, validate); other files hold the other
subcommands."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from replay.cli import show, trace_decode, trace_fit, trace_heatmap, trace_list, trace_reshape, trace_stat

if TYPE_CHECKING:
    from rich.table import Table

EXIT_FAULTS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds all subcommands."""
    commands = parser.add_subparsers(dest="trace_command", metavar="COMMAND", required=True)
    info = commands.add_parser(
        "info", help="what it is, rates, unique pages, working sets", description="Describe a trace file."
    )
    info.set_defaults(act=_info)
    check = commands.add_parser(
        "validate",
        help="name every fault with row group and row; of a shipped trace compare the checksum",
        description=f"Check a trace file. Exit code 0: no fault, {EXIT_FAULTS}: faults.",
    )
    check.set_defaults(act=_validate)
    for command in (info, check):
        command.add_argument("file", metavar="FILE", help="trace file (Parquet), or the name of a shipped trace")
        command.add_argument("--json", action="store_true", help="print one JSON object")
    for others in (trace_stat, trace_decode, trace_heatmap, trace_fit, trace_reshape, trace_list):
        others.add_commands(commands)


def main(args: argparse.Namespace) -> int:
    """Run the chosen subcommand. Returns the exit code."""
    code: int = args.act(args)
    return code


def _validate(args: argparse.Namespace) -> int:
    from replay.trace.events import Fault
    from replay.trace.operations import validate
    from replay.trace.shipped import checksum_fault, find

    path = find(args.file)
    faults = validate(path)
    if wrong := checksum_fault(path):
        faults.append(Fault("checksum", None, None, wrong))
    if args.json:
        show.print_json({"path": str(path), "valid": not faults, "faults": [fault._asdict() for fault in faults]})
    elif faults:
        for fault in faults:
            print(f"{path}: {fault}")
    else:
        print(f"{path}: no faults")
    return EXIT_FAULTS if faults else 0


def _info(args: argparse.Namespace) -> int:
    from replay.trace.operations import describe
    from replay.trace.shipped import find

    figures = describe(find(args.file))
    if args.json:
        show.print_json(figures)
        return 0

    console = show.console()
    for table in (_identity(figures), _rates(figures), _working_sets(figures)):
        console.print(table)
    return 0


def _identity(f: dict[str, Any]) -> Table:
    from replay.reshaping.history import steps
    from replay.units import format_bytes, format_duration

    classes = f["pages_by_class"]
    rearm = "unknown" if f["rearm_gap_ns"] is None else format_duration(f["rearm_gap_ns"])
    start = f["migration_start_ns"]
    rows = {
        "title": f["title"],
        "guest": f["guest"],
        "workload": f["workload"],
        "memory": f"{format_bytes(f['memory_bytes'])}, {f['n_pages']:,} pages of {f['page_size']} bytes, "
        f"{len(f['ram_blocks'])} RAM blocks",
        "vCPUs": str(f["n_vcpus"]),
        "clock": f["clock"],
        "capture": f["capture"],
        "limits": f["limits"],
        "re-arm": f"largest gap {rearm}" + (f", {f['rearms']} times recorded" if f["rearms"] else ""),
        "throttled": "yes" if f["throttled"] else "no",
        "migration": "none recorded" if start is None else f"started at {format_duration(start)}",
        "page classes": "unknown" if classes is None else ", ".join(f"{n:,} {c}" for c, n in classes.items()),
        "made": "; ".join(str(f["provenance"].get(key, "")) for key in ("made_by", "made_from", "made_at", "tool")),
        "reshaped": "; ".join(steps(f["provenance"])) or "no",
        "licence": f["licence"],
        "digest": f"sha256 {f['digest']}",
    }
    return pairs(f["path"], rows)


def _rates(f: dict[str, Any]) -> Table:
    from replay.units import format_bytes, format_duration

    peaks = [f"{w['peak_events_per_s']:,.0f}/s over {format_duration(w['window_ns'])}" for w in f["working_set"]]
    rows = {
        "events": f"{f['n_events']:,} in {format_duration(f['duration_ns'])}, {f['row_groups']} row groups",
        "rate": f"mean {f['events_per_s']:,.0f}/s; peak {', '.join(peaks)}",
        "unique pages": f"{f['unique_pages']:,} ({format_bytes(f['unique_bytes'])})",
        "density": f"{f['density']:.3%} of memory was ever written",
        "by vCPU": ", ".join(f"{name}: {share:.1%}" for name, share in f["vcpu_shares"].items()),
        "by source": ", ".join(f"{name}: {share:.1%}" for name, share in f["source_shares"].items()),
    }
    if f["file_bytes"] is not None:
        rows["file"] = f"{format_bytes(f['file_bytes'])}, {f['bytes_per_event']:.2f} bytes an event"
    return pairs("events", rows)


def _working_sets(f: dict[str, Any]) -> Table:
    from rich import box
    from rich.table import Table

    from replay.units import format_bytes, format_duration

    table = Table(
        title="working set: distinct pages written in a window", title_justify="left", box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0), show_edge=False, pad_edge=False,
    )  # fmt: skip
    for name in ("window", "windows", "mean pages", "mean size", "max pages", "max size"):
        table.add_column(name, justify="right", no_wrap=True)
    for w in f["working_set"]:
        mean, most = w["mean_unique_pages"], w["max_unique_pages"]
        table.add_row(
            format_duration(w["window_ns"]),
            f"{w['windows']:,}",
            f"{mean:,.1f}",
            format_bytes(mean * f["page_size"]),
            f"{most:,}",
            format_bytes(most * f["page_size"]),
        )
    return table


def pairs(title: str, rows: dict[str, str]) -> Table:
    """A table of two columns: names and what they say."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table
