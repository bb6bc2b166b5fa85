"""Streams of events: joined in time order, and written to a new trace file, in memory that does not grow with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from replay.errors import UsageError
from replay.trace.events import Events
from replay.trace.reader import Trace, open_trace
from replay.trace.schema import TraceMetadata
from replay.trace.writer import Progress, TraceWriter

WINDOW_EVENTS = 1 << 19


def check_output(output: str | os.PathLike[str], sources: Iterable[Trace]) -> None:
    """Raises UsageError when the output is one of the inputs: it would be gone before it was read."""
    target = Path(output)
    for source in sources:
        if target.exists() and source.path.exists() and target.samefile(source.path):
            raise UsageError(f"{target}: is the input; write to another file")


def write(
    output: str | os.PathLike[str],
    metadata: Callable[[], TraceMetadata],
    events: Iterable[Events],
    *,
    sources: bool,
    nothing: str,
    progress: Progress | None = None,
) -> Trace:
    """A trace file of `events`. metadata: asked before the first and after the last of them, so that it may depend on
    what was read. nothing: the error's text when there are no events. Raises UsageError (then), TraceError.
    """
    with TraceWriter(output, metadata(), sources=sources) as writer:
        writer.append_windows(events, progress)
        if not writer.n_events:
            raise UsageError(f"{Path(output)}: not written: {nothing}")
        writer.metadata = metadata()
    return open_trace(output)


def joined(streams: Sequence[Iterator[Events]]) -> Iterator[Events]:
    """The events of all streams in (time, stream) order, however each is cut; one window of each is held at a time.

    In every round the stream whose window ends first is used up; of streams before it all events up to that time are
    taken, of streams behind it those before that time, because more of its own may follow at that very time.
    """
    held = [_next(stream) for stream in streams]
    while any(window is not None for window in held):
        until, limiting = min((int(window.t_ns[-1]), index) for index, window in enumerate(held) if window is not None)
        parts = []
        for index, window in enumerate(held):
            if window is None:
                continue
            ready = int(np.searchsorted(window.t_ns, np.uint64(until), side="right" if index <= limiting else "left"))
            parts.append(Events(*(column[:ready] for column in window)))
            rest = Events(*(column[ready:] for column in window))
            held[index] = rest if rest.t_ns.size else _next(streams[index])
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        order = np.argsort(columns[0], kind="stable")
        yield Events(*(column[order] for column in columns))


def _next(stream: Iterator[Events]) -> Events | None:
    """The next window that holds an event, or None."""
    return next((window for window in stream if window.t_ns.size), None)
