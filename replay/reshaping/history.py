"""Where a reshaped trace comes from: the file it was made of, by checksum, and every operation, in order.

The provenance of a reshaped trace holds `operation` (its name and options) and `sources`: for each trace it was made of
the name, the digest, the title and that trace's whole provenance, so that the chain reaches back to the recordings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from replay.trace.reader import Trace
from replay.trace.schema import TraceMetadata
from replay.version import __version__

DEEPEST = 100


def provenance(sources: Sequence[Trace], operation: str, options: dict[str, Any]) -> dict[str, Any]:
    """The provenance of what `operation` makes of `sources`. made_at stays the time of the (first) recording."""
    names = [source.path.name for source in sources]
    digests = [f"sha256 {source.digest}" for source in sources]
    made: dict[str, Any] = {
        "made_by": f"replay trace {operation}",
        "made_from": ", ".join(names),
        "tool": f"dirtyreplay {__version__}",
        "source_digest": ", ".join(digests),
        "operation": {"name": operation, **options},
        "sources": [
            {"name": name, "digest": digest, "title": source.metadata.title, "provenance": source.metadata.provenance}
            for name, digest, source in zip(names, digests, sources, strict=True)
        ],
    }
    recorded = sources[0].metadata.provenance.get("made_at")
    return made | ({"made_at": recorded} if isinstance(recorded, str) else {})


def reshaped(trace: Trace, operation: str, options: dict[str, Any], limit: str | None, **changes: Any) -> TraceMetadata:
    """The metadata of `trace` after an operation; `limit`: what it adds to the trace's limits."""
    meta = trace.metadata
    told = ", ".join(f"{key} {value}" for key, value in options.items())
    common = {
        "title": f"{meta.title} ({operation}: {told})",
        "limits": meta.limits if limit is None else f"{meta.limits}; {limit}",
        "provenance": provenance([trace], operation, options),
    }
    return dataclasses.replace(meta, **(common | changes))


def steps(provenance: object, depth: int = DEEPEST) -> list[str]:
    """Every operation that led to a trace, one text each, the first one first; empty for a recording.

    A provenance is free text to the format: what does not look like a history is none. Of one with more than `depth`
    operations in a row the last ones are told.
    """
    operation = provenance.get("operation") if isinstance(provenance, dict) else None
    if not isinstance(provenance, dict) or not isinstance(operation, dict) or not depth:
        return []
    told: list[str] = []
    given = provenance.get("sources")
    sources = [source for source in given if isinstance(source, dict)] if isinstance(given, list) else []
    for source in sources:
        own = steps(source.get("provenance"), depth - 1)
        told += own if len(sources) == 1 else [f"[{source.get('name')}] {step}" for step in own]
    options = " ".join(f"{key}={value}" for key, value in operation.items() if key != "name")
    of = ", ".join(f"{source.get('name')} ({str(source.get('digest'))[:19]})" for source in sources)
    return [*told, f"{operation.get('name')} {options} of {of}"]
