"""A real QEMU under this machine's KVM with a dirty ring: a guest whose writes are known, captured by the kernel's tracer."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from replay.trace.reader import open_trace
from tests.end_to_end.machine import COMMAND_S, ROOT, Machine, command_line, refused

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="no /dev/kvm to use"),
]
FIRST, PAGES = 16, 128  # what boot.S writes


def mounted():
    return any(line.split()[2] == "tracefs" for line in Path("/proc/mounts").read_text().splitlines())


def with_tracer(*arguments):
    """The command line of a capture that finds the tracer mounted: here, or in a mount namespace of its own."""
    words = command_line("capture", "qemu", *arguments)
    if mounted():
        return words
    if os.geteuid() or shutil.which("unshare") is None:
        pytest.skip("tracefs is not mounted, and only root can mount it")
    script = 'mount -t tracefs nodev /sys/kernel/tracing && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh", *words]


def run(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        with_tracer(*arguments), capture_output=True, text=True, timeout=COMMAND_S, env=environment, check=False
    )
    if "this kernel has no tracepoint" in done.stderr:
        pytest.skip(done.stderr.strip())
    return done


def instances():
    listing = "ls /sys/kernel/tracing/instances"
    words = (
        ["sh", "-c", listing]
        if mounted()
        else ["unshare", "--mount", "sh", "-c", f"mount -t tracefs x /sys/kernel/tracing && {listing}"]
    )
    return subprocess.run(words, capture_output=True, text=True, timeout=20, check=True).stdout.split()


@pytest.fixture(scope="module")
def running(guest, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kvm") / "vm"
    second = f"unix:{folder / 'second'},server=on,wait=off"
    extra = ("-cpu", "qemu64", "-drive", f"file={guest / 'boot.img'},format=raw,if=ide", "-qmp", second)
    with Machine(guest, folder, *extra, accelerator="kvm,dirty-ring-size=4096", memory="64M", linux=False) as machine:
        yield machine.wait_ready()


def test_every_entry_of_the_ring_is_a_page_the_guest_writes(running, tmp_path):
    """Pages come in the order of the writes, none twice before its reset, and all of them."""
    path = tmp_path / "trace.parquet"
    before = running.state()
    done = run("--qmp", running.qmp, "--in-firmware", "--duration", "3s", "-o", path)
    assert done.returncode == 0, done.stderr
    assert running.state() == before
    assert instances() == []
    table, metadata = pq.read_table(path), open_trace(path).metadata
    t_ns, page = table["t_ns"].to_numpy(), table["page"].to_numpy().astype(np.int64)
    assert set(page.tolist()) == set(range(FIRST, FIRST + PAGES)), (done.stdout, metadata.provenance)
    assert metadata.ram_blocks[0].name == "pc.ram"
    assert len(metadata.rearm_times_ns) > 20
    pieces = [page[(t_ns >= a) & (t_ns < b)] for a, b in pairwise(metadata.rearm_times_ns)]
    steps = np.concatenate([np.diff(piece) % PAGES for piece in pieces])
    assert np.count_nonzero(steps == 1) > 0.95 * len(steps) > 500
    twice = sum(len(piece) - np.unique(piece).size for piece in pieces)
    assert twice <= len(page) // 50
    assert metadata.provenance["capture"]["log"]["lost"] == {}


def test_nothing_is_left_when_the_capture_is_killed(running, tmp_path):
    path = tmp_path / "trace.parquet"
    before = running.state()
    words = with_tracer("--qmp", running.qmp, "--in-firmware", "-o", path)
    capture = subprocess.Popen(
        words, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 20
        while not instances():
            assert time.monotonic() < end, "the tracer is not used"
            assert capture.poll() is None
            time.sleep(0.1)
        time.sleep(0.5)
        other = run("--qmp", running.folder / "second", "--in-firmware", "--duration", "1s", "-o", path)
        assert other.returncode == 2
        assert "another capture of this guest" in other.stderr
        assert capture.poll() is None
    finally:
        capture.kill()
        capture.wait(20)
    time.sleep(2)
    assert instances() == []
    assert running.state() == before
    assert not path.exists()


def test_a_guest_without_paging_is_refused(running, tmp_path):
    """The guest of boot.S is in real mode, as firmware is."""
    before = running.state()
    done = run("--qmp", running.qmp, "-o", tmp_path / "trace.parquet")
    assert done.returncode == 2
    assert "still in its firmware" in done.stderr
    assert "--in-firmware" in done.stderr
    assert running.state() == before
    assert list(tmp_path.iterdir()) == []


def test_what_is_known_is_said_before_it_starts(running, tmp_path):
    done = run("--qmp", running.qmp, "--in-firmware", "--duration", "1s", "-o", tmp_path / "trace.parquet")
    assert done.returncode == 0, done.stderr
    assert "did not boot on" in " ".join(done.stderr.split())


def test_what_kvm_does_not_do_is_refused(running, guest, tmp_path):
    output = tmp_path / "trace.parquet"
    said = refused("--qmp", running.qmp, "--migrate-to", "unix:nowhere", "-o", output)
    assert "replay import kvm-ftrace" in said
    if not mounted():
        assert "mount -t tracefs" in refused("--qmp", running.qmp, "--in-firmware", "-o", output)
    with Machine(guest, tmp_path / "vm", "-cpu", "qemu64", accelerator="kvm", memory="64M", linux=False) as machine:
        done = run("--qmp", machine.qmp, "--in-firmware", "-o", output)
        assert done.returncode == 2
        assert "dirty-ring-size=4096" in done.stderr
        assert machine.state()["events"] == set()
    assert instances() == []
    assert not output.exists()
