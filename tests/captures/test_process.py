"""Tracking ordinary programs: pages, exit codes, output, signals; and the program never notices."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

import replay
from replay.capturing.written_pages import Numbering
from replay.cli.main import main
from tests.captures.common import ROOT, capture, events, needs_tracking, start

WRITER = """
import mmap, ctypes, sys, time
memory = mmap.mmap(-1, 2048 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
batches = []
state = 5
for batch in range(8):
    pages = set()
    for _ in range(60):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        pages.add((state >> 33) % 2048)
    time.sleep(0.15)
    for page in sorted(pages):
        memory[page * 4096] = batch + 1
    batches.append(sorted(pages))
time.sleep(0.15)
import json
json.dump({"address": address, "batches": batches}, open(sys.argv[1], "w"))
"""


def addresses(path: Path) -> dict[int, list[int]]:
    """Time of each look to the page numbers (address / 4096) it found."""
    runs = replay.open_trace(path).metadata.provenance["capture"]["runs_of_64_pages_by_address"]
    firsts = [int(text, 16) // 4096 for text in runs]
    looks: dict[int, list[int]] = {}
    for t_ns, page, _ in events(path):
        looks.setdefault(t_ns, []).append(firsts[page // 64] + page % 64)
    return looks


@needs_tracking
def test_every_written_page_at_the_look_after_it(tmp_path):
    """A program that writes known pages in batches: each batch, exactly, and nothing else in its memory."""
    (tmp_path / "writer.py").write_text(WRITER)
    path = tmp_path / "a.parquet"
    command = (sys.executable, tmp_path / "writer.py", tmp_path / "truth.json")
    code, _, err = capture("process", "--interval", "30ms", "-o", path, "--", *command)
    assert code == 0, err
    truth = json.loads((tmp_path / "truth.json").read_text())
    first = truth["address"] // 4096
    seen = [
        [page - first for page in pages if 0 <= page - first < 2048] for _, pages in sorted(addresses(path).items())
    ]
    seen = [pages for pages in seen if pages]
    joined: list[list[int]] = []
    for pages in seen:  # a look in the middle of a batch splits it
        whole = truth["batches"][len(joined) - 1] if joined else []
        if joined and set(joined[-1]) != set(whole):
            joined[-1] = sorted({*joined[-1], *pages})
        else:
            joined.append(pages)
    assert joined == truth["batches"]


@needs_tracking
@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143), ("exec sh -c 'exit 9'", 9), ("ls /none", 2)],
)  # fmt: skip
def test_exit_codes_and_output_pass_through(script, code, tmp_path):
    found = capture("process", "-o", tmp_path / "a.parquet", "--", "sh", "-c", f"echo out; echo err >&2; {script}")
    assert found[0] == code
    assert found[1] == "out\n"
    assert "err\n" in found[2]
    assert len(events(tmp_path / "a.parquet")) > 5


@needs_tracking
def test_input_passes_through_and_json_has_standard_output_to_itself(tmp_path):
    (tmp_path / "in").write_text("b\na\n")
    with (tmp_path / "in").open() as file:
        code, out, err = capture("process", "--json", "-o", tmp_path / "a.parquet", "--", "sort", stdin=file)
    told = json.loads(out)
    assert (code, told["exit_code"], told["ended"]) == (0, 0, "end")
    assert told["provenance"]["capture"]["command"] == ["sort"]
    assert "a\nb\n" in err


@needs_tracking
def test_the_program_that_replaces_the_first_is_tracked_too(tmp_path):
    program = "import time; x = bytearray(50 << 20); time.sleep(0.3)"
    done = replay.capture_trace(
        "process", tmp_path / "a.parquet", ["sh", "-c", 'exec "$0" -c "$1"', sys.executable, program], to_stderr=True
    )
    assert done.trace.metadata.provenance["capture"]["programs_executed"] == 2
    assert done.trace.n_events > 50 * 256


@needs_tracking
def test_when_the_time_is_over_the_program_goes_on(tmp_path):
    code, out, err = capture(
        "process", "--duration", "300ms", "-o", tmp_path / "a.parquet", "--", "sh", "-c", "sleep 1; echo still; exit 4"
    )
    assert (code, out) == (4, "still\n")
    assert "the time was over" in err
    assert replay.open_trace(tmp_path / "a.parquet").metadata.duration_ns < 900_000_000


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()


@needs_tracking
def test_ctrl_c_goes_to_the_program(tmp_path):
    script = f"trap 'echo told; exit 5' INT; touch {tmp_path}/up; while :; do sleep 0.05; done"
    process = start("process", "-o", tmp_path / "a.parquet", "--", "sh", "-c", script)
    wait_for(tmp_path / "up")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (5, "told\n"), err
    assert len(events(tmp_path / "a.parquet")) > 5


@needs_tracking
def test_ctrl_c_on_a_terminal_reaches_the_program_once(tmp_path):
    """There the terminal tells both; the program must not be told again."""
    script = f"trap 'echo told >> {tmp_path}/told' INT; touch {tmp_path}/up; " + "sleep 0.2; " * 8 + "exit 6"
    shell = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, sys.argv[1:])"
    )
    arguments = ["-m", "replay", "capture", "process", "-o", str(tmp_path / "a.parquet"), "--", "sh", "-c", script]
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", shell, sys.executable, *arguments], stdin=slave, cwd=ROOT, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(slave)
    wait_for(tmp_path / "up")
    time.sleep(0.2)
    os.write(master, b"\x03")
    _, err = process.communicate(timeout=60)
    os.close(master)
    assert process.returncode == 6, err
    assert (tmp_path / "told").read_text() == "told\n"
    assert len(events(tmp_path / "a.parquet")) > 5


@needs_tracking
def test_a_stopped_program_stays_stopped(tmp_path):
    """Until its user lets it go on."""
    process = start(
        "process", "-o", tmp_path / "a.parquet", "--", "sh", "-c", "echo $$; sleep 0.3; sleep 0.3; echo end"
    )
    pid = int(process.stdout.readline())
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1)
    assert Path(f"/proc/{pid}/stat").read_text().split()[2] in "tT"
    os.kill(pid, signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "end\n"), err


@needs_tracking
def test_a_large_sparse_mapping(tmp_path):
    """A terabyte of address space, ten pages of it written: ten pages in the trace, and no time lost on the rest."""
    program = (
        "import ctypes, time\nlibc = ctypes.CDLL(None)\nlibc.mmap.restype = ctypes.c_void_p\n"
        "libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]\n"
        "start = libc.mmap(None, 1 << 40, 3, 0x4022, -1, 0)\n"
        "for k in range(10): ctypes.memset(start + (k << 36), 1, 1); time.sleep(0.01)\ntime.sleep(0.2)\nprint(start)\n"
    )
    code, out, err = capture("process", "-o", tmp_path / "a.parquet", "--", sys.executable, "-c", program)
    assert code == 0, err
    first = int(out) // 4096
    found = {page for pages in addresses(tmp_path / "a.parquet").values() for page in pages}
    assert sorted(page for page in found if first <= page < first + (1 << 28)) == [first + (k << 24) for k in range(10)]
    assert replay.open_trace(tmp_path / "a.parquet").metadata.memory_bytes < 200 << 20


@needs_tracking
def test_the_second_ctrl_c_leaves_the_program_alone(tmp_path):
    script = f"trap 'touch {tmp_path}/told' INT; touch {tmp_path}/up; " + "sleep 0.2; " * 30 + f"touch {tmp_path}/end"
    process = start("process", "-o", tmp_path / "a.parquet", "--", "sh", "-c", script)
    wait_for(tmp_path / "up")
    process.send_signal(signal.SIGINT)
    wait_for(tmp_path / "told")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert not (tmp_path / "end").exists()
    assert len(events(tmp_path / "a.parquet")) > 5
    wait_for(tmp_path / "end")
    process.communicate()


@needs_tracking
def test_signals_reach_the_program_at_once(tmp_path):
    """It is traced for its exec and its end; signals must not wait for a look."""
    program = (
        "import os, signal, time\nseen = []\nsignal.signal(signal.SIGUSR1, lambda *_: seen.append(time.monotonic()))\n"
        "begun = time.monotonic()\n"
        "for _ in range(100): os.kill(os.getpid(), signal.SIGUSR1)\n"
        "assert len(seen) == 100\nassert time.monotonic() - begun < 2\n"
    )
    code, _, err = capture(
        "process", "--interval", "500ms", "-o", tmp_path / "a.parquet", "--", sys.executable, "-c", program
    )
    assert code == 0, err


@needs_tracking
def test_threads_children_and_much_memory(tmp_path):
    program = (
        "import subprocess, threading\nkept = []\n"
        "threads = [threading.Thread(target=lambda: kept.append(bytearray(8 << 20))) for _ in range(8)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "subprocess.run(['sh', '-c', 'exit 0'], check=True)\nprint(len(kept))\n"
    )
    code, out, err = capture(
        "process", "--interval", "5ms", "-o", tmp_path / "a.parquet", "--", sys.executable, "-c", program
    )
    assert (code, out) == (0, "8\n"), err
    found = {page for _, page, _ in events(tmp_path / "a.parquet")}
    assert len(found) > 8 * 2048


@needs_tracking
@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become somebody else")
def test_no_privileges_are_needed():
    code = (
        "import os, sys, replay\n"
        "replay.capture_trace('process', sys.argv[1], ['true'])  # imports what only root may be able to read\n"
        "os.remove(sys.argv[1]); os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "replay.capture_trace('process', sys.argv[1], ['true'])\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        done = subprocess.run(
            [sys.executable, "-c", code, f"{folder}/a.parquet"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert (Path(folder) / "a.parquet").stat().st_uid == 65534
        assert len(events(Path(folder) / "a.parquet")) > 5


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["-o", "{}/a", "--", "no-such-command"], 2, "no such command"),
        (["-o", "{}/a", "--", "{}"], 2, "no such command, or not executable"),
        (["-o", "{}/a"], 2, "no command given"),
        (["-o", "{}/a", "--"], 2, "no command given"),
        (["-o", "{}/none/a", "--", "true"], 4, "there is no folder"),
        (["-o", "{}", "--", "true"], 4, "is a folder"),
        (["-o", "{}/a", "--interval", "0ms", "--", "true"], 2, "at least 1000000"),
        (["-o", "{}/a", "--interval", "1h", "--", "true"], 2, "at most"),
        (["-o", "{}/a", "--duration", "soon", "--", "true"], 2, "is not a duration"),
    ],
)
def test_what_cannot_work_is_said_first(arguments, code, why, tmp_path, capsys):
    assert main(["capture", "process", *(text.format(tmp_path) for text in arguments)]) == code
    err = capsys.readouterr().err
    assert why in err
    assert "stopped for a moment" not in err
    assert list(tmp_path.iterdir()) == []


@needs_tracking
def test_what_is_no_program(tmp_path, capfd):
    """Executable, but nothing that can be executed: the shell's answer, and no trace of the shell."""
    path = tmp_path / "data"
    path.write_bytes(b"\x7fELF" + bytes(60))
    path.chmod(0o755)
    code = main(["capture", "process", "-o", str(tmp_path / "a.parquet"), "--", str(path)])
    assert code == 4
    assert "cannot be executed" in capfd.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["data"]


def test_numbers_of_a_sparse_address_space():
    numbering = Numbering()
    first = numbering.dense(np.array([2**35 + 63, 2**35 + 64, 5], np.uint64))
    assert first.tolist() == [64 + 63, 128, 5]
    assert numbering.dense(np.array([2**35, 5, 2**40], np.uint64)).tolist() == [64, 5, 192]
    assert numbering.n_pages == 256
