"""What the README says is what happens: its commands run, its Python runs, its generated parts are fresh."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import replay
from replay.cli.main import main
from replay.plugins import names
from tests.engine.test_scale_and_feed import small_trace

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[list[str]]]:
    """The commands of every block, as they stand there."""
    found = []
    for language, text in BLOCKS:
        if language == "sh":
            lines = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
            found.append([words[1:] for words in lines if words and words[0] == "replay"])
    return [block for block in found if block]


@pytest.mark.parametrize("block", commands(), ids=lambda block: " ".join(block[0]))
def test_commands_run(block, monkeypatch, tmp_path, capsys):
    """In one folder, one after the other: later ones may use what earlier ones wrote, and files that are shown whole."""
    monkeypatch.chdir(tmp_path)
    for name, text in re.findall(r"<!-- (\S+\.toml) -->\n```toml\n(.*?)```", README, re.DOTALL):
        (tmp_path / name).write_text(text)
    for command in block:
        assert main(command) == 0, command


def test_there_are_commands():
    assert sum(map(len, commands())) >= 5


@pytest.mark.parametrize("text", [text for language, text in BLOCKS if language == "python"])
def test_python_runs(text, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "README.md", "exec"), {"__name__": "__main__"})


def test_the_design_of_the_readme_works(tmp_path):
    """Saved to a file it runs on every log, loses nothing, and sends what the shipped bitmaps send."""
    path = tmp_path / "byte_map.py"
    path.write_text(README.split("<!-- a whole design -->\n```python\n")[1].split("```")[0])
    trace = small_trace(events=2000)
    for log in names("log"):
        options = {"log": log, "max_bandwidth": "10MB/s", "downtime_limit": "5ms", "at_end": "hold"}
        mine, shipped = (replay.run(trace, design=design, **options) for design in (str(path), "bitmap"))
        assert mine.status == "completed"
        assert mine.lost_pages == 0
        assert mine.rows[1]["dirty_pages"] == shipped.rows[1]["dirty_pages"]


def test_generated_tables_are_fresh():
    done = subprocess.run([sys.executable, "tools/refresh_readme.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "run python tools/refresh_readme.py"


def test_links_within_the_repository_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_package_list_is_complete():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    present = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for pattern in ("*.py", "*.toml")
        for path in (ROOT / "replay").rglob(pattern)
        if "__pycache__" not in path.parts
    }
    assert listed == present | {"replay.shipped"}


def test_the_top_level_holds_what_belongs_there():
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in done.stdout.splitlines() if not line.startswith(".")}
    assert top <= {"pyproject.toml", "replay", "traces", "notebooks", "tests", "tools", "README.md"}
