"""Whatever ends a sweep, what was finished is kept, and going on gives the bytes of an undisturbed one."""

from __future__ import annotations

import resource
import signal
import threading

import pytest

import replay
from replay.errors import ReplayError, ResultError, UsageError
from replay.sweeping import journal, store
from replay.sweeping.journal import StoreError
from tests.sweeping.common import GUEST, OTHER, PLAN, RUNS, TOML, begun, content, plan, stopped_midway


def kept(folder) -> int:
    return sum(1 for _ in journal.documents(store.journals(folder)))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_killed_or_interrupted_it_goes_on(number, code, whole, tmp_path):
    (tmp_path / "plan.toml").write_text(TOML)
    folder = tmp_path / "out"
    left, said = stopped_midway(begun("plan.toml", "-o", "out", "--jobs", "1", cwd=tmp_path), folder, number)
    assert left == code
    assert "Traceback" not in said
    before = kept(folder)
    assert 0 < before < RUNS
    with pytest.raises(ResultError, match="not complete"):
        replay.load_sweep(folder)
    report = replay.sweep(tmp_path / "plan.toml", folder, resume=True)
    assert (report.found, report.ran, report.complete) == (before, RUNS - before, True)
    assert kept(folder) == RUNS
    if number != signal.SIGKILL:
        assert "--resume" in said
    told = replay.load_sweep(folder).runs.collect()
    assert told.equals(replay.load_sweep(whole).runs.collect())
    named = content(folder)
    again = tmp_path / "again"
    replay.sweep(tmp_path / "plan.toml", again)
    assert named == content(again)


def test_a_full_disk_keeps_what_was_finished(whole, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(StoreError, match="make room and go on with --resume"):
            replay.sweep(PLAN, tmp_path, jobs=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "journal" / "1-of-1.journal").stat().st_size <= 50_000
    found = kept(tmp_path)
    assert 0 < found < RUNS
    assert replay.sweep(PLAN, tmp_path, resume=True).found == found
    assert content(tmp_path) == content(whole)


def test_a_disk_full_at_the_end_leaves_every_run(whole, tmp_path):
    replay.sweep(PLAN, tmp_path)
    (tmp_path / "dataset" / "points.parquet").unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, before[1]))
    try:
        with pytest.raises(StoreError, match="every run is safe"):
            replay.sweep(PLAN, tmp_path, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.glob(".*tmp"))
    assert replay.sweep(PLAN, tmp_path, resume=True).ran == 0
    assert content(tmp_path) == content(whole)


@pytest.mark.parametrize("cut", [1, 5, 11, 300])
def test_half_a_record_is_run_again(cut, whole, tmp_path):
    replay.sweep(PLAN, tmp_path)
    path = tmp_path / "journal" / "1-of-1.journal"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - cut)
    assert replay.sweep(PLAN, tmp_path, resume=True).ran == 1
    assert kept(tmp_path) == RUNS
    assert content(tmp_path) == content(whole)


def test_flipped_bits_cost_the_runs_they_hit(whole, tmp_path):
    replay.sweep(PLAN, tmp_path)
    path = tmp_path / "journal" / "1-of-1.journal"
    data = bytearray(path.read_bytes())
    for place in (6, len(data) // 2):
        data[place] ^= 0x55
    path.write_bytes(data)
    assert replay.sweep(PLAN, tmp_path, resume=True).ran == 2
    assert content(tmp_path) == content(whole)


def test_ctrl_c_in_a_callback_keeps_what_was_finished(whole, tmp_path):
    def stop(standing):
        if standing.done == 5:
            raise KeyboardInterrupt

    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        replay.sweep(PLAN, tmp_path, progress=stop)
    assert threading.active_count() == threads
    assert kept(tmp_path) == 5
    replay.sweep(PLAN, tmp_path, resume=True)
    assert content(tmp_path) == content(whole)


def test_two_on_one_folder_refuse_each_other(tmp_path):
    seen = []

    def second(standing):
        if not seen:
            seen.append(True)
            for resume in (False, True):
                with pytest.raises(UsageError, match="another sweep is writing"):
                    replay.sweep(PLAN, tmp_path, resume=resume)
            with pytest.raises(UsageError, match="another sweep is writing"):
                replay.sweep(PLAN, tmp_path, shard="1/2", resume=True)

    replay.sweep(PLAN, tmp_path, progress=second)
    assert seen


def test_a_folder_in_use_is_not_written_to(whole, tmp_path):
    with pytest.raises(UsageError, match="holds this sweep already; go on with --resume"):
        replay.sweep(PLAN, whole)
    other = plan(axes={"design": ["bitmap"]})
    with pytest.raises(UsageError, match="another plan"):
        replay.sweep(other, whole, resume=True)
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match=r"not empty and holds no sweep \(mine.txt\)"):
        replay.sweep(PLAN, tmp_path)


