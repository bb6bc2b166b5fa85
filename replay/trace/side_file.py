"""A trace's events decoded once for all processes: a file that replays map into memory instead of decoding.

Made only when asked for (`replay trace decode`), used from then on wherever the trace is opened, by all processes
together: the arrays are pages of the file. It lies beside the trace, NAME.parquet.events, or where that cannot be
written in the cache folder, whose copies may take 16 GiB in all; the longest unused go first.

*Layout.* 4096 bytes that begin with one line of JSON, then t_ns (uint64), page (uint32) and origin (uint16) as they are
in memory, each from a multiple of 4096 on: 14 bytes an event.

*What is checked.* At each mapping: the layout's version and byte order; that the trace has the size and the time of
change that it had, or else the same sha256; that the file has exactly its length; that all events are in order and
within the guest; and that the sums of the three arrays are those that were written. What does not fit is made again,
or, where that is not possible, not used. A trace that was changed without changing its size or time is noticed as soon
as its digest is asked for, which every result does (`Trace.digest`). Nothing protects from who shortens the file in
place while it is mapped; this package only replaces it.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from replay import cache_folder
from replay.errors import ReplayError, TraceError
from replay.files import replacing
from replay.trace.events import EVENT_BYTES, Events

if TYPE_CHECKING:
    from replay.trace.reader import TraceReader

VERSION = 1
CACHE_BYTES = 16 << 30
_FOLDER = "traces"
_BLOCK = 4096
_KINDS: tuple[np.dtype[Any], ...] = (np.dtype(np.uint64), np.dtype(np.uint32), np.dtype(np.uint16))
Progress = Callable[[int, int], None]


class Mapped(NamedTuple):
    """Events of a side file, and the sha256 of the trace that it was made of."""

    path: Path
    events: Events
    digest: str


def existing(trace: Path) -> list[Path]:
    """A trace's side files: beside it, and in the cache folders. Others' folders are not looked into."""
    found = [_beside(trace)]
    found += [place / _FOLDER / _name(trace) for place in cache_folder.candidates()]
    return [place for place in found if place.is_file() and place.parent.stat().st_uid in _trusted(trace)]


def _beside(trace: Path) -> Path:
    return trace.with_name(f"{trace.name}.events")


def _name(trace: Path) -> str:
    return f"{hashlib.sha256(str(trace.resolve()).encode()).hexdigest()[:16]}-{trace.name}.events"


def _trusted(trace: Path) -> tuple[int, ...]:
    return os.getuid(), 0, trace.parent.stat().st_uid


def mapped(reader: TraceReader) -> Mapped | None:
    """The events of a trace that has a side file, made again if it must be; None where none can be used."""
    for place in existing(reader.path)[:1]:
        found = _load(place, reader)
        if found is None:
            with suppress(ReplayError, OSError):
                _write(place, reader, None)
                found = _load(place, reader)
        return found
    return None


def make(reader: TraceReader, progress: Progress | None = None) -> Path:
    """Decode a trace into a side file, in bounded memory; where it lies. Raises TraceError for a damaged trace.

    progress is called with (events done, all). Raises ReplayError where no place can be written.
    """
    refused = []
    folder = cache_folder.writable_folder(_FOLDER)
    places = [_beside(reader.path)] + ([] if folder is None else [folder / _name(reader.path)])
    for place in places:
        try:
            _write(place, reader, progress)
        except OSError as error:
            refused.append(f"{place.parent} ({error.strerror or error})")
            continue
        for other in existing(reader.path):  # only the first of them is looked at
            if other != place:
                with suppress(OSError):
                    other.unlink(missing_ok=True)
        return place
    raise ReplayError(
        f"{reader.path}: its decoded events cannot be kept in {' or '.join(refused)}; set REPLAY_CACHE_DIR to a folder "
        f"that is writable and has room for {reader.n_events * EVENT_BYTES:,} bytes"
    )


def remove(trace: Path) -> list[Path]:
    """Delete a trace's side files; which there were. Raises ReplayError for one that cannot be deleted."""
    there = existing(trace)
    for place in there:
        try:
            place.unlink(missing_ok=True)
        except OSError as error:
            raise ReplayError(f"{place}: cannot be deleted: {error.strerror or error}") from error
    return there


