"""The guests of a sweep: paths, globs, shipped names, generated guests, object-store URLs; each known by its content.

A URL (s3://, gs://, abfs://, hdfs://, file://) goes through pyarrow's file systems, with their options ("?region=...",
"?endpoint_override=...") and credentials, which no error repeats; its file is fetched once into a folder of the sweep.
Equal files, wherever they are, are one guest.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from replay.errors import TraceError, UsageError
from replay.files import replacing
from replay.sweeping.jobs import rate_of

_URL = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_GLOB = re.compile(r"[*?\[]")
_SECRET = re.compile(r"(://)[^/@\s]*:[^/@\s]*@")
LABEL_LENGTH = 80


@dataclass(frozen=True, kw_only=True)
class Source:
    """A guest: `label` names its partition, `spelled` opens it, `sha256` is what it is (or, generated, is made of)."""

    label: str
    spelled: str
    sha256: str
    generated: bool
    n_events: int
    n_pages: int
    duration_ns: int
    base_rate: Any  # Fraction, events a second

    def open(self) -> Any:
        """The trace or generated guest. Raises TraceError when the file is another one than when it was planned."""
        from replay import api

        opened = api.open_trace(self.spelled)
        if not self.generated and opened.digest != self.sha256:
            raise TraceError(f"{self.spelled}: its content changed since the sweep was planned; plan a new one")
        return opened


def find(given: list[str], fetched: Path) -> list[Source]:
    """The guests of a plan in its order; equal ones once. Raises UsageError and TraceError.

    fetched: folder for what comes from object stores.
    """
    found: dict[str, Source] = {}
    for text in given:
        for spelled in _spelled(text, fetched):
            source = _source(spelled)
            found.setdefault(source.sha256, source)
    return _distinct(list(found.values()))


def _spelled(text: str, fetched: Path) -> list[str]:
    from replay.synthesis.spelling import is_workload
    from replay.trace import shipped

    if _URL.match(text):
        return _fetch(text, fetched)
    if is_workload(text):
        return [text]
    if _GLOB.search(text) and not Path(text).exists():
        matches = sorted(path for path in glob.glob(text, recursive=True) if os.path.isfile(path))
        if not matches:
            raise UsageError(f"traces: {text!r} matches no file")
        return [str(Path(path).resolve()) for path in matches]
    return [str(shipped.find(text).resolve())]


def _source(spelled: str) -> Source:
    from replay import api
    from replay.synthesis.synthetic import Synthetic

    opened = api.open_trace(spelled)
    meta, rate = opened.metadata, rate_of(opened)
    if isinstance(opened, Synthetic):
        parts = [opened.label, opened.guest, opened.duration_ns, [part.origin for part in opened.parts]]
        digest, label = hashlib.sha256(json.dumps(parts).encode()).hexdigest(), opened.label
        events = int(rate * opened.duration_ns / 10**9)
    else:
        digest, label, events = opened.digest, opened.path.stem, opened.n_events
    return Source(
        label=label if len(label) <= LABEL_LENGTH else f"{label[:LABEL_LENGTH]}~{digest[:8]}",
        spelled=spelled,
        sha256=digest,
        generated=isinstance(opened, Synthetic),
        n_events=events,
        n_pages=meta.memory_bytes // meta.page_size,
        duration_ns=meta.duration_ns,
        base_rate=rate,
    )


def _distinct(sources: list[Source]) -> list[Source]:
    """Labels that differ: where two files have the same name, a part of the digest is added."""
    import dataclasses

    labels = [source.label for source in sources]
    return [
        dataclasses.replace(source, label=f"{source.label}~{source.sha256[:8]}")
        if labels.count(source.label) > 1
        else source
        for source in sources
    ]


def _fetch(url: str, folder: Path) -> list[str]:
    """Copies of what a URL, whose last part may be a glob, names. Raises TraceError and UsageError."""
    import pyarrow as pa
    from pyarrow import fs

    path, question, options = url.partition("?")
    head, _, last = path.rpartition("/")
    pattern = last if _GLOB.search(last) else None
    shown = _SECRET.sub(r"\1", url)
    try:
        system, place = fs.FileSystem.from_uri(f"{head if pattern else path}{question}{options}")
        if pattern is None:
            infos = [system.get_file_info(place)]
        else:
            infos = system.get_file_info(fs.FileSelector(place))
            infos = [info for info in infos if PurePosixPath(info.path).match(pattern)]
        infos = sorted((info for info in infos if info.type == fs.FileType.File), key=lambda info: info.path)
        if not infos:
            raise UsageError(f"traces: {shown!r} names no file")
        return [str(_copy(system, info, folder)) for info in infos]
    except (OSError, pa.ArrowException, ValueError, NotImplementedError) as error:
        told = _SECRET.sub(r"\1", str(error))
        raise TraceError(f"{shown}: cannot be read: {told}") from None


def _copy(system: Any, info: Any, folder: Path) -> Path:
    """One file of an object store, in a folder of its own so that it keeps its name; fetched again if it changed."""
    told = f"{info.path}\n{info.size}\n{info.mtime_ns}"
    place = folder / hashlib.sha256(told.encode()).hexdigest()[:16]
    target = place / PurePosixPath(info.path).name
    if target.is_file() and target.stat().st_size == info.size:
        return target.resolve()
    place.mkdir(parents=True, exist_ok=True)
    with (
        replacing(target) as temporary,
        system.open_input_stream(info.path) as stream,
        temporary.open("wb") as out,
    ):
        while piece := stream.read(1 << 22):
            out.write(piece)
    return target.resolve()