def test_a_failing_run_is_recorded_and_stops_nobody(tmp_path):
    told = plan(sweep={"traces": [GUEST]}, axes={"start": ["0s", "1h"], "seed": [1, 2, 3]})
    report = replay.sweep(told, tmp_path / "a")
    assert (report.complete, sorted(report.failed)) == (True, [3, 4, 5])
    runs = replay.load_sweep(tmp_path / "a").runs.collect()
    assert runs["status"].to_list() == ["completed"] * 3 + ["failed"] * 3
    assert "start must lie within" in runs["error"][3]
    assert runs["start"].to_list() == [0] * 3 + [3600 * 10**9] * 3
    assert replay.sweep(told, tmp_path / "a", resume=True).ran == 0
    with pytest.raises(ReplayError, match="run 3, .* failed: start must lie"):
        replay.sweep(told, tmp_path / "b", jobs=1, fail_fast=True)
    assert kept(tmp_path / "b") == 2  # runs of one seed, and so of one guest, go together: 0 and 3


def test_settings_that_exclude_each_other_are_failed_runs(tmp_path):
    told = plan(
        sweep={"traces": [GUEST]}, axes={"qemu-version": ["7.2", "10.0"], "multifd-channels": [0, 2]}, baselines={}
    )
    report = replay.sweep(told, tmp_path)
    assert list(report.failed) == [1]
    assert "multifd is modelled as QEMU 9.0" in report.failed[1]


def test_what_a_machine_was_to_blame_for_is_run_again(tmp_path):
    """A policy that cannot run until a file is there: as memory that was short, or a disk that was away."""
    source = (store.Path(replay.__file__).parent / "policies" / "auto_converge.py").read_text()
    path, flag = tmp_path / "mine.py", tmp_path / "flag"
    path.write_text(
        f"{source}\n_build = build\n\n\ndef build(config):\n    open({str(flag)!r}).close()\n    return _build(config)\n"
    )
    told = plan(sweep={"traces": [GUEST]}, axes={"policy": ["none", str(path)]}, baselines={})
    report = replay.sweep(told, tmp_path / "a")
    assert list(report.failed) == [1]
    assert report.failed[1].startswith("FileNotFoundError")
    flag.write_text("")
    report = replay.sweep(told, tmp_path / "a", resume=True)
    assert (report.ran, report.failed) == (1, {})
    replay.sweep(told, tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_shards_in_one_folder(whole, tmp_path):
    for shard in ("3/3", "1/3"):
        assert not replay.sweep(PLAN, tmp_path, shard=shard).complete
    with pytest.raises(UsageError, match="holds this sweep already"):
        replay.sweep(PLAN, tmp_path, shard="1/3")
    assert replay.sweep(PLAN, tmp_path, shard="2/3").complete
    assert content(tmp_path) == content(whole)


def test_shards_in_folders_of_their_own(whole, tmp_path):
    for number in (1, 2):
        replay.sweep(PLAN, tmp_path / f"part-{number}", shard=f"{number}/2")
    parts = [tmp_path / "part-1", tmp_path / "part-2"]
    report = replay.sweep(PLAN, tmp_path / "all", merge=parts)
    assert (report.found, report.ran) == (RUNS, 0)
    assert content(tmp_path / "all") == content(whole)


def test_a_larger_plan_takes_over_the_runs_of_a_smaller(whole, tmp_path):
    axes = PLAN["axes"] | {"link": ["500Mbit/s", "1Gbit/s", "2Gbit/s"]}
    report = replay.sweep(plan(axes=axes), tmp_path / "a", merge=[whole])
    assert report.found == RUNS
    replay.sweep(plan(axes=axes), tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "-1/2"])
def test_shards_are_spelled_one_way(shard, tmp_path):
    with pytest.raises(UsageError, match="I/N"):
        replay.sweep(PLAN, tmp_path, shard=shard)


def test_a_recording_is_decoded_once_for_all_its_runs(tmp_path, monkeypatch):
    """Two files, one of them there twice under another name, eight runs each, four at once: two are decoded."""
    from replay.trace.reader import Trace

    decoded, decode = [], Trace._decode
    monkeypatch.setattr(Trace, "_decode", lambda self: (decoded.append(self.path.name), decode(self))[1])
    for name, guest in (("a", GUEST), ("b", OTHER), ("c", GUEST)):
        replay.generate(guest, tmp_path / f"{name}.parquet")
    decoded.clear()
    traces = [str(tmp_path / f"{name}.parquet") for name in "abc"]
    told = plan(
        sweep={"traces": traces, "starts": 2},
        axes={"design": ["bitmap", "double-ring:64"], "log.entries": [1024, 4096]},
        baselines={},
    )
    report = replay.sweep(told, tmp_path / "out", jobs=4)
    assert (report.total, report.failed) == (16, {})
    assert decoded == ["a.parquet", "b.parquet"]
