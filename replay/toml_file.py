"""TOML files that a user writes: plans, generated guests."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from replay.errors import UsageError


def read(path: str | Path) -> dict[str, Any]:
    """The tables of a file. Raises UsageError where it cannot be read or is not TOML."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}") from None
