"""Builds a small Linux guest to record: `tools/guest/make_guest.py FOLDER`.

FOLDER gets `vmlinuz` (the distribution's cloud kernel), `initrd.gz` (writer.c and nothing else), `boot.img` (boot.S, a
disk that is a whole guest) and `qemu` (a script that starts QEMU 9.0 or later). What has to be downloaded, 40 MB or so,
is kept in --cache. Nothing is installed.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import packages

HERE = Path(__file__).resolve().parent
QEMU_SCRIPT = '#!/bin/sh\nexec "{program}" "$@"\n'
_NEWC = "070701"
DISK_BYTES = 1 << 20


def main() -> int:
    """Make the guest, and say how to start it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to put the guest")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="for downloads (default: %(default)s)")
    parser.add_argument("--qemu", type=Path, help="QEMU to use (default: installed, else out of packages)")
    parser.add_argument("--kernel", type=Path, help="bzImage to use (default: the distribution's cloud kernel)")
    args = parser.parse_args()
    try:
        make(args.folder, args.cache, args.qemu, args.kernel)
    except packages.Unavailable as error:
        print(f"make_guest: {error}", file=sys.stderr)
        return 3
    print(f"{args.folder}: vmlinuz, initrd.gz, boot.img, qemu ({_dotted(args.folder / 'qemu')})")
    return 0


def default_cache() -> Path:
    """$REPLAY_GUEST_CACHE, else ~/.cache/dirtyreplay/guest."""
    given = os.environ.get("REPLAY_GUEST_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "dirtyreplay" / "guest"


def make(folder: Path, cache: Path, qemu: Path | None = None, kernel: Path | None = None) -> None:
    """Write all four files. Raises packages.Unavailable when something is not to be had here."""
    folder.mkdir(parents=True, exist_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    program = (qemu or packages.find_qemu(cache)).resolve()
    packages.qemu_version(program)
    shutil.copyfile(kernel or packages.find_kernel(cache), folder / "vmlinuz")
    (folder / "initrd.gz").write_bytes(initramfs(compiled("writer.c", "-static")))
    at_boot = ("-m32", "-nostdlib", "-static", "-Wl,--oformat=binary,-Ttext=0x7c00,--build-id=none")
    (folder / "boot.img").write_bytes(compiled("boot.S", *at_boot).ljust(DISK_BYTES, b"\0"))
    script = folder / "qemu"
    script.write_text(QEMU_SCRIPT.format(program=program))
    script.chmod(0o755)


def compiled(source: str, *options: str) -> bytes:
    """A source of this folder as a program."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise packages.Unavailable("no C compiler: install gcc")
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / "program"
        done = subprocess.run(
            [compiler, "-O2", "-Wall", "-Werror", *options, "-o", str(program), str(HERE / source)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise packages.Unavailable(f"{source} does not compile here: {done.stderr.strip()[:400]}")
        return program.read_bytes()


def initramfs(program: bytes) -> bytes:
    """A gzipped cpio archive (format newc) with the program as /init and a console for it to print to."""
    console = _entry("dev", 0o040755) + _entry("dev/console", 0o020600, device=(5, 1))
    archive = console + _entry("init", 0o100755, program) + _entry("TRAILER!!!", 0)
    return gzip.compress(archive, compresslevel=1, mtime=0)


def _entry(name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    """Header fields: inode, mode, uid, gid, links, mtime, size, device, device of a node, name's length, checksum."""
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
    header = (_NEWC + "".join(f"{value:08X}" for value in fields)).encode() + name.encode() + b"\0"
    return _padded(header) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def _dotted(program: Path) -> str:
    return "QEMU " + ".".join(map(str, packages.qemu_version(program)))


if __name__ == "__main__":
    sys.exit(main())
