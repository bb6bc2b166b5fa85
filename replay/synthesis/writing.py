"""Writing a generated guest as a trace file, window by window."""

from __future__ import annotations

import os

from replay.synthesis.synthetic import Synthetic
from replay.trace.reader import Trace, open_trace
from replay.trace.writer import Progress, TraceWriter


def write(synthetic: Synthetic, path: str | os.PathLike[str], progress: Progress | None = None) -> Trace:
    """Write all of it, in bounded memory; the file is there when it is whole. Raises UsageError, TraceError."""
    with TraceWriter(path, synthetic.metadata, sources=synthetic.has_sources) as writer:
        writer.append_windows(synthetic.windows(), progress)
        if not writer.n_events:
            raise synthetic.empty()
    return open_trace(path)
