"""Writing a generated guest as a trace file, window by window."""

from __future__ import annotations

import os
from collections.abc import Callable

from replay.synthesis.synthetic import Synthetic
from replay.trace.events import origin_source, origin_vcpu
from replay.trace.reader import Trace, open_trace
from replay.trace.writer import TraceWriter

Progress = Callable[[int, int], None]
"""Called after every window with (guest time written, duration), both ns; raise from it to cancel."""


def write(synthetic: Synthetic, path: str | os.PathLike[str], progress: Progress | None = None) -> Trace:
    """Write all of it, in bounded memory; the file is there when it is whole. Raises UsageError, TraceError."""
    sources = synthetic.has_sources
    with TraceWriter(path, synthetic.metadata, sources=sources) as writer:
        for events in synthetic.windows():
            if not events.t_ns.size:
                continue
            source = origin_source(events.origin) if sources else None
            writer.append(events.t_ns, events.page, origin_vcpu(events.origin), source)
            if progress is not None:
                progress(int(events.t_ns[-1]), synthetic.duration_ns)
        if not writer.n_events:
            raise synthetic.empty()
    return open_trace(path)
