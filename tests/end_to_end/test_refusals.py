"""What cannot be captured is refused with a sentence that says what to do, and is not touched."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from tests.end_to_end.machine import Machine, refused


@pytest.fixture
def output(tmp_path):
    return tmp_path / "trace.parquet"


@contextlib.contextmanager
def server(path, answer):
    """A socket where somebody answers every client with `answer` and waits for it to go."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    with client:
                        client.sendall(answer)
                        client.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def test_without_a_socket(output, tmp_path):
    assert "--qmp SOCKET is missing" in refused("-o", output)
    assert "no such socket" in refused("--qmp", tmp_path / "nothing", "-o", output)
    (tmp_path / "file").write_text("x")
    assert "is no unix socket" in refused("--qmp", tmp_path / "file", "-o", output)


def test_options_that_do_not_go_together(output):
    assert "need --migrate-to" in refused("--qmp", "q", "--case", "c", "-o", output)
    assert "give one of them" in refused("--qmp", "q", "--migrate-to", "unix:x", "--during-migration", "-o", output)
    assert "at least" in refused("--qmp", "q", "--interval", "1ms", "-o", output)
    assert "milliseconds" in refused("--qmp", "q", "--migrate-to", "x", "--downtime-limit", "1us", "-o", output)


def test_who_does_not_speak_qmp(output, tmp_path):
    pytest.importorskip("qemu.qmp")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left"))
    assert "nobody listens" in refused("--qmp", tmp_path / "left", "-o", output)
    with server(tmp_path / "rude", b"QEMU 10.0 monitor - type 'help'\r\n"):
        assert "does not speak QMP" in refused("--qmp", tmp_path / "rude", "-o", output)
    with server(tmp_path / "silent", b""):
        assert "no greeting" in refused("--qmp", tmp_path / "silent", "-o", output)


@pytest.mark.end_to_end
def test_a_guest_that_does_not_run(guest, output, tmp_path):
    with Machine(guest, tmp_path / "vm", "-S") as machine:
        before = machine.state()
        assert "does not run" in refused("--qmp", machine.qmp, "-o", output)
        assert machine.state() == before


@pytest.mark.end_to_end
def test_a_guest_without_a_log(guest, output, tmp_path):
    with Machine(guest, tmp_path / "vm", log=False) as machine:
        assert "start QEMU with -D FILE" in refused("--qmp", machine.qmp, "-o", output)
        elsewhere = tmp_path / "other.log"
        assert "cannot be followed" in refused("--qmp", machine.qmp, "--log", elsewhere, "-o", output)
        elsewhere.write_text("not QEMU's\n")
        assert "do not arrive there" in refused("--qmp", machine.qmp, "--log", elsewhere, "-o", output)
        assert machine.state()["events"] == set()


@pytest.mark.end_to_end
def test_a_log_without_times(guest, output, tmp_path):
    with Machine(guest, tmp_path / "vm", timestamps=False) as machine:
        assert "-msg timestamp=on" in refused("--qmp", machine.qmp, "-o", output)
        assert machine.state()["events"] == set()
