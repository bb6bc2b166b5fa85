"""The traces that come with the package: found by name, wherever the package is installed or checked out."""

from __future__ import annotations

import os
from pathlib import Path

from replay.errors import TraceError, unknown_name

_PACKAGE = Path(__file__).resolve().parent.parent
_PLACES = (_PACKAGE.parent / "traces", _PACKAGE / "shipped")  # a checkout; an installation


def folder() -> Path:
    """Where the shipped traces are. Raises TraceError when this installation has none."""
    for place in _PLACES:
        if any(place.glob("*.parquet")):
            return place
    raise TraceError("this installation has no shipped traces; give the path of a trace file")


def names() -> list[str]:
    """Names of the shipped traces."""
    return sorted(path.stem for path in folder().glob("*.parquet"))


def find(given: str | os.PathLike[str]) -> Path:
    """The file of a trace given by path, or by the name of a shipped one."""
    path = Path(given)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    for place in _PLACES:
        candidate = place / f"{path.name}.parquet"
        if candidate.is_file():
            return candidate
    raise unknown_name("shipped trace (or file)", str(given), names())
