"""The micro-VM as a capture: what its trace says is what the guest did."""

from __future__ import annotations

import json
import signal
import time

import numpy as np
import pytest

import replay
from replay.capturing import kvm, microguest
from replay.capturing.microguest import Stores, Writer
from replay.errors import ReplayError, TraceError
from tests.captures.common import capture, events, needs_kvm, needs_write_protection, start


def by_hand(writer: Writer, count: int) -> list[int]:
    """The guest's stores one by one."""
    state, pages = writer.seed, []
    for index in range(count):
        state = (state * microguest.MULTIPLIER + microguest.INCREMENT) % 2**64
        high, low, hot = state >> 32, state % 2**32, writer.n_hot if writer.kind == "hot-cold" else 0
        if writer.kind == "sequential":
            page = index % writer.n_pages
        elif hot and low < writer.hot_per_2_32:
            page = high * hot >> 32
        else:
            page = hot + (high * (writer.n_pages - hot) >> 32)
        pages.append(writer.first + page)
    return pages


@pytest.mark.parametrize("kind", ["sequential", "random", "hot-cold"])
def test_stores_are_the_same_in_one_piece_and_in_many(kind):
    writer = Writer(kind, 1000, 777, 33, 3 << 30, 2**32 - 1)
    stores = Stores(writer)
    parts = [stores.take(count).tolist() for count in (1, 0, 2, 700, 64, 1233)]
    assert [page for part in parts for page in part] == by_hand(writer, 2000)


@needs_write_protection
@pytest.mark.parametrize("writer", ["sequential", "random", "hot-cold"])
def test_the_trace_is_what_the_guest_stored(writer, tmp_path):
    """Each page once an epoch, in the order of the stores; full rings give one entry more each."""
    path = tmp_path / "a.parquet"
    done = replay.capture_trace(
        "kvm-microvm", path, writer=writer, memory="8M", vcpus=2, stores=3000, pace="2us", ring_size=256, interval="3ms"
    )
    made = done.trace.metadata.provenance["capture"]
    assert done.ended == "end"
    assert made["stores_of_each_vcpu"] == 3000
    assert made["epochs_unlike_the_stores"] == 0
    assert done.trace.metadata.n_vcpus == 2
    assert len(done.trace.metadata.rearm_times_ns) == 2
    harvests = sorted([*made["harvests"], *made.get("full_rings", [])], key=lambda row: (row[1], row[2]))
    found = events(path)
    for vcpu in range(2):
        truth = Stores(Writer(writer, vcpu * 1024, 1024, 51, round(0.9 * 2**32), 1 + vcpu)).take(3000).tolist()
        mine = [page for _, page, number in found if number == vcpu]
        expected, begun, stopped = [], 0, False
        for row in (row for row in harvests if row[1] == vcpu):
            full = row in made.get("full_rings", [])
            epoch = list(dict.fromkeys(truth[begun : row[2] + full]))
            assert len(epoch) == row[3]
            expected, begun, stopped = expected + epoch, row[2], stopped or full
        assert mine == expected
        assert stopped or writer == "hot-cold"
    assert [t for t, _, _ in found] == sorted(t for t, _, _ in found)


@needs_kvm
def test_every_store_in_a_trace_of_its_own(tmp_path):
    """What the ring saw is the first store to each page since it was armed, at the same time."""
    path, all_stores = tmp_path / "a.parquet", tmp_path / "all.parquet"
    replay.capture_trace(
        "kvm-microvm", path, vcpus=2, memory="4M", stores=4000, pace="2us", interval="2ms", all_stores=str(all_stores)
    )
    made = events(all_stores)
    for vcpu in range(2):
        truth = Stores(Writer("hot-cold", vcpu * 512, 512, 25, round(0.9 * 2**32), 1 + vcpu)).take(4000).tolist()
        mine = [(t_ns, page) for t_ns, page, number in made if number == vcpu]
        assert [page for _, page in mine] == truth
        assert {(t_ns, page) for t_ns, page, number in events(path) if number == vcpu} <= set(mine)
    assert replay.open_trace(all_stores).metadata.limits == "none: computed, not observed"


