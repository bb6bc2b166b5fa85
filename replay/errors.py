"""One exception tree. Library code raises; only `replay.cli` prints and turns an error into an exit code."""

from __future__ import annotations

from collections.abc import Iterable


class ReplayError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class UsageError(ReplayError):
    """A name, parameter or value that the user gave is wrong."""

    exit_code = 2


class UnsafeError(ReplayError):
    """A replay lost pages, or a design was shown to be unsafe."""

    exit_code = 3


class TraceError(ReplayError):
    """A trace file is damaged, or not a trace."""

    exit_code = 4


class ResultError(ReplayError):
    """A result file is damaged, or not a result."""

    exit_code = 4


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a misspelt name: says which names exist and which is nearest."""
    known = sorted(known)
    import difflib

    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UsageError(f"no {kind} {name!r}; there are: {', '.join(known) or '(none)'}.{hint}")
