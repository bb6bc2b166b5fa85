"""Threads, processes, any executor, a real dask cluster that loses a worker: the same dataset, byte for byte."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

import replay
from replay.analysis.phase import figure_of
from replay.errors import ReplayError, UsageError
from replay.sweeping import run
from tests.sweeping.common import PLAN, ROOT, RUNS, TOML, begun, content, plan

WORKER = "import sys; from distributed.cli.dask_{0} import main; sys.exit(main())"


def children() -> list[int]:
    """Processes that this one has started."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def alive(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_any_executor(whole, tmp_path):
    with ThreadPoolExecutor(3) as pool:
        replay.sweep(PLAN, tmp_path / "threads", executor=pool)
        assert pool.submit(int, "1").result() == 1
    assert content(tmp_path / "threads") == content(whole)


def test_processes_of_which_one_dies(whole, tmp_path):
    before, killed = set(children()), []

    def kill(standing):
        if standing.done == 10:
            workers = [
                pid
                for pid in children()
                if pid not in before and b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
            ]
            killed.append(workers[0])
            os.kill(workers[0], signal.SIGKILL)

    report = replay.sweep(PLAN, tmp_path, executor="processes:2", progress=kill)
    assert killed
    assert (report.ran, report.failed, report.complete) == (RUNS, {}, True)
    assert content(tmp_path) == content(whole)


def test_processes_do_not_outlive_a_sweep_that_is_killed(tmp_path):
    (tmp_path / "plan.toml").write_text(TOML)
    sweep = begun("plan.toml", "-o", "out", "--executor", "processes:2", cwd=tmp_path)
    held = tmp_path / "out" / "journal" / "1-of-1.journal"
    until = time.monotonic() + 60
    while time.monotonic() < until and not (held.exists() and held.stat().st_size):
        time.sleep(0.01)
    workers = [int(pid) for pid in Path(f"/proc/{sweep.pid}/task/{sweep.pid}/children").read_text().split()]
    assert len(workers) >= 2
    sweep.kill()
    sweep.communicate(timeout=60)  # ends when nobody holds its pipes any more
    until = time.monotonic() + 20
    while time.monotonic() < until and any(alive(pid) for pid in workers):
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)


def test_an_executor_of_the_users_that_breaks_is_not_replaced(whole, tmp_path):
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    def kill(standing):
        if standing.done == 5:
            os.kill(next(iter(pool._processes)), signal.SIGKILL)

    with pytest.raises(ReplayError, match="executor is broken"):
        replay.sweep(PLAN, tmp_path, executor=pool, progress=kill)
    pool.shutdown()
    assert replay.sweep(PLAN, tmp_path, resume=True).found >= 5
    assert content(tmp_path) == content(whole)


@pytest.mark.parametrize("spelled", ["thread", "threads:2", "processes", "processes:0", "dask", "dask:local:x"])
def test_executors_are_spelled_one_way(spelled, tmp_path):
    if spelled.startswith("dask:"):
        pytest.importorskip("distributed", reason="dask.distributed is not installed (extra [cluster])")
    with pytest.raises(UsageError, match="write"):
        replay.sweep(PLAN, tmp_path, executor=spelled)


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two workers as processes of their own: its address and the processes of the workers."""
    pytest.importorskip("distributed", reason="dask.distributed is not installed (extra [cluster])")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DASK_DISTRIBUTED__WORKER__DAEMON": "false"}
    started = []

    def start(kind, *arguments):
        place = tmp_path / f"{kind}-{len(started)}"
        place.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER.format(kind), *arguments], cwd=place, env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        started.append(process)
        return process

    found = tmp_path / "scheduler.json"
    start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(found))
    until = time.monotonic() + 60
    while not found.exists() and time.monotonic() < until:
        time.sleep(0.05)
    address = json.loads(found.read_text())["address"]
    workers = [start("worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard") for _ in range(2)]
    yield address, workers
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.filterwarnings("default")
def test_a_dask_cluster_that_loses_a_worker(cluster, whole, tmp_path):
    address, workers = cluster
    begun = {}

    def kill(standing):
        begun.setdefault("workers", [worker.poll() for worker in workers])
        if standing.done == 20:
            workers[0].kill()

    report = replay.sweep(PLAN, tmp_path / "out", executor=f"dask:{address}", progress=kill)
    assert begun["workers"] == [None, None]
    assert workers[0].wait() == -signal.SIGKILL
    assert (report.ran, report.failed, report.complete) == (RUNS, {}, True)
    assert content(tmp_path / "out") == content(whole)


@pytest.mark.filterwarnings("default")
def test_dask_workers_started_here(whole, tmp_path):
    pytest.importorskip("distributed", reason="dask.distributed is not installed (extra [cluster])")
    report = replay.sweep(PLAN, tmp_path, executor="dask:local:2")
    assert (report.ran, report.failed) == (RUNS, {})
    assert content(tmp_path) == content(whole)


@pytest.mark.filterwarnings("default")
def test_dask_workers_that_do_not_see_a_trace_are_sent_it(cluster, tmp_path):
    """The path is one that only this process can open: its own descriptor of the file."""
    path = tmp_path / "guest.parquet"
    replay.generate("uniform:rate=3000,memory=32M,duration=1s", path)
    told = plan(sweep={"traces": [str(path)]}, axes={"design": ["bitmap", "double-ring:64"]})
    planned = replay.sweep_plan(told, tmp_path)
    with path.open("rb") as file:
        source = dataclasses.replace(planned.sources[0], spelled=f"/proc/self/fd/{file.fileno()}")
        runs = [
            dataclasses.replace(one, source=source, job=dataclasses.replace(one.job, guest=source))
            for one in planned.runs
        ]
        hidden = dataclasses.replace(planned, sources=[source], runs=runs)
        figure = figure_of("total-time")
        report = run.sweep(hidden, tmp_path / "sent", figure=figure, executor=f"dask:{cluster[0]}")
    assert (report.ran, report.failed) == (2, {})
    run.sweep(planned, tmp_path / "here", figure=figure)
    assert content(tmp_path / "sent") == content(tmp_path / "here")


@pytest.mark.filterwarnings("default")
def test_no_scheduler_is_an_error(tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="dask.distributed is not installed (extra [cluster])")
    from replay.sweeping import cluster as clusters

    monkeypatch.setattr(clusters, "CONNECT_S", 1)
    with pytest.raises(ReplayError, match="no dask scheduler answers at tcp://127.0.0.1:9"):
        replay.sweep(PLAN, tmp_path, executor="dask:tcp://127.0.0.1:9")
