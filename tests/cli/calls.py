"""The command line, called in this process."""

from __future__ import annotations

from replay.cli.main import main


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `replay ARGUMENTS`."""
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err
