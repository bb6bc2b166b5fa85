"""The folder of a sweep: who may write to it, what it is a sweep of, and which runs are there.

sweep.json             what the sweep is of; the same for everybody who takes part
journal/I-of-N.journal every finished run of a shard (1-of-1: the whole)
dataset/               the result, once every run is there: runs/, rounds/, vcpus/ by trace, points.parquet
measured.parquet       beside it: this machine's clock, which nobody can repeat
fetched/               copies of traces that came from object stores
lock, lock-I-of-N      held while somebody writes
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from replay.errors import ResultError, UsageError
from replay.files import replacing
from replay.sweeping import journal
from replay.sweeping.journal import Entry, Journal, StoreError
from replay.sweeping.plan import Plan

FORMAT_VERSION = 2
STAMP, JOURNALS, DATASET, MEASURED, FETCHED = "sweep.json", "journal", "dataset", "measured.parquet", "fetched"

_OF_PLAN = ("name", "runs", "axes", "baselines", "traces")


class Shard(NamedTuple):
    """One of `of` parts of a sweep, from 1: every `of`-th run."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """A shard as spelled: "3/8". Raises UsageError."""
        number, slash, of = text.partition("/")
        if not slash or not (number.isdigit() and of.isdigit()) or not 1 <= int(number) <= int(of):
            raise UsageError(f"shard {text!r}: write I/N, from 1/N to N/N")
        return cls(int(number), int(of))

    @property
    def name(self) -> str:
        """As files are named."""
        return f"{self.number}-of-{self.of}"

    def has(self, run: int) -> bool:
        """Whether a run is of this shard."""
        return run % self.of == self.number - 1


WHOLE = Shard(1, 1)


def stamp(plan: Plan) -> dict[str, Any]:
    """What a sweep is of: its plan, and the program that gives its numbers. No time, no machine."""
    from importlib.metadata import version

    from replay import jit
    from replay.version import __version__

    return {
        "version": FORMAT_VERSION,
        "name": plan.name,
        "plan": plan.digest,
        "runs": len(plan.runs),
        "axes": plan.axes,
        "baselines": plan.baselines,
        "traces": [
            {"label": s.label, "sha256": s.sha256, "generated": s.generated, "events": s.n_events, "pages": s.n_pages}
            for s in plan.sources
        ],
        "replay": __version__,
        "sources": jit.sources_digest(),
        "numba": jit.NUMBA_VERSION,
        "pyarrow": version("pyarrow"),
        "numpy": version("numpy"),
    }


def read_stamp(folder: Path) -> dict[str, Any]:
    """What the sweep in a folder is of. Raises ResultError when there is none."""
    try:
        told: dict[str, Any] = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        if told["version"] != FORMAT_VERSION:
            raise ResultError(
                f"{folder}: sweep format version {told['version']}, this program reads {FORMAT_VERSION}; run its plan "
                "again in another folder, or read it with the version that wrote it"
            )
    except FileNotFoundError:
        raise ResultError(f"{folder}: holds no sweep ({STAMP} is missing)") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultError(f"{folder / STAMP}: not readable: {error}") from None
    return told


class Store:
    """A sweep's folder while somebody writes to it; get one from `opened`."""

    def __init__(self, folder: Path, plan: Plan, shard: Shard) -> None:
        self.folder, self.plan, self.shard = folder, plan, shard
        self._keys = {run.index: run.key for run in plan.runs}
        (folder / JOURNALS).mkdir(exist_ok=True)
        self._journal = Journal(folder / JOURNALS / f"{shard.name}{journal.SUFFIX}")

    def entries(self) -> dict[int, Entry]:
        """Where the runs of all shards that are there lie."""
        return journal.entries(journals(self.folder), self._keys)

    def keep(self, run: int, kept: dict[str, Any]) -> None:
        """Keep what a run came to, durably. Raises StoreError."""
        self._journal.append(run, self._keys[run], kept)

    def adopt(self, folder: Path) -> None:
        """Take over the runs of another sweep's folder that are this one's too. Raises UsageError, ResultError."""
        theirs, ours = read_stamp(folder), stamp(self.plan)
        compare(folder, theirs, ours | {key: theirs[key] for key in ("plan", *_OF_PLAN)})
        there = {index for index, entry in self.entries().items() if entry.final}
        wanted = {run.key: run.index for run in self.plan.runs if run.index not in there}
        for document in journal.documents(journals(folder)):
            index = wanted.pop(document["key"], None) if document["final"] else None
            if index is not None:
                self.keep(index, document["kept"])

    def close(self) -> None:
        """Done writing."""
        self._journal.close()


def journals(folder: Path) -> list[Path]:
    """The journals of a sweep, by name."""
    return sorted((folder / JOURNALS).glob(f"*{journal.SUFFIX}"))


@contextmanager
def opened(folder: Path, plan: Plan, *, shard: Shard = WHOLE, resume: bool = False) -> Iterator[Store]:
    """The folder, locked, for this plan. Raises UsageError when it is in use, holds another sweep, or (without resume)
    this one, and StoreError when it cannot be written."""
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock(stack, folder, "lock", shared=shard != WHOLE)
            if shard != WHOLE:
                lock(stack, folder, f"lock-{shard.name}")
            _settle(folder, plan, shard, resume)
            store = Store(folder, plan, shard)
        except OSError as error:
            raise StoreError(f"{folder}: cannot be written: {error.strerror or error}") from error
        stack.callback(store.close)
        yield store


def lock(stack: ExitStack, folder: Path, name: str, *, shared: bool = False, patient: bool = False) -> None:
    """Hold a lock until the stack is left. Raises UsageError when somebody else has it (and it is not `patient`)."""
    file = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    stack.callback(os.close, file)
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if patient else fcntl.LOCK_NB))
    except BlockingIOError:
        raise UsageError(
            f"{folder}: another sweep is writing to this folder; wait for it, or choose another with -o"
        ) from None


def _settle(folder: Path, plan: Plan, shard: Shard, resume: bool) -> None:
    """Write the stamp of a new sweep, or compare with that of the sweep that is there."""
    ours = stamp(plan)
    if (folder / STAMP).exists():
        compare(folder, read_stamp(folder), ours)
        begun = (folder / JOURNALS / f"{shard.name}{journal.SUFFIX}").exists()
        if not resume and (begun or shard == WHOLE):
            raise UsageError(f"{folder}: holds this sweep already; go on with --resume, or choose another folder")
        return
    beside = [path.name for path in folder.iterdir() if path.name != FETCHED and not path.name.startswith("lock")]
    if beside:
        raise UsageError(f"{folder}: is not empty and holds no sweep ({', '.join(beside[:3])}); choose another folder")
    write_text(folder / STAMP, json.dumps(ours, indent=1, ensure_ascii=False) + "\n")


def compare(folder: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Raises UsageError naming what differs between two sweeps."""
    if theirs == ours:
        return
    if theirs["plan"] != ours["plan"]:
        what = "another plan, or its traces changed"
    else:
        what = "made by another version: " + ", ".join(
            f"{key} {theirs.get(key)}, not {ours[key]}" for key in ours if theirs.get(key) != ours[key]
        )
    raise UsageError(f"{folder}: holds a sweep of {what}; choose another folder")


def write_text(path: Path, text: str) -> None:
    """Write a small file: whole and durable, or not at all. Raises StoreError."""
    try:
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        journal.sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error
