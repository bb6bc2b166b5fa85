"""A decoded copy is used when it is right, made again when it is not, and never believed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replay
import replay.jit as jit
from replay.errors import ReplayError, TraceError
from replay.trace import reader, side_file
from replay.trace.events import Events
from replay.trace.reader import Trace, TraceReader, open_trace
from replay.trace.writer import TraceWriter
from tests.cli.calls import call

pytestmark = pytest.mark.skipif(jit.DISABLED, reason="a decoded copy is checked by a compiled kernel")
N = 5000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REPLAY_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _write(path: Path, make_metadata: Any, seed: int = 1, sources: bool = True) -> Path:
    rng = np.random.default_rng(seed)
    with TraceWriter(path, make_metadata(), sources=sources, row_group_rows=1500) as writer:
        source = "dma" if sources else None
        writer.append(np.sort(rng.integers(0, 10**6, N)), rng.integers(0, 1000, N), rng.integers(0, 4, N), source)
    return path


@pytest.fixture
def path(tmp_path: Path, make_metadata: Any) -> Path:
    folder = tmp_path / "traces"
    folder.mkdir()
    return _write(folder / "t.parquet", make_metadata)


def _plain(path: Path) -> Events:
    """The events as decoded from the trace alone."""
    return Events(*(np.concatenate(arrays) for arrays in zip(*TraceReader(path).batches(), strict=True)))


def _same(one: Events, other: Events) -> bool:
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


def _is_mapped(trace: Trace) -> bool:
    trace.decode()
    return trace._side is not None


def test_without_being_asked_nothing_is_made(path: Path, cache: Path) -> None:
    assert not _is_mapped(open_trace(path))
    assert [place.name for place in path.parent.iterdir()] == ["t.parquet"]
    assert not cache.exists()


def test_it_lies_beside_the_trace_and_is_mapped(path: Path, monkeypatch: Any) -> None:
    made = side_file.make(TraceReader(path))
    assert made == path.with_name("t.parquet.events")
    plain = _plain(path)
    monkeypatch.setattr(TraceReader, "batches", lambda *_: pytest.fail("decoded though there is a copy"))
    trace = replay.open_trace(path)
    assert _same(trace.decode(), plain)
    assert _same(Events(*(np.concatenate(a) for a in zip(*trace.for_replay(0), strict=True))), plain)
    assert [group.n_rows for group in trace.row_groups()] == [1500, 1500, 1500, 500]
    for array in trace.decode():
        assert array.flags.c_contiguous
        assert not array.flags.writeable
    assert len(trace.digest) == 64


def test_a_long_trace_is_not_streamed_when_it_is_there(path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(reader, "SHARED_EVENTS", 100)
    assert sum(1 for _ in open_trace(path).for_replay(0)) > 0
    side_file.make(TraceReader(path))
    monkeypatch.setattr(TraceReader, "batches", lambda *_: pytest.fail("decoded though there is a copy"))
    (window,) = open_trace(path).for_replay(500_000)
    assert int(window.t_ns[0]) >= 500_000


def test_a_replay_comes_to_the_same(make_metadata: Any, path: Path) -> None:
    options = {"log": "tcg", "max_bandwidth": "100MB/s", "give_up": "1s"}
    without = replay.run(replay.open_trace(path), **options)
    side_file.make(TraceReader(path))
    trace = replay.open_trace(path)
    found = replay.run(trace, **options)
    assert _is_mapped(trace)
    assert found.summary == without.summary
    assert found.provenance["trace"] == without.provenance["trace"]


def _rewrite_header(made: Path, **changes: Any) -> None:
    whole = bytearray(made.read_bytes())
    told = json.loads(whole[:4096].split(b"\n", 1)[0]) | changes
    text = json.dumps(told).encode() + b"\n"
    whole[: len(text)] = text
    made.write_bytes(whole)


def _set(made: Path, at: int, value: int) -> None:
    whole = bytearray(made.read_bytes())
    whole[at] = value if whole[at] != value else value ^ 1
    made.write_bytes(whole)


PAGES_AT = 4096 + 40960


@pytest.mark.parametrize(
    "damage",
    [
        lambda made: made.write_bytes(b""),
        lambda made: made.write_bytes(made.read_bytes()[:-1]),
        lambda made: made.write_bytes(made.read_bytes()[:4096]),
        lambda made: made.write_bytes(made.read_bytes() + b"\0"),
        lambda made: made.write_bytes(b"\xff" * made.stat().st_size),
        lambda made: made.write_bytes(b"[]\n" + made.read_bytes()[3:]),
        lambda made: _set(made, 0, 0),
        lambda made: _set(made, 4096 + 7, 0x7F),  # a time far away
        lambda made: _set(made, 4096 + 80, 0x55),  # one a little wrong
        lambda made: _set(made, PAGES_AT + 3, 0x7F),  # a page beyond memory
        lambda made: _set(made, PAGES_AT + 400, 3),  # another page
        lambda made: _set(made, made.stat().st_size - 4096 + 1, 0xFF),  # no such vCPU or source
        lambda made: _rewrite_header(made, replay_events=side_file.VERSION + 1),
        lambda made: _rewrite_header(made, byte_order="middle"),
        lambda made: _rewrite_header(made, n_events=N + 1),
        lambda made: _rewrite_header(made, sums=[1, 2, 3]),
        lambda made: _rewrite_header(made, trace=None),
        lambda made: _rewrite_header(made, trace={"bytes": 1, "changed_ns": 1, "sha256": "0"}),
    ],
)
def test_what_is_damaged_is_made_again(path: Path, damage: Any, monkeypatch: Any) -> None:
    made = side_file.make(TraceReader(path))
    good, plain = made.read_bytes(), _plain(path)
    damage(made)
    assert made.read_bytes() != good
    trace = open_trace(path)
    assert _same(trace.decode(), plain)
    assert trace._side is not None
    assert made.read_bytes() == good
    damage(made)
    monkeypatch.setattr(side_file, "_write", lambda *_: (_ for _ in ()).throw(PermissionError(13, "read-only")))
    trace = open_trace(path)
    assert _same(trace.decode(), plain)
    assert trace._side is None


def test_a_trace_that_was_changed_is_decoded_again(path: Path, make_metadata: Any) -> None:
    made = side_file.make(TraceReader(path))
    old = made.read_bytes()
    _write(path, make_metadata, seed=2)
    trace = open_trace(path)
    assert _same(trace.decode(), _plain(path))
    assert trace._side is not None
    assert trace.digest == trace._side.digest
    assert made.read_bytes() != old


def test_a_trace_that_was_only_touched_keeps_it(path: Path, monkeypatch: Any) -> None:
    side_file.make(TraceReader(path))
    os.utime(path, (1, 1))
    monkeypatch.setattr(side_file, "_write", lambda *_: pytest.fail("made again"))
    assert _is_mapped(open_trace(path))


def test_a_change_that_size_and_time_hide_is_noticed_by_its_digest(path: Path) -> None:
    side_file.make(TraceReader(path))
    times = path.stat()
    whole = bytearray(path.read_bytes())
    whole[600] ^= 1
    path.write_bytes(whole)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    trace = open_trace(path)
    trace.decode()
    with pytest.raises(TraceError, match=r"changed without changing its size or time.*trace decode --remove"):
        _ = trace.digest


def test_a_folder_that_cannot_be_written_leaves_it_to_the_cache(path: Path, cache: Path, monkeypatch: Any) -> None:
    beside, access = path.parent, os.access
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != beside and access(place, mode))
    made = side_file.make(TraceReader(path))
    assert made.parent == cache / "traces"
    trace = open_trace(path)
    assert _is_mapped(trace)
    assert trace._side is not None
    assert trace._side.path == made
    monkeypatch.undo()
    monkeypatch.setenv("REPLAY_CACHE_DIR", str(cache))
    assert side_file.make(TraceReader(path)).parent == beside
    assert not made.exists()


def test_nowhere_to_write_is_said_and_replays_do_without(path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    with pytest.raises(ReplayError, match=r"cannot be kept in .*REPLAY_CACHE_DIR.*70,000 bytes"):
        side_file.make(TraceReader(path))
    assert not _is_mapped(open_trace(path))


def test_no_room_is_said_before_anything_is_written(path: Path, cache: Path, monkeypatch: Any) -> None:
    full = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(side_file.shutil, "disk_usage", lambda place: full)
    with pytest.raises(ReplayError, match="No space left"):
        side_file.make(TraceReader(path))
    assert [place.name for place in path.parent.iterdir()] == ["t.parquet"]


def test_the_cache_folder_is_bounded(tmp_path: Path, make_metadata: Any, cache: Path, monkeypatch: Any) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place).name == "traces" and access(place, mode))
    monkeypatch.setattr(side_file, "CACHE_BYTES", 200_000)
    made = []
    for index in range(4):
        made.append(side_file.make(TraceReader(_write(tmp_path / f"{index}.parquet", make_metadata, index))))
        os.utime(made[-1], (1000 + index, 1000 + index))
    assert [place.exists() for place in made] == [False, False, True, True]


def test_writers_at_once_leave_one_whole_file(path: Path) -> None:
    plain, failed = _plain(path), []

    def work() -> None:
        try:
            for _ in range(5):
                side_file.make(TraceReader(path))
                trace = open_trace(path)
                assert _same(trace.decode(), plain)
                assert trace._side is not None
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert sorted(place.name for place in path.parent.iterdir()) == ["t.parquet", "t.parquet.events"]


def test_a_damaged_trace_gets_none(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + bytes(3000) + whole[3200:])
    with pytest.raises(TraceError):
        side_file.make(TraceReader(path))
    assert [place.name for place in path.parent.iterdir()] == ["t.parquet"]


def test_the_command_makes_and_removes_it(path: Path, capsys: Any) -> None:
    code, out, _ = call(capsys, "trace", "decode", str(path), "--json")
    told = json.loads(out)
    assert code == 0
    assert told["n_events"] == N
    assert Path(told["decoded"]).stat().st_size == told["bytes"]
    assert _is_mapped(open_trace(path))
    code, out, _ = call(capsys, "trace", "decode", str(path), "--remove", "--json")
    assert code == 0
    assert json.loads(out)["removed"] == [told["decoded"]]
    assert not _is_mapped(open_trace(path))
    code, out, _ = call(capsys, "trace", "decode", str(path), "--remove")
    assert (code, "no decoded copy" in out) == (0, True)
    code, out, _ = call(capsys, "trace", "decode", str(path))
    assert (code, "5,000 events" in out) == (0, True)


def test_processes_share_it(path: Path) -> None:
    """Two processes map the same pages of the same file."""
    side_file.make(TraceReader(path))
    code = (
        "import sys, replay\n"
        "trace = replay.open_trace(sys.argv[1]); events = trace.decode()\n"
        "maps = [line for line in open('/proc/self/maps') if line.rstrip().endswith('t.parquet.events')]\n"
        "print(len(maps), maps[0].split()[1], maps[0].split()[4])\n"
    )
    told = {
        subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    (line,) = told
    assert line.split()[:2] == ["1", "r--s"]
