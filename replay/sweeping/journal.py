"""The journal of a sweep: what each run came to, durable as soon as the run is done.

One file a shard, only ever appended to; a record is a mark, its length, a checksum and the compressed run, written at
once and synced to the disk. Whatever a kill, a full disk or a failing disk leaves of a record, its checksum does not
fit: reading leaves it out, the next sweep cuts it off and runs that run again. So a run is either there or to be done.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from replay.errors import ReplayError

SUFFIX = ".journal"
_MARK = b"\x89run"
_HEAD = struct.Struct("<4sII")


class StoreError(ReplayError):
    """What a run came to cannot be kept: no space, no right to write."""


class Entry(NamedTuple):
    """Where a run's record lies; `final` is False for one that may be run again."""

    path: Path
    offset: int
    length: int
    final: bool


class Journal:
    """The file that one process appends to. Raises StoreError when it cannot."""

    def __init__(self, path: Path) -> None:
        self.path = path
        new = not path.exists()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._end = _sound_end(path)
            os.ftruncate(self._file, self._end)
            if new:
                sync_folder(path.parent)
        except OSError as error:
            raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error

    def append(self, run: int, key: str, kept: dict[str, Any]) -> None:
        """Keep what a run came to; it is on the disk when this returns. After an error the file is as it was before."""
        document = {"run": run, "key": key, "final": kept.get("final", True), "kept": kept}
        payload = zlib.compress(json.dumps(document).encode(), 1)
        record = memoryview(_HEAD.pack(_MARK, len(payload), zlib.crc32(payload)) + payload)
        written = 0
        try:
            while written < len(record):
                written += os.pwrite(self._file, record[written:], self._end + written)
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._end)
            raise StoreError(
                f"{self.path}: run {run} cannot be kept: {error.strerror or error}; what was finished before is safe: "
                "make room and go on with --resume"
            ) from error
        self._end += written

    def close(self) -> None:
        """No more runs."""
        os.close(self._file)


def _records(path: Path) -> Iterator[tuple[int, bytes]]:
    """(offset, payload) of every sound record; what is damaged is stepped over, up to the next mark."""
    with path.open("rb") as file:
        if path.stat().st_size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield from _found(data)


def _found(data: mmap.mmap) -> Iterator[tuple[int, bytes]]:
    position = 0
    while (position := data.find(_MARK, position)) >= 0:
        if position + _HEAD.size > len(data):
            return
        _, length, checksum = _HEAD.unpack_from(data, position)
        payload = data[position + _HEAD.size : position + _HEAD.size + length]
        if len(payload) == length and zlib.crc32(payload) == checksum:
            yield position, payload
            position += _HEAD.size + length
        else:
            position += 1


def _sound_end(path: Path) -> int:
    end = 0
    for offset, payload in _records(path):
        end = offset + _HEAD.size + len(payload)
    return end


def entries(paths: list[Path], keys: dict[int, str]) -> dict[int, Entry]:
    """Where the record of each run lies; of several the last final one. Records of other plans' runs are left out."""
    found: dict[int, Entry] = {}
    for path in paths:
        for offset, payload in _records(path):
            told = json.loads(zlib.decompress(payload))
            run = told["run"]
            if keys.get(run) == told["key"] and (told["final"] or run not in found or not found[run].final):
                found[run] = Entry(path, offset + _HEAD.size, len(payload), told["final"])
    return found


def documents(paths: list[Path]) -> Iterator[dict[str, Any]]:
    """Every sound record: {"run", "key", "final", "kept"}."""
    for path in paths:
        for _, payload in _records(path):
            yield json.loads(zlib.decompress(payload))


def read(entry: Entry) -> dict[str, Any]:
    """What the run of an entry came to."""
    with entry.path.open("rb") as file:
        file.seek(entry.offset)
        kept: dict[str, Any] = json.loads(zlib.decompress(file.read(entry.length)))["kept"]
    return kept


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
