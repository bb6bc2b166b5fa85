"""`replay reproduce`: published experiments, replayed and compared."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from replay.cli import show
from replay.cli.options import add_json
from replay.errors import UsageError

if TYPE_CHECKING:
    from replay.reproducing.report import Report

EXAMPLES = """examples:
  replay reproduce                               # which experiments there are
  replay reproduce imamura-2024
  replay reproduce imamura-2024 --plot table.png
  replay reproduce xu-2020 --markdown
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay reproduce`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES + "\n" + (parser.epilog or "")
    parser.add_argument(
        "experiment", nargs="?", metavar="EXPERIMENT", help="a published experiment, or a scenario of your own (.toml)"
    )
    parser.add_argument("--markdown", action="store_true", help="print Markdown, ready for a mail")
    parser.add_argument("--plot", metavar="FILE", help="draw it: .png, .svg or .pdf")
    parser.add_argument(
        "--no-sensitivity", action="store_true", help="leave out what the open conditions are worth (fewer replays)"
    )
    parser.add_argument(
        "--cases", metavar="CASE_DIR", nargs="+", default=[], help="recorded migrations, for the experiment accuracy"
    )
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Replay, show, draw."""
    from replay import api
    from replay.cli.outputs import PICTURES, check_outputs, save_figure

    if args.experiment is None:
        return _list(args.json)
    if args.json and args.markdown:
        raise UsageError("--json and --markdown are two ways to print: give one of them")
    check_outputs((args.plot, PICTURES))
    show.note_compiling()
    with show.task_line(f"replaying {args.experiment}") as line:
        report = api.reproduce(
            args.experiment, sensitivity=not args.no_sensitivity, cases=args.cases,
            progress=None if line is None else lambda done, _: line(done, 0),
        )  # fmt: skip
    if args.plot:
        from replay.reproducing.picture import draw

        save_figure(draw(report), args.plot)
    if args.json:
        show.print_json(report.as_dict())
    elif args.markdown:
        from replay.reproducing.report import markdown

        print(markdown(report), end="")
    else:
        _print(report)
    return 0


def _list(as_json: bool) -> int:
    from replay.reproducing import scenario

    found = [scenario.load(name) for name in scenario.names()]
    if as_json:
        show.print_json(
            {"experiments": [{"name": one.name, "title": one.title, "source": one.source} for one in found]}
        )
        return 0
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for one in found:
        table.add_row(f"[bold]{one.name}[/bold]", f"{one.title}\n[dim]{one.source}[/dim]")
    show.console().print(table)
    return 0


def _print(report: Report) -> None:
    from rich.table import Table

    from replay.reproducing import report as reports

    out = show.console()
    out.print(report.title, style="bold", markup=False)
    out.print(report.source, style="dim", markup=False)
    clock = "measured here" if report.measured else "replayed"
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    heads = ("row", "column", f"published, {report.unit}", f"{clock}, {report.unit}", "error", "kind", "sign")
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if 2 <= index <= 4 else "left")
    for row in reports.rows(report):
        table.add_row(*row)
    out.print(table)
    for line in _notes(report):
        out.print(line, markup=False)
    if report.what_ifs:
        out.print(_what_ifs(report))


def _notes(report: Report) -> list[str]:
    from replay.reproducing.report import fit_text

    lines = []
    if report.signs:
        same = sum(sign.agrees for sign in report.signs)
        first, second = report.signs[0].columns
        lines.append(f"{first} against {second}: the sign is the same in {same} of {len(report.signs)} rows")
    lines += [f"fit: {fit_text(fit)}" for fit in report.fits]
    lines += [f"assumed, {name}: {text}" for name, text in report.assumptions]
    return [*lines, report.conclusion] if report.conclusion else lines


def _what_ifs(report: Report) -> Any:
    from rich.table import Table

    from replay.reproducing.report import what_if_row

    table = Table(
        title="How much it matters", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0),
    )  # fmt: skip
    table.add_column("if instead")
    for head in ("moves a cell by", "signs", "errors"):
        table.add_column(head, justify="right")
    for one in report.what_ifs:
        table.add_row(*what_if_row(one))
    return table
