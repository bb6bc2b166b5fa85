"""A QEMU of the tests' own: started on a guest of tools/guest, ended by its process id."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MAX_LIFE_S = 300
BOOT_S = 60
COMMAND_S = 100


class Machine:
    """One QEMU process in a folder of its own; a context manager that ends it."""

    def __init__(
        self, guest: Path, folder: Path, *extra: str, workload: str = "random:64:5000", memory: str = "256M",
        accelerator: str = "tcg,thread=multi", log: bool = True, timestamps: bool = True,
        linux: bool = True,
    ) -> None:  # fmt: skip
        folder.mkdir()
        self.folder = folder
        self.qmp = folder / "qmp"
        self.log = folder / "qemu.log"
        self._serial = folder / "serial"
        command = [
            "timeout", "-k", "5", str(MAX_LIFE_S), str(guest / "qemu"),
            "-accel", accelerator, "-M", "q35", "-smp", "2" if linux else "1", "-m", memory, "-nodefaults", "-display", "none",
            *(_linux(guest, workload) if linux else []), "-serial", f"file:{self._serial}",
            "-qmp", f"unix:{self.qmp},server=on,wait=off", *extra,
            *(["-D", str(self.log)] if log else []), *(["-msg", "timestamp=on"] if timestamps else []),
        ]  # fmt: skip
        self._errors = (folder / "stderr").open("wb")
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._errors, stderr=self._errors)

    def __enter__(self) -> Machine:
        self._until(self.qmp.exists, "has no QMP socket")
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._errors.close()

    def end(self) -> None:
        """End QEMU."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    def wait_ready(self) -> Machine:
        """Until the workload has filled its memory, and a second more."""
        self._until(lambda: b"ready" in self.console(), "does not get ready")
        time.sleep(1)
        return self

    def console(self) -> bytes:
        """What the guest printed."""
        return self._serial.read_bytes() if self._serial.exists() else b""

    def ask(self, *commands: tuple[str, dict[str, Any]]) -> list[Any]:
        """QMP over a plain socket, so that what is tested is not what tests; answers, or errors, in order."""
        with socket.socket(socket.AF_UNIX) as link, contextlib.ExitStack() as stack:
            link.settimeout(20)
            self._connect(link)
            stream = stack.enter_context(link.makefile("rw"))
            stream.readline()
            answers = []
            for command, arguments in (("qmp_capabilities", {}), *commands):
                stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
                stream.flush()
                answer = {"event": ""}
                while "event" in answer:
                    answer = json.loads(stream.readline())
                answers.append(answer.get("return", answer.get("error")))
            return answers[1:]

    def state(self) -> dict[str, Any]:
        """Everything that a capture could leave behind."""
        events, capabilities, parameters, status = self.ask(
            ("trace-event-get-state", {"name": "*"}), ("query-migrate-capabilities", {}),
            ("query-migrate-parameters", {}), ("query-status", {}),
        )  # fmt: skip
        return {
            "events": {event["name"] for event in events if event["state"] == "enabled"},
            "capabilities": {item["capability"] for item in capabilities if item["state"]},
            "parameters": parameters,
            "status": status["status"],
        }

    def _connect(self, link: socket.socket) -> None:
        """The socket is there a moment before QEMU listens on it."""
        for attempt in range(20):
            try:
                return link.connect(str(self.qmp))
            except ConnectionRefusedError:
                if attempt == 19:
                    raise
                time.sleep(0.1)
        return None

    def _until(self, condition: Any, otherwise: str) -> None:
        end = time.monotonic() + BOOT_S
        while not condition():
            said = (self.folder / "stderr").read_text(errors="replace")
            assert self._process.poll() is None, f"QEMU ended: {said}"
            assert time.monotonic() < end, f"QEMU {otherwise} in {BOOT_S} s: {said} {self.console()!r}"
            time.sleep(0.05)


def _linux(guest: Path, workload: str) -> list[str]:
    return [
        "-kernel", str(guest / "vmlinuz"), "-initrd", str(guest / "initrd.gz"),
        "-append", f"console=ttyS0 quiet panic=-1 wl={workload}",
    ]  # fmt: skip


def command_line(*arguments: str | Path) -> list[str]:
    """`replay` with these arguments, of this checkout."""
    return [sys.executable, "-m", "replay", *map(str, arguments)]


def run_replay(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `replay` to its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command_line(*arguments), capture_output=True, text=True, timeout=COMMAND_S, env=environment, check=False
    )


def refused(*arguments: str | Path) -> str:
    """What `replay capture qemu` says when it refuses."""
    done = run_replay("capture", "qemu", *arguments)
    assert done.returncode in (2, 4), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr
