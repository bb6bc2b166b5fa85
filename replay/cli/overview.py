"""What `replay --help` prints, and argparse's parser as its help; it needs neither argparse nor what that imports.

Starting Python takes 11 ms, importing argparse as long again: a command that only says what there is should not.
"""

from __future__ import annotations

import os

from replay.version import __version__

USAGE = "replay [-h] [--version] [-q] [-v] COMMAND ..."
DESCRIPTION = "Replay recorded guest dirty-page traces through the dirty-tracking designs of live migration."
VERSION = f"replay {__version__}"
OPTIONS = {
    "-h, --help": "show this help message and exit; after a command, what that takes",
    "--version": "show program's version number and exit",
    "-q, --quiet": "no progress and no notes; anywhere on the line",
    "-v, --verbose": "say what is used, and where an error is from; anywhere on the line",
}
_INDENT = 18


def text(commands: dict[str, str], epilog: str) -> str:
    """The help, as wide as the terminal. commands: their names and what they do."""
    width = max(_width() - 2, _INDENT + 20)
    lines = [f"usage: {USAGE}", "", *_wrapped(DESCRIPTION, width), "", "commands:"]
    lines += _described(commands, width)
    lines += ["", "options:", *_described(OPTIONS, width), "", epilog]
    return "\n".join(lines)


def _width() -> int:
    """Columns of the terminal: $COLUMNS, what it says, or 80."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(1).columns or 80
    except (OSError, ValueError):
        return 80


def _described(entries: dict[str, str], width: int) -> list[str]:
    lines = []
    for name, meaning in entries.items():
        first, *rest = _wrapped(meaning, width - _INDENT)
        lines.append(f"  {name:<{_INDENT - 4}}  {first}")
        lines += [" " * _INDENT + line for line in rest]
    return lines


def _wrapped(sentence: str, width: int) -> list[str]:
    lines = [""]
    for word in sentence.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".lstrip()
    return lines
