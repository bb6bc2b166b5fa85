"""The command line's arguments: a parser for the command that was chosen, and one that says what is wrong."""

from __future__ import annotations

import argparse
import importlib
import keyword
import re
from typing import Any, NoReturn

from replay.cli import overview


class Parser(argparse.ArgumentParser):
    """argparse's, but an error says which name is nearest."""

    def error(self, message: str) -> NoReturn:
        super().error(message + self._hint(message))

    def _hint(self, message: str) -> str:
        wrong = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if wrong:
            known, given = re.findall(r"'([^']*)'", wrong[2]), wrong[1]
        elif "unrecognized arguments: " in message:
            given = message.partition("unrecognized arguments: ")[2].split()[0].partition("=")[0]
            known = [flag for action in self._actions for flag in action.option_strings if len(flag) > 2]
        else:
            return ""
        import difflib

        near = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
        return f". Did you mean {near[0]!r}?" if near else ""


class _Overview(Parser):
    """For a line that does not begin with a command: its help is the overview of all."""

    commands: dict[str, str]

    def format_help(self) -> str:
        return overview.text(self.commands, str(self.epilog))


def parse(given: list[str], commands: dict[str, str], exit_codes: str) -> argparse.Namespace:
    """The arguments, with `command`. Exits as argparse does: after a command's help, and with 2 after a mistake."""
    if given and given[0] in commands:
        parsed = command_parser(given[0], commands[given[0]], exit_codes).parse_args(given[1:])
        parsed.command = given[0]
        return parsed
    parser = _Overview(prog="replay", usage=overview.USAGE, epilog=exit_codes)
    parser.commands = commands
    parser.add_argument("--version", action="version", version=overview.VERSION)
    parser.add_argument("command", metavar="COMMAND", choices=list(commands))
    parser.parse_args(given)
    return parser.error("a command comes first, and then what it takes")


def command_parser(name: str, summary: str, epilog: str) -> Parser:
    """The parser of one command."""
    parser = Parser(
        prog=f"replay {name}",
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module(name).add_arguments(parser)
    return parser


def module(command: str) -> Any:
    """The file of a command; one that is a word of Python's has an underscore at its end."""
    return importlib.import_module(f"replay.cli.{command}{'_' * keyword.iskeyword(command)}")
