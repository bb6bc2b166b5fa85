"""What the machine code must be like, and that it survives odd places."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numba
import pytest

import replay.jit as jit
from replay import cache_folder, work
from replay.plugins import names, parse

ROOT = Path(__file__).resolve().parents[2]
compiled_only = pytest.mark.skipif(jit.DISABLED, reason="there is no machine code under NUMBA_DISABLE_JIT")


@compiled_only
def test_no_kernel_counts_references():
    """An incref in a hot loop costs 2 to 12 times the loop; `_nrt=False` must have left none."""
    from replay.migration.warm import warm

    logs = names("log")
    for number, design in enumerate(names("design")):
        warm(parse("log", logs[number % len(logs)]), parse("design", design), "auto")
    seen = 0
    for kernel in jit.kernels():
        plugs_in = kernel.py_func.__module__.startswith(("replay.designs.", "replay.dirtylogs."))
        for signature in kernel.signatures[-len(logs) if plugs_in else -1 :]:  # the engine's loops: one pair's
            assert not re.search(r"call.*NRT_(incref|decref|Allocate|MemInfo)", _llvm(kernel, signature)), (
                kernel.py_func.__name__
            )
            seen += 1
    assert seen > 50


def _llvm(kernel, signature) -> str:
    """The LLVM of a specialisation; one that came from the disk cache is compiled anew to look at it."""
    try:
        text = kernel.inspect_llvm().get(signature, "")
    except UserWarning:  # numba warns that it cannot show code from the cache, and warnings are errors here
        text = ""
    if not text:
        fresh = numba.njit(**jit.OPTIONS)(kernel.py_func)
        fresh.compile(signature)
        text = fresh.inspect_llvm()[signature]
    return text


def test_every_state_class_has_a_name_of_its_own():
    """Machine code is named after it."""
    classes = [parse(kind, name).module.State for kind in ("log", "design") for name in names(kind)]
    assert len({state_class.__name__ for state_class in classes}) == len(classes)
    assert all(state_class.__module__ in state_class.__name__ for state_class in classes)


def test_every_counter_has_its_constant():
    for name, index in work.INDEX.items():
        assert getattr(work, name.upper()) == index


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("REPLAY_", "XDG_"))}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=clean | environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=120,
    )


CALL = "import replay.kernels.bits as b, numpy as n, replay.jit as j; assert b.popcount(n.uint64(7)) == 3; print(j.CACHE_FOLDER, j.COLD)"


@compiled_only
def test_a_second_process_starts_with_compiled_kernels(tmp_path):
    first = run_python(CALL, REPLAY_CACHE_DIR=str(tmp_path))
    second = run_python(CALL, REPLAY_CACHE_DIR=str(tmp_path))
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert first.stdout.split()[1] == "True"
    assert second.stdout.split()[1] == "False"
    assert str(tmp_path) in second.stdout


@compiled_only
def test_nowhere_to_write_is_no_obstacle():
    """Read-only home, no cache folder, no temporary folder: kernels compile without a cache."""
    code = (
        "import tempfile, pathlib, os\n"
        "tempfile.mkstemp = lambda *a, **k: (_ for _ in ()).throw(PermissionError('read-only'))\n"
        "pathlib.Path.mkdir = lambda *a, **k: (_ for _ in ()).throw(PermissionError('read-only'))\n" + CALL
    )
    done = run_python(code, HOME="/nonexistent", REPLAY_CACHE_DIR="/nonexistent/cache")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["None", "True"]


def test_the_cache_folder_depends_on_every_compiled_source(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text("A = 1\n")
    one = jit.sources_digest((plugin,))
    plugin.write_text("A = 2\n")
    assert jit.sources_digest((plugin,)) != one
    assert jit.sources_digest() not in (one, jit.sources_digest((plugin,)))


def test_a_state_without_a_verb_is_named():
    from replay.verbs import pop

    with pytest.raises(TypeError, match="tuple has no verb 'pop'"):
        pop((1, 2))


def test_old_cache_folders_are_pruned(tmp_path):
    for index in range(12):
        folder = tmp_path / f"kernels-{index}"
        folder.mkdir()
        os.utime(folder, (index + 1_700_000_000, index + 1_700_000_000))
    current = tmp_path / "kernels-now"
    current.mkdir()
    cache_folder.prune(current)
    assert [path.name for path in tmp_path.iterdir()] == ["kernels-now"]
