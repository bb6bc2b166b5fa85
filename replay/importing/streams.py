"""Input files as streams in bounded memory: standard input, gzip and zstd (told by their first bytes), lines, progress.

What is read is hashed as it lies on disk, for the trace's provenance. A line longer than `MAX_LINE_BYTES` is counted,
not kept, so that a file without line ends needs no more memory than any other.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from replay.errors import TraceError

if TYPE_CHECKING:
    from replay.importing.tally import Tally

BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 16
TOO_LONG = f"longer than {MAX_LINE_BYTES:,} bytes"
STDIN = "-"

Progress = Callable[[int, int], None]
"""Called with (bytes read, bytes of all files), not for standard input; raise from it to cancel."""

_CODECS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


class Chunk(NamedTuple):
    """Consecutive lines of one file, without their line ends; the first has number `first` (from 1).

    None stands for a line that was too long, which is counted already.
    """

    name: str
    first: int
    lines: list[bytes | None]


def quoted(text: bytes | str, width: int = 80) -> str:
    """Input as an error message shows it: printable, and cut."""
    shown = repr(text.decode("utf-8", "replace") if isinstance(text, bytes) else text)
    return shown if len(shown) <= width else shown[: width - 4] + "..." + shown[0]


class Sources:
    """The input files of an import, in the order given."""

    def __init__(self, names: list[str], progress: Progress | None = None) -> None:
        self.names = names
        self.digest = hashlib.sha256()
        self._progress = progress
        self._read = 0
        self._total = 0 if STDIN in names else sum(_size(name) for name in names)

    def note(self, block: bytes) -> None:
        """Count and hash a block of raw input."""
        self.digest.update(block)
        self._read += len(block)
        if self._progress is not None and self._total:
            self._progress(self._read, self._total)

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """One input as a stream of its (decompressed) bytes. Raises TraceError where it is damaged or missing."""
        try:
            with contextlib.ExitStack() as stack:
                file = sys.stdin.buffer if name == STDIN else stack.enter_context(Path(name).open("rb"))
                raw = io.BufferedReader(_Watched(file, self), BLOCK_BYTES)
                codec = next((codec for magic, codec in _CODECS.items() if raw.peek(4).startswith(magic)), None)
                if codec is None:
                    yield raw
                    return
                import pyarrow as pa

                packed = pa.CompressedInputStream(pa.PythonFile(raw, "r"), codec)
                yield io.BufferedReader(_Unpacked(packed, name, codec), BLOCK_BYTES)
        except OSError as error:
            raise TraceError(f"{_shown(name)}: cannot be read: {error.strerror or error}") from None

    def blocks(self, name: str) -> Iterator[bytes]:
        """The bytes of one input, in blocks."""
        with self.open(name) as stream:
            while block := stream.read(BLOCK_BYTES):
                yield block

    def chunks(self, tally: Tally) -> Iterator[Chunk]:
        """The lines of all inputs. Counts every line as read, and those that are too long as dropped."""
        for name in self.names:
            yield from self._chunks(name, tally)

    def _chunks(self, name: str, tally: Tally) -> Iterator[Chunk]:
        rest, number, long = b"", 1, False
        for block in self.blocks(name):
            *lines, rest = (rest + block).split(b"\n")
            if lines:
                yield self._checked(name, number, lines, tally, long)
                number, long = number + len(lines), False
            if long or len(rest) > MAX_LINE_BYTES:
                rest, long = rest[:80], True
        if rest or long:
            yield self._checked(name, number, [rest], tally, long)

    def _checked(self, name: str, number: int, lines: list[bytes], tally: Tally, long: bool) -> Chunk:
        """Lines as a chunk: `long` says that the beginning of the first one was too long already."""
        tally.read += len(lines)
        kept: list[bytes | None] = list(lines)
        for at, line in enumerate(lines):
            if len(line) > MAX_LINE_BYTES or (long and not at):
                tally.drop(TOO_LONG, f"{_shown(name)}:{number + at}", line[:80])
                kept[at] = None
        return Chunk(_shown(name), number, kept)


class _Watched(io.RawIOBase):
    """A raw file that tells `Sources` what passes through it."""

    def __init__(self, file: IO[bytes], sources: Sources) -> None:
        self._file = file
        self._sources = sources

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        block = self._file.read(len(buffer))
        buffer[: len(block)] = block
        if block:
            self._sources.note(block)
        return len(block)


class _Unpacked(io.RawIOBase):
    """A decompressed stream whose errors say which file is damaged."""

    def __init__(self, stream: IO[bytes], name: str, codec: str) -> None:
        self._stream = stream
        self._what = f"{_shown(name)}: damaged {codec} data"

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        try:
            block = self._stream.read(len(buffer))
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines() or ["unreadable"]
            raise TraceError(
                f"{self._what}: {reason[0]}; to import what can be unpacked, unpack it and give FILE as -"
            ) from None
        buffer[: len(block)] = block
        return len(block)


class Utf8(io.RawIOBase):
    """A stream of text that is UTF-8 whatever its source holds: what is none becomes U+FFFD."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        text, block = b"", b"more"
        while block and not text:
            block = self._stream.read(max(len(buffer) // 3 - 4, 1))  # a byte becomes three at most
            text = self._decoder.decode(block, final=not block).encode()
        buffer[: len(text)] = text
        return len(text)


def _shown(name: str) -> str:
    return "standard input" if name == STDIN else name


def _size(name: str) -> int:
    try:
        return Path(name).stat().st_size
    except OSError as error:
        raise TraceError(f"{name}: cannot be read: {error.strerror or error}") from None
