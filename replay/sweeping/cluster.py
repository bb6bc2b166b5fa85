"""Sweeps on a dask cluster: its workers run jobs as threads do, from a scheduler that runs or one started here.

Every worker compiles its kernels once (on one machine they share the cache on disk) and keeps its guests decoded. A
trace goes by its path where workers see the same file; else its bytes are put on the cluster once, and a worker that
meets them the first time keeps them in a temporary file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from replay.errors import ReplayError, UsageError
from replay.sweeping import record
from replay.sweeping.executors import Pool
from replay.sweeping.jobs import Job
from replay.sweeping.sources import Source

CONNECT_S = 20
_RETRIES = 3
_UNKNOWN = object()


def open_dask(spelled: str, jobs: int | None) -> Pool:
    """A pool of a scheduler's workers ("tcp://HOST:PORT"), or of N started here ("local:N"). Raises UsageError, and
    ReplayError when nobody answers."""
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise UsageError("dask is not installed: pip install 'dirtyreplay[cluster]'") from None

    cluster = None
    kind, _, count = spelled.partition(":")
    if kind == "local":
        if not count.isdigit() or not int(count):
            raise UsageError(f"executor dask:{spelled}: write dask:local:N, N workers")
        cluster = LocalCluster(n_workers=int(count), threads_per_worker=1, processes=True, dashboard_address=None)
        address = cluster.scheduler_address
    else:
        address = spelled
    try:
        client = Client(address, timeout=CONNECT_S)
    except (OSError, TimeoutError, ValueError) as error:
        raise ReplayError(f"no dask scheduler answers at {address}: {error}") from None
    try:
        client.wait_for_workers(1, timeout=CONNECT_S)
    except TimeoutError:
        client.close()
        raise ReplayError(f"the dask scheduler at {address} has no worker; start some: dask worker {address}") from None
    sent = _Sent(client)
    executor = client.get_executor(pure=False, retries=_RETRIES)

    def submit(job: Job) -> Future[Any]:
        future: Future[Any] = executor.submit(perform, job, sent.data(job.guest))
        return future

    def stop() -> None:
        client.close()
        if cluster is not None:
            cluster.close()

    threads: int = sum(client.nthreads().values())
    return Pool(
        slots=jobs or 2 * max(1, threads), budget=0, submit=submit, stop=stop,
        cancelled=threading.Event(),
    )  # fmt: skip


class _Sent:
    """Traces that were put on the cluster because not every worker sees their file."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._data: dict[str, Any] = {}

    def data(self, source: Source) -> Any:
        """What a job takes along: None, or the trace's bytes as they lie on the cluster."""
        if source.generated:
            return None
        known = self._data.get(source.sha256, _UNKNOWN)
        if known is _UNKNOWN or (known is not None and known.status != "finished"):  # lost with its worker
            seen: dict[str, bool] = self._client.run(_sees, source.spelled, Path(source.spelled).stat().st_size)
            held = None
            if not seen or not all(seen.values()):
                held = self._client.scatter(Path(source.spelled).read_bytes(), hash=False)
            self._data[source.sha256] = held
        return self._data[source.sha256]


def _sees(path: str, size: int) -> bool:
    return Path(path).is_file() and Path(path).stat().st_size == size


def perform(job: Job, data: bytes | None) -> dict[str, Any]:
    """What a worker does with a job."""
    if data is not None:
        job = dataclasses.replace(job, guest=dataclasses.replace(job.guest, spelled=_unpacked(job.guest, data)))
    elif not job.guest.generated and not Path(job.guest.spelled).is_file():
        return {"failed": f"a worker that came later does not see {job.guest.spelled}", "final": False}
    return record.perform(job)


_lock = threading.Lock()
_folder: tempfile.TemporaryDirectory[str] | None = None


def _unpacked(source: Source, data: bytes) -> str:
    """The file of a trace that came as bytes, in a folder that goes when this worker ends."""
    global _folder
    with _lock:
        if _folder is None:
            _folder = tempfile.TemporaryDirectory(prefix="replay-sweep-")
        path = Path(_folder.name) / source.sha256 / Path(source.spelled).name
        if not path.exists():
            if hashlib.sha256(data).hexdigest() != source.sha256:
                raise ReplayError(f"{source.spelled}: its content changed since the sweep was planned; plan a new one")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return str(path)