@needs_kvm
def test_a_truth_that_cannot_be_written(tmp_path):
    for name, error in (("a.parquet", "same file"), ("none/b.parquet", "cannot be written")):
        with pytest.raises(ReplayError, match=error):
            replay.capture_trace("kvm-microvm", tmp_path / "a.parquet", stores=50, all_stores=str(tmp_path / name))
    assert list(tmp_path.iterdir()) == []


@needs_kvm
def test_the_command_says_what_it_does_and_did(tmp_path):
    path = tmp_path / "a.parquet"
    code, out, err = capture("kvm-microvm", "--stores", 2000, "--pace", "2us", "-o", path)
    assert code == 0
    assert "makes a guest of its own" in err
    assert "uses 1 host CPUs" in err
    assert f"{path}: " in out
    assert max(len(line) for line in [*out.splitlines()[1:], *err.splitlines()]) <= 100
    code, out, _ = capture("kvm-microvm", "--duration", "300ms", "--json", "-o", path, "--title", "mine")
    told = json.loads(out)
    assert (code, told["ended"], told["title"]) == (0, "duration", "mine")
    assert told["n_events"] == len(events(path))
    assert replay.run(path, log="kvm-ring", max_bandwidth="100MB/s").status == "completed"


@needs_kvm
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_keeps_what_it_has(number, tmp_path):
    process = start("kvm-microvm", "--vcpus", "2", "-o", tmp_path / "a.parquet")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("*.tmp")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "stopped when asked to" in out
    assert len(events(tmp_path / "a.parquet")) > 100


@needs_kvm
def test_a_capture_is_the_same_in_a_thread(tmp_path):
    """Where no signal handler can be installed, `stop` ends it."""
    import threading

    from replay.capturing.stop import Stop

    stop, done = Stop(), []
    thread = threading.Thread(
        target=lambda: done.append(replay.capture_trace("kvm-microvm", tmp_path / "a.parquet", stop=stop))
    )
    thread.start()
    time.sleep(1)
    stop.ask()
    thread.join(60)
    stop.close()
    assert done[0].ended == "interrupted"
    assert np.diff([t for t, _, _ in events(tmp_path / "a.parquet")]).min() >= 0


def test_where_kvm_is_not_there(tmp_path, monkeypatch):
    for device, why in ((tmp_path / "none", "not there; load kvm_intel"), ("/dev/null", "is not a KVM device")):
        monkeypatch.setattr(kvm, "DEVICE", str(device))
        with pytest.raises(TraceError, match=why):
            replay.capture_trace("kvm-microvm", tmp_path / "a.parquet", stores=10)
    assert list(tmp_path.iterdir()) == []


def test_a_user_without_permission(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(kvm.os, "open", refuse)
    with pytest.raises(TraceError, match="no permission; become root"):
        kvm.Kvm()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--memory", "1T"], "at most 2147483648"),
        (["--memory", "1000001"], "at least 1048576|same number of pages"),
        (["--memory", "2097153"], "same number of pages"),
        (["--vcpus", "99"], "at most 16"),
        (["--vcpus", "3", "--memory", "1M"], "same number of pages"),
        (["--ring-size", "300"], "power of two"),
        (["--ring-size", "1M"], "at most 65536"),
        (["--ring-size", "128"], "at least 256"),
        (["--pace", "1us", "--interval", "1s"], "more than 65,536"),
        (["--pace", "0us"], "at least 1000"),
        (["--hot", "0%"], "one page hot and one cold"),
        (["--hot", "2"], "not between 0 and 1"),
        (["--writer", "rubbish"], "there are: hot-cold, random, sequential"),
        (["--duration", "5"], "needs a unit"),
        (["--", "ls"], "takes no command"),
    ],
)  # fmt: skip
def test_sizes_that_make_no_sense(options, why, tmp_path, capsys):
    from replay.cli.main import main

    assert main(["capture", "kvm-microvm", "-o", str(tmp_path / "a.parquet"), *options]) == 2
    assert any(part in capsys.readouterr().err for part in why.split("|"))
    assert list(tmp_path.iterdir()) == []


@needs_kvm
def test_a_ring_larger_than_the_kernel_allows(tmp_path, monkeypatch):
    with kvm.Kvm() as device, pytest.raises(TraceError, match="refuses dirty rings of .* allows up to"):
        kvm.Vm(device, device.max_ring_entries * 2)
