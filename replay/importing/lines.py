"""Recordings that are text: each line is an event, known and of no use, or dropped for a reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from replay.importing.report import Batch, Report
from replay.importing.streams import Sources


def batches(sources: Sources, report: Report, take: Callable[[bytes, Batch], str | None]) -> Iterator[Batch]:
    """The events of each chunk of lines. `take` adds those of one line to a batch; it returns why a line is dropped."""
    for chunk in sources.chunks(report.tally):
        batch = Batch()
        for at, line in enumerate(chunk.lines):
            if line is not None and (reason := take(line, batch)):
                report.tally.drop(reason, f"{chunk.name}:{chunk.first + at}", line)
        yield batch
