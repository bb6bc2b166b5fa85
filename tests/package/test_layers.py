"""Imports go down the layers; plug-ins do not know one another; numba is imported in one place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "replay"
LEVELS = {
    "version": 0, "errors": 0, "units": 0, "jit": 0, "work": 0, "columns": 0, "chance": 0, "toml_file": 0, "files": 0,
    "cache_folder": 0,
    "kernels": 1, "trace": 1, "plugins": 1, "verbs": 1,
    "dirtylogs": 2, "designs": 2, "workloads": 2,
    "migration": 3, "synthesis": 3,
    "policies": 3,
    "importing": 2, "importers": 3, "capturing": 2, "captures": 3,
    "reshaping": 2, "describing": 4,
    "results": 4, "config": 4,
    "analysis": 5, "safety": 5, "validation": 5, "axes": 5,
    "api": 6, "traces_api": 6, "analysis_api": 6, "grid": 6, "warming": 6, "sweeping": 6, "answers": 6, "answers_api": 6,
    "checkup": 5, "reproducing": 6, "reporting": 6,
    "cli": 7, "__init__": 7, "__main__": 7,
}  # fmt: skip
PLUGIN_FOLDERS = ("dirtylogs", "designs", "policies", "workloads", "importers", "captures")
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in the file, under its full name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imports(path):
        if module.startswith("replay.") and room(module) in LEVELS:
            assert LEVELS[room(module)] <= LEVELS[own], f"{path.name} imports {module}"
        if module.split(".")[0] == "numba":
            assert own == "jit", f"{path.name} imports numba"


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.parent.name in PLUGIN_FOLDERS], ids=lambda path: path.stem
)
def test_plugins_stand_alone(path):
    for module in imports(path):
        assert not any(module.startswith(f"replay.{folder}") for folder in PLUGIN_FOLDERS), (
            f"{path.name} imports {module}"
        )


def test_the_engine_knows_no_plugin():
    for path in (PACKAGE / "migration").glob("*.py"):
        assert not any(module.startswith(f"replay.{folder}") for folder in PLUGIN_FOLDERS for module in imports(path))


def test_only_the_command_line_prints_or_exits():
    for path in FILES:
        if path.relative_to(PACKAGE).parts[0] in ("cli", "__main__.py"):
            continue
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = {call.id for call in calls if isinstance(call, ast.Name)}
        assert not names & {"print", "exit"}, path


def test_modules_stay_small():
    long = {
        str(path.relative_to(PACKAGE)): lines for path in FILES if (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long
