"""Where this package keeps what can be made again: compiled kernels, decoded traces. Names, ownership, locks; no numba.

The first writable place of $REPLAY_CACHE_DIR, $XDG_CACHE_HOME/dirtyreplay, ~/.cache/dirtyreplay and a folder of the
user's own in the temporary directory; None where nothing is writable, which is no obstacle: whoever asks does without.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_COMPILED = ("jit.py", "work.py", "verbs.py", "kernels", "dirtylogs", "designs", "migration", "trace")
_KEEP_FOLDERS = 6
_KEEP_SECONDS = 14 * 86_400


def candidates() -> list[Path]:
    """Folders to try, in their order."""
    places = []
    if given := os.environ.get("REPLAY_CACHE_DIR"):
        places.append(Path(given))
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        places.append(Path(xdg) / "dirtyreplay")
    home = os.path.expanduser("~")
    if home not in ("~", "/"):
        places.append(Path(home) / ".cache" / "dirtyreplay")
    with contextlib.suppress(OSError):  # it raises where no folder for temporary files can be written
        places.append(Path(tempfile.gettempdir()) / f"dirtyreplay-{os.getuid()}")
    return places


def writable_folder(name: str) -> Path | None:
    """The folder `name` in the first place where it can be written; made if need be."""
    for place in candidates():
        folder = place / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if folder.stat().st_uid != os.getuid() and os.getuid() != 0:
                continue  # somebody else's folder in a shared temporary directory: its pickles are not ours to load
            descriptor, probe = tempfile.mkstemp(dir=folder)
            os.close(descriptor)
            os.unlink(probe)
        except OSError:
            continue
        return folder
    return None


def sources_digest(switches: tuple[object, ...], extra: tuple[Path, ...]) -> str:
    """A short digest of all sources that kernels are compiled from, of `switches` and of `extra` files."""
    digest = hashlib.sha256(repr(switches).encode())
    for name in _COMPILED:
        place = _PACKAGE / name
        for path in [place] if place.is_file() else sorted(place.glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for path in extra:
        digest.update(str(path.resolve()).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def prune(current: Path) -> None:
    """Remove kernels of other source versions: all but the newest few, and whatever is older than two weeks."""
    try:
        folders = [path for path in current.parent.glob("kernels-*") if path.is_dir() and path != current]
        folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for rank, path in enumerate(folders):
            if rank >= _KEEP_FOLDERS or time.time() - path.stat().st_mtime > _KEEP_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
    except OSError:
        pass


class Locks:
    """Locks by name between processes: bytes of one file, which end with the process that holds them.

    Threads of one process do not exclude one another. Where the file system knows no locks, nothing is locked.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Wait for the lock of this name, and hold it."""
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
        taken = self._change(fcntl.LOCK_EX, place)
        try:
            yield
        finally:
            if taken:
                self._change(fcntl.LOCK_UN, place)

    def _change(self, what: int, place: int) -> bool:
        try:
            if self._file is None:  # it stays open: closing any descriptor of the file would give up every lock
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.lockf(self._file, what, 1, place)
        except OSError:
            return False
        return True
