"""QEMU and a guest kernel out of the distribution's packages, unpacked into a folder: nothing is installed.

apt works on lists and archives of its own below the folder, so this needs no root and leaves the system as it is. Of
Debian's suites the backports are asked too: under TCG, QEMU before 9.0 misses writes.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

GOOD_QEMU = (9, 0)
PROGRAM = "qemu-system-x86_64"
TIMEOUT_S = 300
WRAPPER = """#!/bin/sh
root={root}
usr="$root/usr"
export LD_LIBRARY_PATH="$usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
exec "$usr/bin/{program}" -L "$usr/share/qemu" -L "$usr/share/seabios" "$@"
"""


class Unavailable(Exception):
    """What is needed cannot be had here; the text says why."""


def qemu_version(program: str | Path) -> tuple[int, ...]:
    """Of an executable, such as (10, 0, 2). Raises Unavailable when it does not run."""
    found = re.search(r"version (\d+(?:\.\d+)+)", _run([str(program), "--version"]))
    if found is None:
        raise Unavailable(f"{program} --version names no version")
    return tuple(int(part) for part in found[1].split("."))


def find_qemu(cache: Path) -> Path:
    """QEMU 9.0 or later: the installed one, else out of packages; where neither is that new, the newer of the two."""
    installed = shutil.which(PROGRAM)
    if installed and qemu_version(installed) >= GOOD_QEMU:
        return Path(installed)
    try:
        unpacked = _unpacked_qemu(cache)
    except Unavailable:
        if installed:
            return Path(installed)
        raise
    if installed and qemu_version(installed) > qemu_version(unpacked):
        return Path(installed)
    return unpacked


def find_kernel(cache: Path) -> Path:
    """A kernel for small guests, its serial console built in."""
    folder = cache / "kernel"
    if not any(folder.glob("boot/vmlinuz-*")):
        apt = Apt(cache / "apt")
        name = apt.dependency("linux-image-cloud-amd64", "linux-image-")
        _unpack([apt.download(name)], folder, _only_kernels)
    return max(folder.glob("boot/vmlinuz-*"))


def _unpacked_qemu(cache: Path) -> Path:
    folder = cache / "qemu"
    wrapper = folder / PROGRAM
    if not wrapper.is_file():
        text = WRAPPER.format(root=folder.resolve(), program=PROGRAM)
        archives = Apt(cache / "apt").download_missing("qemu-system-x86")
        _unpack(archives, folder, lambda new: _script(new / PROGRAM, text))
    qemu_version(wrapper)
    return wrapper


class Apt:
    """apt with its own lists and archives in a folder; the sources are those of the system, and the backports."""

    def __init__(self, folder: Path) -> None:
        if platform.machine() != "x86_64" or shutil.which("apt-get") is None or shutil.which("dpkg") is None:
            raise Unavailable("packages are taken from an x86-64 Debian or a relative of it; here is no apt-get for it")
        self.folder = folder = folder.resolve()
        release = platform.freedesktop_os_release()
        self.backports = f"{release.get('VERSION_CODENAME', '')}-backports"
        for name in ("lists/partial", "archives/partial", "sources"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._options = [
            "-o", f"Dir::State::lists={folder / 'lists'}", "-o", f"Dir::Cache={folder}",
            "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=",
            "-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=20",
        ]  # fmt: skip
        self._add_backports(release.get("ID", ""), release.get("VERSION_CODENAME", ""))
        _run(["apt-get", *self._options, "update", "-qq"])

    def _add_backports(self, distribution: str, codename: str) -> None:
        """Use the mirror that the system has for its own release, and nothing else of the system's sources."""
        listed = _run(["apt-get", *self._options, "update", "--print-uris"])
        mirrors = re.findall(rf"^'(\S+)/dists/{re.escape(codename)}/InRelease'", listed, re.MULTILINE)
        if not mirrors:
            raise Unavailable(f"apt has no source for {distribution} {codename}")
        suites = [codename, f"{codename}-updates", *([self.backports] if distribution == "debian" else [])]
        lines = [f"deb {mirrors[0]} {suite} main" for suite in suites]
        (self.folder / "sources.list").write_text("\n".join(lines) + "\n")
        self._options += [
            "-o", f"Dir::Etc::sourcelist={self.folder / 'sources.list'}",
            "-o", f"Dir::Etc::sourceparts={self.folder / 'sources'}",
        ]  # fmt: skip

    def dependency(self, package: str, prefix: str) -> str:
        """The package that a meta-package stands for."""
        text = _run(["apt-cache", *self._options, "depends", package])
        found = re.search(rf"Depends: ({re.escape(prefix)}\S+)", text)
        if found is None:
            raise Unavailable(f"{package} depends on no {prefix}*")
        return found[1]

    def download(self, package: str) -> Path:
        """One package, without what it depends on."""
        before = set(self.folder.glob("archives/*.deb"))
        _run(["apt-get", *self._options, "download", "-qq", package], cwd=self.folder / "archives")
        new = set(self.folder.glob("archives/*.deb")) - before
        return new.pop() if new else next(self.folder.glob(f"archives/{package}_*.deb"))

    def download_missing(self, package: str) -> list[Path]:
        """A package and what it depends on that is not installed; the newest, backports included."""
        arguments = ["--no-install-recommends", "-qq", "-y", "-t", self.backports, "install", package]
        uris = _run(["apt-get", *self._options, "--print-uris", *arguments])
        _run(["apt-get", *self._options, "--download-only", *arguments])
        return [self.folder / "archives" / line.split()[1] for line in uris.splitlines() if line.startswith("'")]


def _only_kernels(folder: Path) -> None:
    """Modules are not needed, and are most of the package."""
    if not any(folder.glob("boot/vmlinuz-*")):
        raise Unavailable("the kernel's package holds no boot/vmlinuz-*")
    for part in folder.iterdir():
        if part.name != "boot":
            shutil.rmtree(part)


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _unpack(archives: list[Path], folder: Path, finish: Callable[[Path], None]) -> None:
    """Unpack packages, and remove them; the folder is there when all is in it, `finish`ed."""
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    try:
        for archive in archives:
            _run(["dpkg", "-x", str(archive), str(temporary)])
            archive.unlink(missing_ok=True)
        finish(temporary)
        if not folder.is_dir():  # it is when another process was faster
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _run(command: list[str], cwd: Path | None = None) -> str:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, timeout=TIMEOUT_S,
            capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]}: {error}") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no reason given"]
        raise Unavailable(f"{command[0]} failed with {done.returncode}: {said[-1]}")
    return done.stdout
