"""Every notebook runs from top to bottom, and is stored without outputs."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LESSONS = (
    "one-run-taken-apart", "the-table-of-the-thread", "all-designs-on-one-guest", "anatomy-of-a-trace",
    "write-your-own-design", "predict-a-real-migration", "sweeps-phases-fronts", "capture-your-own-guest",
)  # fmt: skip
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def test_the_lessons_are_there():
    assert set(LESSONS) <= {path.stem for path in NOTEBOOKS}
    listed = (FOLDER / "README.md").read_text()
    assert all(f"({path.name})" in listed for path in NOTEBOOKS)


@every_notebook
def test_it_runs(path, monkeypatch, tmp_path, capsys):
    """In a folder of its own, with the data that lie beside the notebooks."""
    for data in FOLDER.glob("*.json"):
        shutil.copy(data, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, object] = {"__name__": "__main__"}
    try:
        for number, source in enumerate(cells(path, "code")):
            exec(compile(source, f"{path.name}, code cell {number}", "exec"), names)
    finally:
        importlib.import_module("matplotlib.pyplot").close("all")


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_asks_and_answers(name):
    """Its first cell asks, its code checks, and at its end stands what to take home."""
    path = FOLDER / f"{name}.ipynb"
    assert "?" in cells(path, "markdown")[0]
    assert any("assert " in source for source in cells(path, "code"))
    assert any("## The answer" in text or "## What to take home" in text for text in cells(path, "markdown")[-3:])


@every_notebook
def test_it_holds_no_outputs(path):
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
