"""A real QEMU under TCG, a real guest, a real migration: captured, validated, and left as it was found."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest

import replay
from replay.trace.reader import open_trace
from tests.end_to_end.machine import ROOT, Machine, command_line, refused, run_replay

pytestmark = pytest.mark.end_to_end

RATE, MEGABYTES = 5000, 64
PACED = f"random:{MEGABYTES}:{RATE}"


@pytest.fixture(scope="module")
def running(guest, tmp_path_factory):
    """A guest whose writer keeps its pace; for tests that leave it as it was."""
    with Machine(guest, tmp_path_factory.mktemp("running") / "vm", workload=PACED) as machine:
        yield machine.wait_ready()


def load(path):
    table = pq.read_table(path)
    return open_trace(path).metadata, *(table[name].to_numpy() for name in ("t_ns", "page", "vcpu"))


def test_a_migration_is_captured_and_predicted(guest, tmp_path):
    """The whole way: capture, migrate to a second QEMU, validate; one that ends, and before it one that cannot."""
    target = tmp_path / "mig"
    with Machine(guest, tmp_path / "source", workload="random:64:15000") as source:
        source.wait_ready()
        before = source.state()
        cases = {"never": ("30MB", "8s"), "ends": ("90MB", "30s")}
        for name, (bandwidth, patience) in cases.items():
            with Machine(guest, tmp_path / f"to-{name}", "-incoming", f"unix:{target}") as destination:
                done = run_replay(
                    "capture", "qemu", "--qmp", source.qmp, "--migrate-to", f"unix:{target}", "--case", tmp_path / name,
                    "--bandwidth", bandwidth, "--downtime-limit", "30ms", "--give-up", patience,
                    "--workload", "random:64:15000", "-o", tmp_path / f"{name}.parquet",
                )  # fmt: skip
                assert done.returncode == 0, done.stderr
                after = source.state()
                assert after["events"] == before["events"] == set()
                assert after["parameters"] == before["parameters"]
                if name == "never":
                    assert after["status"] == "running"
                else:
                    assert after["status"] == "postmigrate"
                    assert destination.ask(("query-status", {}))[0]["status"] == "running"

    told = run_replay("validate", tmp_path / "never", tmp_path / "ends", "--json")
    assert told.returncode == 0, told.stderr
    never, ends = json.loads(told.stdout)["cases"]
    assert never["metrics"]["converged"]["actual"] is False
    assert never["metrics"]["converged"]["predicted"] is False
    assert ends["metrics"]["converged"]["actual"] is True
    assert ends["metrics"]["converged"]["predicted"] is True
    total = ends["metrics"]["total-time"]
    assert abs(total["error_pct"]) < 10, total
    assert total["actual"] > 2000
    assert abs(ends["metrics"]["normal"]["error_pct"]) < 10

    case = json.loads((tmp_path / "ends" / "case.json").read_text())
    assert len(case["rounds"]) == case["result"]["ram"]["dirty-sync-count"]
    metadata, t_ns, page, _ = load(tmp_path / "ends.parquet")
    assert len(metadata.rearm_times_ns) == len(case["rounds"])
    assert metadata.migration_start_ns is not None
    for entry in case["rounds"][1:]:
        assert_round_is_in_the_trace(entry, case["rounds"], t_ns - metadata.migration_start_ns, page)


def assert_round_is_in_the_trace(entry, rounds, t_ns, page):
    """Pages that QEMU counted as new at a sync were written since the one before, or were still to be sent then."""
    since_ns = int(rounds[entry["sync"] - 2]["start_ms"] * 1e6)
    written = np.unique(page[(t_ns >= since_ns) & (t_ns < int(entry["end_ms"] * 1e6))])
    assert entry["dirty_pages"] <= len(written) * 1.01 + 20


def test_rearming_sees_the_pace_of_the_writer(running, tmp_path):
    """Between two re-arms every page of the working set that was drawn is one event, whatever else the kernel writes."""
    before = running.state()
    path = tmp_path / "trace.parquet"
    announced = []
    done = replay.capture_trace("qemu", path, announce=announced.extend, qmp=str(running.qmp), duration="4s")
    assert done.ended == "duration"
    assert "2 vCPUs" in announced[0]
    assert running.state() == before
    metadata, t_ns, page, vcpu = load(path)
    rearm = np.array(metadata.rearm_times_ns)
    assert 35 <= len(rearm) <= 42
    pages = MEGABYTES * 256
    found = [np.unique(page[(t_ns >= a) & (t_ns < b)]) for a, b in pairwise(rearm)]
    often = np.bincount(np.concatenate(found), minlength=metadata.memory_bytes // 4096) > len(found) // 3
    expected = pages * (1 - np.exp(-RATE * np.diff(rearm) / 1e9 / pages))
    ratios = np.array([np.count_nonzero(~often[part]) for part in found]) / expected
    assert np.median(ratios) == pytest.approx(1, abs=0.1)  # the kernel's own pages are written in every interval
    assert np.count_nonzero(often) < 500
    assert np.unique(page).size == pytest.approx(pages * (1 - np.exp(-RATE * 4 / pages)), rel=0.15)
    assert set(vcpu.tolist()) == {0, 1}
    assert metadata.n_vcpus == 2
    assert metadata.ram_blocks[0].name == "pc.ram"
    assert metadata.ram_blocks[0].n_pages == 65536


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_the_guest_is_as_before_however_the_capture_ends(running, tmp_path, ending):
    """Also with settings that a migration into nothing has to change, and after the capture was killed."""
    set_on = [{"capability": "xbzrle", "state": True}, {"capability": "auto-converge", "state": True}]
    running.ask(
        ("migrate-set-capabilities", {"capabilities": set_on}),
        ("migrate-set-parameters", {"tls-creds": "some", "max-bandwidth": 12_345_678}),
        ("trace-event-set-state", {"name": "runstate_set", "enable": True}),
    )
    before = running.state()
    assert before["capabilities"] >= {"xbzrle", "auto-converge"}
    path = tmp_path / "trace.parquet"
    logged = running.log.stat().st_size
    capture = subprocess.Popen(
        command_line("capture", "qemu", "--qmp", running.qmp, "--interval", "20ms", "-o", path),
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end = time.monotonic() + 30
        while running.log.stat().st_size < logged + 200_000:
            assert time.monotonic() < end, "nothing is recorded"
            assert capture.poll() is None
            time.sleep(0.05)
        capture.send_signal(ending)
        capture.wait(30)
        if ending == signal.SIGINT:
            assert capture.returncode == 0
            assert open_trace(path).n_events > 500
        else:
            assert not path.exists()
            time.sleep(2)  # the guard connects when the socket is free
        assert running.state() == before
    finally:
        capture.kill()
        set_off = [{**item, "state": False} for item in set_on]
        running.ask(
            ("migrate-set-capabilities", {"capabilities": set_off}),
            ("migrate-set-parameters", {"tls-creds": "", "max-bandwidth": 134_217_728}),
            ("trace-event-set-state", {"name": "runstate_set", "enable": False}),
        )


def test_the_commands_of_the_readme_run(guest, tmp_path):
    """As they stand there, in a folder of their own; the tool finds what the fixture has downloaded."""
    commands = (
        (ROOT / "replay/captures/README.md").read_text().split("<!-- record a guest -->\n```bash\n")[1].split("```")[0]
    )
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    program = tmp_path / "bin" / "replay"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m replay "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{program.parent}:{os.environ['PATH']}"}
    shell = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", commands], cwd=tmp_path, env=environment, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        said, _ = shell.communicate(timeout=100)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, said
    assert json.loads((tmp_path / "migration" / "case.json").read_text())["result"]["status"] == "completed"
    assert open_trace(tmp_path / "recording.parquet").n_events > 10_000


def test_a_socket_that_is_taken_and_a_target_that_is_not_there(running, tmp_path):
    """Refused, with nothing changed and nothing written."""
    output, case = tmp_path / "trace.parquet", tmp_path / "case"
    before = running.state()
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(running.qmp))
        assert "another client" in refused("--qmp", running.qmp, "-o", output)
    arguments = ("--qmp", running.qmp, "--migrate-to", f"unix:{tmp_path / 'nowhere'}", "--case", case, "-o", output)
    assert "nowhere" in refused(*arguments, "--bandwidth", "1MB")
    assert not output.exists()
    assert not case.exists()
    assert running.state() == before
    case.mkdir()
    (case / "case.json").write_text("{}")
    assert "holds a case already" in refused(*arguments)
    assert (case / "case.json").read_text() == "{}"
    assert running.state() == before


@contextlib.contextmanager
def capturing(*arguments):
    """A capture that runs meanwhile; it must have ended well soon after. Yields a list that then holds what it said."""
    process = subprocess.Popen(
        command_line("capture", "qemu", *arguments),
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    said = []
    try:
        time.sleep(2)
        yield said
        said.append(process.communicate(timeout=60)[0])
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, said


def test_migrations_of_somebody_else_are_joined(guest, tmp_path):
    """Two monitors: one captures, over the other a migration is started, while pages are re-armed or not."""
    second, mig = tmp_path / "second", tmp_path / "mig"
    paths = [tmp_path / "waiting.parquet", tmp_path / "rearming.parquet"]
    migrate = ("migrate", {"uri": f"unix:{mig}"})
    with Machine(guest, tmp_path / "vm", "-qmp", f"unix:{second},server=on,wait=off", workload=PACED) as source:
        source.wait_ready()
        source.ask(("migrate-set-parameters", {"max-bandwidth": 100_000_000}))
        before = source.state()
        with Machine(guest, tmp_path / "first", "-incoming", f"unix:{mig}"):
            with capturing("--qmp", second, "--during-migration", "-o", paths[0]):
                source.ask(migrate)
                time.sleep(1)
                source.ask(("migrate_cancel", {}))
            assert source.state() == before
        with Machine(guest, tmp_path / "second-target", "-incoming", f"unix:{mig}"):
            with capturing("--qmp", second, "-o", paths[1]):
                source.ask(migrate)
            (migrated,) = source.ask(("query-migrate", {}))
    assert migrated["status"] == "completed"
    waiting, rearming = (open_trace(path).metadata for path in paths)
    assert waiting.provenance["capture"]["migration"]["status"] == "cancelled"
    assert len(waiting.rearm_times_ns) >= 1
    assert 1_000_000_000 < waiting.migration_start_ns <= waiting.rearm_times_ns[0]
    told = rearming.provenance["capture"]
    assert told["migration"]["status"] == "completed"
    assert len(rearming.rearm_times_ns) == migrated["ram"]["dirty-sync-count"] + told["rearm"]["n"]


def test_a_guest_that_ends_meanwhile_leaves_its_trace(running, tmp_path):
    """QEMU is ended while it is recorded: what came until then is there. The last test with this guest."""
    path = tmp_path / "trace.parquet"
    with capturing("--qmp", running.qmp, "-o", path) as said:
        running.end()
    assert "QEMU ended while it was recorded" in said[0]
    assert open_trace(path).n_events > 1000
