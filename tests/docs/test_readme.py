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
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in [ROOT / "README.md", ROOT / "notebooks" / "README.md", *sorted((ROOT / "replay").rglob("README.md")),
                 *sorted((ROOT / "tools").rglob("README.md"))]
}  # fmt: skip
"""The front page, and those beside the code. traces/README.md has tests of its own."""
BLOCKS = {name: re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL) for name, text in PAGES.items()}


def commands() -> list[tuple[str, list[list[str]]]]:
    """The commands of every block, as they stand there, with their page."""
    found = []
    for name, blocks in BLOCKS.items():
        for language, text in blocks:
            if language == "sh":
                lines = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
                found.append((name, [words[1:] for words in lines if words and words[0] == "replay"]))
    return [(name, block) for name, block in found if block]


@pytest.mark.parametrize(
    ("page", "block"),
    [pytest.param(page, block, id=f"{page}: {' '.join(block[0])}") for page, block in commands()],
)
def test_commands_run(page, block, monkeypatch, tmp_path, capsys):
    """In one folder, one after the other: later ones may use what earlier ones wrote, and files that are shown whole."""
    monkeypatch.chdir(tmp_path)
    for name, text in re.findall(r"<!-- (\S+\.toml) -->\n```toml\n(.*?)```", PAGES[page], re.DOTALL):
        (tmp_path / name).write_text(text)
    for command in block:
        assert main(command) == 0, command


def test_there_are_commands():
    assert sum(len(block) for _, block in commands()) >= 40
    assert sum(len(block) for page, block in commands() if page == "README.md") >= 5


@pytest.mark.parametrize(
    ("page", "text"),
    [
        pytest.param(page, text, id=f"{page}-{number}")
        for page, blocks in BLOCKS.items()
        for number, (language, text) in enumerate(blocks)
        if language == "python"
    ],
)
def test_python_runs(page, text, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(text, page, "exec"), {"__name__": "__main__"})


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


def test_the_suite_can_be_pointed_at_it(tmp_path):
    """The command as it stands there, on one log and for one of its tests."""
    [command] = re.findall(r"```\n(python -m pytest .*)\n```", README)
    path = tmp_path / "byte_map.py"
    path.write_text(README.split("<!-- a whole design -->\n```python\n")[1].split("```")[0])
    words = command.replace("path/to/byte_map.py", str(path)).split()[1:]
    words += ["-q", "-p", "no:cacheprovider", "-k", "idle_guest and tcg"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert re.search(r"[1-9] passed", done.stdout)


def test_generated_tables_are_fresh():
    done = subprocess.run([sys.executable, "tools/refresh_readme.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "run python tools/refresh_readme.py"


def test_the_front_pages_picture_is_of_todays_replays():
    done = subprocess.run([sys.executable, "tools/front_picture.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "run python tools/front_picture.py, and look at it"


def test_links_within_the_repository_lead_somewhere():
    for page, text in PAGES.items():
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_every_page_is_one_step_from_the_front_page():
    targets = {target.removesuffix("/") for target in re.findall(r"\]\((?!http)([^)#]+)\)", README)}
    assert set(PAGES) - {"README.md"} <= targets
    assert "traces/README.md" in targets


def test_the_front_page_has_its_order():
    heads = (
        "\n![", "\n## Install", "\n## In sixty seconds", "\n## The question", "\n## Words", "\n## A design of your own",
        "\n## What is modelled", "\n## How wrong it has been", "\n## How fast it is",
    )  # fmt: skip
    places = [README.index(head) for head in heads]
    assert places == sorted(places)
    assert len(README) < 30_000


def test_the_package_list_is_complete():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    present = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for pattern in ("*.py", "*.toml", "README.md")
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
