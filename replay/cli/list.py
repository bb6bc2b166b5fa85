"""`replay list`: what there is, read from the sources without importing a plug-in."""

from __future__ import annotations

import argparse
from typing import Any

from replay.cli import show
from replay.cli.options import add_json
from replay.errors import unknown_name

KINDS = (
    "logs", "designs", "policies", "workloads", "traces", "importers", "captures", "costs", "columns", "vcpu-columns",
    "counters",
)  # fmt: skip
PLUGINS = {
    "logs": "log", "designs": "design", "policies": "policy", "workloads": "workload", "importers": "importer",
    "captures": "capture",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay list`."""
    parser.add_argument("kind", nargs="?", metavar="|".join(KINDS), help="only these (default: all but the last six)")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Print the lists."""
    if args.kind is not None and args.kind not in KINDS:
        raise unknown_name("list", args.kind, KINDS)
    kinds = KINDS[:5] if args.kind is None else (args.kind,)
    found = {kind: _entries(kind) for kind in kinds}
    if args.json:
        show.print_json(found)
        return 0
    out = show.console()
    for kind in kinds:
        out.print(_table(kind, found[kind]))
    return 0


def _entries(kind: str) -> list[dict[str, Any]]:
    plugin = PLUGINS.get(kind)
    if plugin is not None:
        from replay import plugins

        described = [plugins.describe(plugin, name) for name in plugins.names(plugin)]
        return [
            {
                "name": item.name,
                "summary": item.summary,
                "parameters": [
                    {"name": p.name, "default": p.default, "unit": p.unit, "meaning": p.help} for p in item.parameters
                ],
            }
            for item in described
        ]
    if kind == "traces":
        from replay.trace import shipped

        return [{"summary": item["title"], **item} for item in shipped.index()]
    if kind == "costs":
        from replay.migration import costs

        return [{"name": name, "summary": costs.load(name).description} for name in costs.names()]
    from replay import columns, work

    table: Any = {"columns": columns.ROUNDS, "vcpu-columns": columns.VCPUS}.get(kind, work.COUNTERS)
    return [{"name": item.name, "unit": item.unit, "summary": item.meaning} for item in table]


def _table(kind: str, entries: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    from replay.plugins import spell

    table = Table(title=kind, title_justify="left", box=None, pad_edge=False)
    table.add_column("name", no_wrap=True, style="bold")
    table.add_column("")
    for entry in entries:
        table.add_row(entry["name"], entry["summary"])
        for index, parameter in enumerate(entry.get("parameters", ())):
            value = spell(parameter["default"], parameter["unit"])
            unit = f" {parameter['unit']}" if parameter["unit"] not in ("", "ns") else ""
            short = "" if index else ", or just the value"
            table.add_row("", f"[dim]{parameter['name']}={value}{unit}{short}: {parameter['meaning']}[/dim]")
    return table
