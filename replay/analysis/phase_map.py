"""The map that a grid of replays comes to: its frames, its axes, and where it came from."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replay.analysis.phase import PhaseFigure
from replay.axes import Axis
from replay.errors import ResultError

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

_KEY = b"replay.phase"


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What `replay.phase` returns. `frame`: a row for each cell and candidate; `cells` and `crossovers`: see
    replay.analysis.phase."""

    figure: PhaseFigure
    axes: dict[str, Axis]
    frame: pl.DataFrame
    cells: pl.DataFrame
    crossovers: pl.DataFrame
    provenance: dict[str, Any]

    def about(self) -> dict[str, Any]:
        """What the grid is of."""
        told = {key: {"name": axis.name, "values": list(axis.values)} for key, axis in self.axes.items()}
        return {"figure": self.figure.name, "axes": told, "provenance": self.provenance}

    def as_dict(self) -> dict[str, Any]:
        """The object that `replay phase --json` prints."""
        runs = self.frame.to_dicts()
        return self.about() | {
            "cells": self.spelled(self.cells), "crossovers": self.spelled(self.crossovers), "runs": runs
        }  # fmt: skip

    def spelled(self, table: pl.DataFrame) -> list[dict[str, Any]]:
        """The rows of `cells` or `crossovers` with the cell's values as they are written on the axes."""
        return [
            {key: axis.values[row[f"{key}_index"]] for key, axis in self.axes.items()} | row for row in table.to_dicts()
        ]

    def plot(self) -> Figure:
        """The picture of it, one panel a facet. Needs matplotlib."""
        from replay.analysis.phase_plot import draw

        return draw(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `frame` as Parquet, with axes and provenance as one JSON object in its metadata. Raises ResultError."""
        import pyarrow.parquet as pq

        target = Path(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        table = self.frame.to_arrow()
        document = json.dumps(self.about(), sort_keys=True)
        try:
            pq.write_table(table.replace_schema_metadata({_KEY: document}), temporary, compression="zstd")
            os.replace(temporary, target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise ResultError(f"{target}: cannot be written: {error.strerror or error}") from error
