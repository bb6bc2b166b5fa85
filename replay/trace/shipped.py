"""The traces that come with the package: found by name, wherever the package is installed or checked out.

`index.json` beside them says what each is, with its checksum; `tools/index_traces.py` writes it.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from replay.errors import TraceError, unknown_name

INDEX = "index.json"
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


def index() -> list[dict[str, Any]]:
    """What the index says of every shipped trace (see `entry`), by name. Raises TraceError without a sound one."""
    path = folder() / INDEX
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["traces"]
        if not all(isinstance(entry["name"], str) and isinstance(entry["sha256"], str) for entry in entries):
            raise ValueError("an entry has no name or checksum")
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise TraceError(f"{path}: not an index of traces ({error}); in a checkout: tools/index_traces.py") from None
    return list(entries)


def entry(path: Path) -> dict[str, Any]:
    """What the index is to say of a trace file."""
    from replay.trace.reader import open_trace

    trace = open_trace(path)
    meta = trace.metadata
    return {
        "name": path.stem,
        "title": meta.title,
        "sha256": trace.digest,
        "bytes": path.stat().st_size,
        "events": trace.n_events,
        "duration_ns": meta.duration_ns,
        "memory_bytes": meta.memory_bytes,
        "vcpus": meta.n_vcpus,
        "capture": capture_kind(meta.capture),
        "gap_ns": meta.rearm_gap_ns,
        "guest": meta.guest,
        "workload": meta.workload,
        "made_from": str(meta.provenance.get("made_from", "")),
        "made_at": str(meta.provenance.get("made_at", "")),
        "licence": meta.licence,
    }


def capture_kind(capture: str) -> str:
    """One phrase for how writes were noticed; the data card has the sentence."""
    return "stores" if "plugin" in capture else "first writes"


def index_text(place: Path) -> str:
    """The index of all traces in a folder, one entry a line. Same files, same text."""
    lines = ",\n".join(
        json.dumps(entry(path), ensure_ascii=False)
        for path in sorted(place.glob("*.parquet"), key=lambda path: path.stem)
    )
    return f'{{"traces": [\n{lines}\n]}}\n'


def checksum_fault(path: Path) -> str | None:
    """What is wrong with the bytes of a shipped trace, or None; other files have no checksum to compare with."""
    if path.suffix != ".parquet" or path.resolve().parent not in [place.resolve() for place in _PLACES]:
        return None
    expected = {item["name"]: item["sha256"] for item in index()}.get(path.stem)
    if expected is None:
        return f"is not in the index ({INDEX}); run tools/index_traces.py"
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if found != expected:
        return f"sha256 {found} is not the {expected} of the index: the file was changed or damaged; get it again"
    return None


def card(name: str) -> str:
    """The data card (Markdown) of a shipped trace. Raises UsageError for an unknown name."""
    path = folder() / f"{name}.md"
    if name not in names() or not path.is_file():
        raise unknown_name("shipped trace", name, names())
    return path.read_text(encoding="utf-8")