def _offsets(n_events: int) -> list[int]:
    """Where the arrays begin, and the file's length."""
    offsets = [_BLOCK]
    for kind in _KINDS:
        offsets.append(-(-(offsets[-1] + n_events * kind.itemsize) // _BLOCK) * _BLOCK)
    return offsets


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _identity(path: Path) -> dict[str, Any]:
    """What says cheaply whether a trace is still the same."""
    status = path.stat()
    return {"bytes": status.st_size, "changed_ns": status.st_mtime_ns}


def _header(reader: TraceReader) -> dict[str, Any]:
    return {"replay_events": VERSION, "byte_order": sys.byteorder, "n_events": reader.n_events}


def _write(place: Path, reader: TraceReader, progress: Progress | None) -> None:
    *offsets, length = _offsets(reader.n_events)
    if not os.access(place.parent, os.W_OK):
        raise PermissionError(13, "Permission denied", str(place.parent))
    if shutil.disk_usage(place.parent).free < length:
        raise OSError(28, "No space left on device", str(place.parent))
    before = _identity(reader.path)
    digest = _digest(reader.path)
    sums = [0] * len(_KINDS)
    with replacing(place) as temporary, temporary.open("xb") as file:
        file.truncate(length)
        done = 0
        for events in reader.batches():
            for index, array in enumerate(events):
                file.seek(offsets[index] + done * _KINDS[index].itemsize)
                file.write(array.data)
                sums[index] = (sums[index] + int(array.sum(dtype=np.uint64))) % (1 << 64)
            done += len(events.t_ns)
            if progress is not None:
                progress(done, reader.n_events)
        if _identity(reader.path) != before:
            raise TraceError(f"{reader.path}: was changed while it was decoded; try again")
        text = json.dumps(_header(reader) | {"trace": before | {"sha256": digest}, "sums": sums}) + "\n"
        file.seek(0)
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    if place.name == _name(reader.path):
        _bound(place)


def _bound(kept: Path) -> None:
    """Remove the longest unused side files of the cache folder, until `kept` and the rest take CACHE_BYTES at most."""
    with suppress(OSError):
        others = [path for path in kept.parent.glob("*.events") if path != kept]
        room = CACHE_BYTES - kept.stat().st_size
        for path in sorted(others, key=lambda path: path.stat().st_atime_ns, reverse=True):
            room -= path.stat().st_size
            if room < 0:
                path.unlink(missing_ok=True)


def _load(place: Path, reader: TraceReader) -> Mapped | None:
    """The side file's events, None where anything is not as it should be."""
    from replay.jit import DISABLED, U64
    from replay.trace.pages import summed

    *offsets, length = _offsets(reader.n_events)
    try:
        with place.open("rb") as file:
            told = json.loads(file.read(_BLOCK).split(b"\n", 1)[0])
            if {key: told[key] for key in _header(reader)} != _header(reader) or not _same(told["trace"], reader.path):
                return None
            if DISABLED or os.fstat(file.fileno()).st_size != length:
                return None
            memory = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ)
        digest, expected = str(told["trace"]["sha256"]), [int(value) for value in told["sums"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    count = reader.n_events
    arrays = [np.frombuffer(memory, kind, count, at) for kind, at in zip(_KINDS, offsets, strict=True)]
    meta, sums = reader.metadata, np.zeros(len(_KINDS), np.uint64)
    if not summed(*arrays, U64(meta.duration_ns), U64(meta.n_pages), U64(meta.n_vcpus), sums):
        return None
    return Mapped(place, Events(*arrays), digest) if sums.tolist() == expected else None


def _same(told: dict[str, Any], trace: Path) -> bool:
    """Whether the trace is the one that a side file was made of: by size and time, else by digest."""
    now = _identity(trace)
    if told["bytes"] != now["bytes"]:
        return False
    return bool(told["changed_ns"] == now["changed_ns"] or told["sha256"] == _digest(trace))
