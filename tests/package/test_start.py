"""Starting: what is imported for what, what is compiled by whom, and installations that can write nowhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import replay.jit as jit
from replay.cli import overview
from replay.cli.main import COMMANDS, EXIT_CODES, main

ROOT = Path(__file__).resolve().parents[2]
compiled_only = pytest.mark.skipif(jit.DISABLED, reason="nothing is compiled under NUMBA_DISABLE_JIT")
NOWHERE = "/proc/nowhere"
"""A folder that nobody can make, not even root."""


def python(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("REPLAY_", "XDG_", "PYTHON")) and key not in ("HOME", "TMPDIR")
    }
    return subprocess.run(
        [sys.executable, *arguments],
        env=clean | environment,
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        timeout=300,
    )


# -- imports ----------------------------------------------------------------------------------------------------------

HEAVY = ("numba", "llvmlite", "numpy", "polars", "pyarrow", "rich.progress", "matplotlib")
NOT_FOR_HELP = (*HEAVY, "argparse", "rich", "typing", "dataclasses", "re", "json")


def imported(code: str, *names: str) -> str:
    """Which of the modules are loaded after the code, in an interpreter without site, which loads some by itself."""
    told = f"import sys\nsys.path[:0] = {sys.path!r}\n{code}\nprint(*(set({names!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-S", "-c", told], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def command(*words: str) -> str:
    return f"from replay.cli.main import main\ntry:\n    main({list(words)!r})\nexcept SystemExit:\n    pass"


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("-q", "--help")])
def test_help_imports_nothing(words: tuple[str, ...]) -> None:
    assert imported(command(*words), *NOT_FOR_HELP) == ""


def test_the_package_imports_nothing() -> None:
    assert imported("import replay; replay.__version__", *NOT_FOR_HELP) == ""


@pytest.mark.parametrize(
    "words",
    [
        ("--version",),
        ("rnu",),
        ("list",),
        *(("list", kind) for kind in ("logs", "designs", "policies", "workloads", "traces", "importers", "captures")),
        ("list", "--json"),
        *(("completion", shell) for shell in ("bash", "zsh", "fish")),
        *(("trace", word, "--help") for word in ("info", "validate", "stat", "decode", "list", "slice")),
    ],
    ids=" ".join,
)
def test_what_only_tells_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    assert imported(command(*words), *HEAVY) == ""


def test_help_of_every_command_imports_nothing_heavy() -> None:
    every = "\n".join(command(name, "--help") for name in COMMANDS)
    assert imported(every, *HEAVY, "rich") == ""


def test_a_run_imports_no_polars_and_no_rich() -> None:
    code = command("run", "idle-1g", "--log", "tcg", "--max-bandwidth", "200MB/s", "--give-up", "1s")
    assert imported(code, "polars", "rich", "matplotlib") == ""


@pytest.mark.parametrize("columns", ["60", "80", "100", "200"])
def test_the_overview_is_the_parsers_help_too(columns: str, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.partition("exit codes")[0].splitlines())) <= int(columns)
    words = " ".join(shown.split())
    assert all(f" {name} {meaning}" in words for name, meaning in (COMMANDS | overview.OPTIONS).items())
    assert EXIT_CODES in shown
    with pytest.raises(SystemExit) as stop:
        main(["--", "--help"])
    assert stop.value.code == 2
    assert overview.USAGE in capsys.readouterr().err


# -- compiling --------------------------------------------------------------------------------------------------------

COMPILE = """
import sys
from replay import jit, warming
warming.compile_pair("tcg", "bitmap")
print(sum(sum(kernel._cache_misses.values()) for kernel in jit.kernels()))
"""


def kept(folder: Path) -> int:
    return len(list(folder.rglob("*.nbc")))


@compiled_only
def test_processes_compile_each_kernel_once_and_warm_leaves_nothing_to_compile(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("REPLAY_")}
    environment["REPLAY_CACHE_DIR"] = str(tmp_path)
    workers = [
        subprocess.Popen([sys.executable, "-c", COMPILE], env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    compiled = [int(worker.communicate(timeout=300)[0]) for worker in workers]
    assert sum(compiled) == kept(tmp_path) > 50

    done = python(
        "-m", "replay", "warm", "--log", "tcg", "--design", "bitmap", "--json", REPLAY_CACHE_DIR=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["pairs"], told["found"], told["made"]) == (1, sum(compiled), 0)
    run = ("run", "redis-1g", "--log", "tcg", "--max-bandwidth", "200MB/s", "--give-up", "2s")
    for more in (
        (),
        ("--formulation", "stepping"),
        ("--xbzrle", "64M"),
        ("--multifd-channels", "2"),
        ("--postcopy-after", "500ms"),
        ("--no-check", "--memory", "8G"),
        ("--policy", "auto-converge"),
    ):
        done = python("-m", "replay", *run, *more, REPLAY_CACHE_DIR=str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert "compiling" not in done.stderr
        assert kept(tmp_path) == sum(compiled), more


def test_warm_names_what_there_is_not(capsys: Any) -> None:
    assert main(["warm", "--design", "bitmapp"]) == 2
    assert "Did you mean 'bitmap'" in capsys.readouterr().err
    assert main(["warm", "--jobs", "0"]) == 2


def test_warm_says_when_nothing_can_be_kept(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(jit, "CACHE_FOLDER", None)
    assert main(["warm"]) == 1
    assert "REPLAY_CACHE_DIR" in capsys.readouterr().err


# -- odd installations ------------------------------------------------------------------------------------------------

SMALL = ("run", "idle-1g", "--log", "tcg", "--max-bandwidth", "200MB/s", "--give-up", "1s", "--json")
HIDDEN = f"import tempfile\ntempfile._candidate_tempdir_list = lambda: [{NOWHERE!r}]\n"


@compiled_only
@pytest.mark.parametrize("home", [NOWHERE, "", None], ids=["unwritable", "empty", "unset"])
def test_without_a_home_and_without_room_for_temporary_files(home: str | None) -> None:
    """Nowhere to keep anything: kernels are compiled for this run alone, and it says so."""
    environment = {"REPLAY_CACHE_DIR": NOWHERE, "XDG_CACHE_HOME": NOWHERE, "TMPDIR": NOWHERE}
    environment |= {} if home is None else {"HOME": home}
    nobody = "import pwd\npwd.getpwuid = lambda uid: (_ for _ in ()).throw(KeyError(uid))\n"
    check = "from replay import jit\nassert jit.CACHE_FOLDER is None\n"
    if home == NOWHERE:
        code = f"{HIDDEN}{nobody}import sys\nfrom replay.cli.main import main\ncode = main({list(SMALL)!r})\n{check}sys.exit(code)"
    else:
        code = f"{HIDDEN}{nobody}{check}from replay.kernels.bits import popcount\nassert popcount(jit.U64(7)) == 3"
    done = python("-c", code, **environment)
    assert done.returncode == 0, done.stderr
    if home == NOWHERE:
        assert "no writable cache folder" in done.stderr
        assert json.loads(done.stdout)["lost_pages"] == 0


@compiled_only
def test_without_a_home_the_temporary_folder_is_used(tmp_path: Path) -> None:
    code = "from replay import jit; print(jit.CACHE_FOLDER)"
    done = python("-c", code, HOME=NOWHERE, TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).parent == tmp_path / f"dirtyreplay-{os.getuid()}"


@compiled_only
def test_nothing_is_written_into_the_package(tmp_path: Path) -> None:
    """As in an installation that only root may change; root is held to it here by looking."""
    shutil.copytree(ROOT / "replay", tmp_path / "site" / "replay", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "traces", tmp_path / "site" / "replay" / "shipped", ignore=shutil.ignore_patterns("*.md"))
    folders = [tmp_path / "site", *(path for path in (tmp_path / "site").rglob("*") if path.is_dir())]
    before = sorted((tmp_path / "site").rglob("*"))
    for folder in folders:
        folder.chmod(0o555)
    try:
        done = python(
            "-B", "-m", "replay", *SMALL, cwd=tmp_path,
            PYTHONPATH=str(tmp_path / "site"), REPLAY_CACHE_DIR=str(tmp_path / "cache"),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["lost_pages"] == 0
        assert sorted((tmp_path / "site").rglob("*")) == before
        assert kept(tmp_path / "cache") > 50
    finally:
        for folder in folders:
            folder.chmod(0o755)
