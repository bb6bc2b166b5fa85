"""`replay help`: topics, essays of plug-ins, and the help of commands."""

from __future__ import annotations

import argparse
import contextlib
import re
import textwrap
from typing import Any

from replay.cli import show, topics
from replay.cli.options import add_json
from replay.errors import UsageError

EXAMPLES = """examples:
  replay help                      # which topics there are
  replay help adding-a-design      # a section of the front page, or a page beside the code
  replay help double-ring          # the essay of a design, log, policy, workload, importer or capture
  replay help run                  # as replay run --help
"""
_LINK = re.compile(r"\[([^\]]*)\]\(([^)]*)\)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay help`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES + "\n" + (parser.epilog or "")
    parser.add_argument("topic", nargs="?", metavar="TOPIC|NAME|COMMAND", help="what to tell about (default: a list)")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Print the topic, or the list."""
    from replay.cli import main as command_line

    if args.topic is None:
        return _list(args.json)
    try:
        topic = topics.find(args.topic)
    except UsageError:
        if args.topic not in command_line.COMMANDS or args.json:
            raise
        with contextlib.suppress(SystemExit):
            command_line.main([args.topic, "--help"])
        return 0
    told = topics.text(topic)
    if args.json:
        show.print_json({"topic": topic.name, "summary": topic.summary, "text": told})
    else:
        _print(told)
        if args.topic in command_line.COMMANDS:
            show.console().print(f"replay {args.topic} --help has its options", style="dim", markup=False)
    return 0


def _list(as_json: bool) -> int:
    if as_json:
        show.print_json({"topics": [{"name": topic.name, "summary": topic.summary} for topic in topics.TOPICS]})
        return 0
    out = show.console()
    out.print(_columns([[topic.name, topic.summary] for topic in topics.TOPICS], head=None))
    out.print("\nreplay help NAME has the essay of any design, log, policy, workload, importer or capture", style="dim")
    return 0


def _print(markdown: str) -> None:
    """Markdown for a terminal: headings bold, paragraphs wrapped, tables aligned, code as it stands, no links."""
    out = show.console()
    block: list[str] = []
    code = False
    for line in [*re.sub(r"<!--.*?-->\n?", "", markdown, flags=re.DOTALL).splitlines(), ""]:
        if line.startswith("```"):
            _flush(out, block)
            code = not code
        elif code:
            print(f"    {line}".rstrip())
        elif not line.strip() or line.startswith(("#", "- ")) or (block and _other(line, block[0])):
            _flush(out, block)
            if line.startswith("#"):
                out.print(line.lstrip("# "), style="bold", markup=False)
            elif line.strip():
                block.append(line)
            else:
                print()
        else:
            block.append(line)


def _other(line: str, first: str) -> bool:
    """Whether a line begins another kind of block than the one that `first` began."""
    return line.startswith("|") != first.startswith("|")


def _flush(out: Any, block: list[str]) -> None:
    if not block:
        return
    if block[0].startswith("|"):
        rows = [[_plain(cell.strip()) for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))] for line in block]
        rows = [row for row in rows if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]
        out.print(_columns(rows[1:], head=rows[0]))
    else:
        indent = "  " if block[0].startswith("- ") else ""
        text = _plain(" ".join(line.strip() for line in block))
        print(textwrap.fill(text, show.WIDTH, subsequent_indent=indent, break_on_hyphens=False))
    block.clear()


def _plain(text: str) -> str:
    """Without links and the marks around code."""
    text = _LINK.sub(lambda found: f"{found[1]} ({found[2]})" if found[2].startswith("http") else found[1], text)
    return text.replace("`", "").replace("**", "").replace("\\|", "|")


def _columns(rows: list[list[str]], head: list[str] | None) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=head is not None)
    for number, name in enumerate(head or rows[0]):
        table.add_column(escape(name), no_wrap=number == 0, style="bold" if number == 0 else "")
    for row in rows:
        table.add_row(*map(escape, row))
    return table
