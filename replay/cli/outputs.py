"""Files that commands write: what is refused before the work, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from replay.errors import ReplayError, UsageError
from replay.files import replacing

PICTURES = (".png", ".svg", ".pdf")


def check_outputs(*outputs: tuple[str | None, tuple[str, ...]]) -> None:
    """Refuse before the work what could not be written after it. Each: a path or None, and the endings it may have."""
    for path, endings in outputs:
        if path and endings and Path(path).suffix not in endings:
            raise UsageError(f"{path}: the name must end in {', '.join(endings)}")
    for path, _ in outputs:
        if path and not Path(path).absolute().parent.is_dir():
            raise UsageError(f"{path}: there is no such folder to write to")


def save_figure(figure: Any, path: str) -> None:
    """Write a matplotlib figure in the format of the path's ending, under a temporary name first."""
    target = Path(path)
    try:
        with replacing(target) as temporary:
            figure.savefig(temporary, format=target.suffix[1:], dpi=150)
    except OSError as error:
        raise ReplayError(f"{path}: cannot be written: {error.strerror or error}") from error
