"""The frame of captures: a capture of one's own, what the trace says, and files that are whole or not there."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

import replay
from replay.capturing import recorder as recording
from replay.capturing.stop import Stop
from replay.cli.main import main
from replay.errors import TraceError, UsageError
from tests.captures.common import events

MINE = '''"""mine: counts up, for the tests.

Cost: none. Models: nothing.
"""
import time
from dataclasses import dataclass
from replay.plugins import param
from replay.trace.schema import RamBlock
COST, HOW, COMMAND = "nothing", "just run it", "optional"
@dataclass(frozen=True, kw_only=True)
class Config:
    events: int = param(10, "how many", low=0)
    rearms: int = param(0, "re-arms", low=0)
    fail: bool = param(False, "fail in the end")
    wait: bool = param(False, "go on until told to stop")
def describe(config, command):
    return [f"counts to {config.events}", "costs nothing"]
def capture(config, recorder):
    facts = recorder.facts
    facts.guest, facts.workload, facts.capture = "a guest", "work", "by hand"
    facts.limits += ["first limit", "second limit"]
    recorder.begin(1_000, reorder_ns=5)
    for k in range(config.events):
        recorder.append([1_000 + k * 10, 1_000 + k * 10 - (k > 0)], [k, k + 1], k % 2)
        facts.note("turns", k)
    while config.wait and not recorder.stop.wait(0.01):
        recorder.tick()
    for k in range(config.rearms):
        recorder.rearmed(1_001 + k)
    if config.fail:
        raise OSError("broken")
    recorder.finish(9_000)
    facts.blocks, facts.n_vcpus = (RamBlock("ram", 0, 64),), 2
'''


@pytest.fixture
def mine(tmp_path):
    folder = tmp_path / "plugin"
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    (tmp_path / "out").mkdir()
    return str(folder / "mine.py"), tmp_path / "out" / "a.parquet"


def test_a_capture_of_ones_own(mine, capsys):
    kind, path = mine
    assert main(["capture", kind, "-o", str(path), "--events", "30", "--rearms", "3", "--licence", "MIT"]) == 0
    out, err = capsys.readouterr()
    assert err == "replay: counts to 30\nreplay: costs nothing\n"
    assert out.splitlines()[1] == "limits: First limit. Second limit."
    meta = replay.open_trace(path).metadata
    assert (meta.title, meta.guest, meta.licence) == ("mine: work", "a guest", "MIT")
    assert (meta.n_pages, meta.n_vcpus, meta.duration_ns) == (64, 2, 8_000)
    assert meta.rearm_times_ns == (1, 2, 3)
    told = meta.provenance["capture"]
    assert told["settings"] == {"events": 30, "rearms": 3, "fail": False, "wait": False}
    assert (told["ended"], told["n_turns"], told["turns"]) == ("end", 30, list(range(30)))
    found = events(path)
    assert len(found) == 60
    assert found[:3] == [(0, 0, 0), (0, 1, 0), (9, 2, 1)]


def test_what_the_user_says_counts_more(mine):
    kind, path = mine
    done = replay.capture_trace(kind, path, title="T", guest="G", workload="W", command=["a", "b"])
    meta = done.trace.metadata
    assert (meta.title, meta.guest, meta.workload) == ("T", "G", "W")
    assert meta.provenance["capture"]["command"] == ["a", "b"]
    assert done.to_plain()["n_events"] == 20


def test_lists_do_not_grow_for_ever(mine, monkeypatch):
    kind, path = mine
    monkeypatch.setattr(recording, "MAX_REARM_TIMES", 5)
    monkeypatch.setattr(recording, "MAX_NOTED", 7)
    meta = replay.capture_trace(kind, path, rearms=100, events=20).trace.metadata
    assert meta.rearm_times_ns is None
    assert meta.rearm_gap_ns >= 1
    assert len(meta.provenance["capture"]["turns"]) == 7
    assert meta.provenance["capture"]["n_turns"] == 20


@pytest.mark.parametrize("options", [{"events": 0}, {"fail": True}])
def test_a_capture_that_fails_leaves_what_was_there(mine, options):
    kind, path = mine
    path.write_text("old")
    with pytest.raises(TraceError, match="nothing was captured|capture mine: broken"):
        replay.capture_trace(kind, path, **options)
    assert path.read_text() == "old"
    assert [other.name for other in path.parent.iterdir()] == ["a.parquet"]


def test_nothing_captured_is_said(mine, capsys):
    kind, path = mine
    assert main(["capture", kind, "-o", str(path), "--events", "0"]) == 4
    assert "nothing was captured, so no file is written" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_and_are_as_before_afterwards(mine, number):
    kind, path = mine
    before = signal.getsignal(number)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), number))
    timer.start()
    done = replay.capture_trace(kind, path, wait="on")
    timer.join()
    assert done.ended == "interrupted"
    assert signal.getsignal(number) == before
    assert len(events(path)) == 20


def test_the_third_signal_is_not_waited_for():
    stop = Stop()
    stop.requests = 2
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt), stop.listening():
        time.sleep(5)
    timer.join()
    stop.close()


def test_the_duration_ends_it(mine):
    kind, path = mine
    begun = time.monotonic()
    done = replay.capture_trace(kind, path, wait="on", duration="300ms")
    assert done.ended == "duration"
    assert 0.25 < time.monotonic() - begun < 5


def test_waiting_is_cut_short():
    stop = Stop(200_000_000)
    stop.start()
    begun = time.monotonic()
    assert stop.wait(10)
    assert time.monotonic() - begun < 2
    other = Stop()
    threading.Timer(0.1, other.wake).start()
    assert not other.wait(10)
    other.ask()
    assert other.wait(10)
    for each in (stop, other):
        each.close()


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["no-such-kind", "-o", "x"], 2, "there are: .*kvm-microvm"),
        (["proces", "-o", "x"], 2, "Did you mean 'process'"),
        (["none.py", "-o", "x"], 2, "no such file"),
        (["process", "--", "true"], 2, "required: -o"),
        (["process", "-o", "x", "--nonsense", "1", "--", "true"], 2, "unrecognized arguments"),
        ([], 2, "required: KIND"),
    ],
)
def test_misspelt(arguments, code, why, capsys, tmp_path, monkeypatch):
    import re

    monkeypatch.chdir(tmp_path)
    try:
        got = main(["capture", *arguments])
    except SystemExit as stop:
        got = int(stop.code)
    assert got == code
    assert re.search(why, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_unknown_options_from_python(mine):
    with pytest.raises(UsageError, match="there are: events"):
        replay.capture_trace(*mine, evnts=3)
