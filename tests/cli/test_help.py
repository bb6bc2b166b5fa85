"""`replay help`: every topic is there, says what the pages and docstrings say, and costs nothing to ask for."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from replay import plugins, units, work
from replay.cli import topics
from replay.cli.main import COMMANDS
from replay.columns import ROUNDS
from replay.errors import ReplayError
from tests.cli.calls import call

ROOT = Path(__file__).resolve().parents[2]
NAMES = [topic.name for topic in topics.TOPICS]
ESSAYS = [(kind, name) for kind in topics.KINDS for name in plugins.names(kind)]


def test_the_list_has_every_topic(capsys):
    code, out, _ = call(capsys, "help")
    assert code == 0
    assert all(f"\n{name} " in f"\n{out}" for name in NAMES)
    told = json.loads(call(capsys, "help", "--json")[1])["topics"]
    assert [entry["name"] for entry in told] == NAMES
    assert set(topics.ALIASES.values()) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_topic_fits_the_terminal_and_is_whole(capsys, name):
    code, out, _ = call(capsys, "help", name)
    assert code == 0
    code_lines = [line for line in out.splitlines() if line.startswith("    ")]
    assert max(len(line) for line in out.splitlines() if line not in code_lines) <= 100
    assert "<!--" not in out
    assert "```" not in out
    assert "](" not in out.replace("\n", " ") or name in ("adding-a-design", "designs")
    told = json.loads(call(capsys, "help", name, "--json")[1])
    assert told["topic"] == name
    assert len(told["text"]) > 300


@pytest.mark.parametrize(("kind", "name"), ESSAYS, ids=lambda given: given)
def test_a_plugins_essay_is_its_topic(capsys, kind, name):
    told = json.loads(call(capsys, "help", name, "--json")[1])["text"]
    source = ROOT / "replay" / plugins.FOLDERS[kind] / f"{name.replace('-', '_')}.py"
    assert told.startswith(ast.get_docstring(ast.parse(source.read_text())))
    assert all(f"| `{parameter.name}` |" in told for parameter in plugins.describe(kind, name).parameters)
    assert call(capsys, "help", name)[0] == 0


def test_topics_say_what_the_pages_say():
    told = {topic.name: topics.text(topic) for topic in topics.TOPICS}
    front = (ROOT / "README.md").read_text()
    for topic in topics.TOPICS:
        for kind, name in topic.parts:
            if kind == topics.FRONT:
                assert told[topic.name].partition("\n")[2] in front
            if kind == topics.PAGE and name.startswith("shipped"):
                assert (ROOT / "traces" / "README.md").read_text().strip("\n") in told[topic.name]
            elif kind == topics.PAGE:
                assert (ROOT / "replay" / name).read_text().strip("\n") in told[topic.name]
    assert "class State(NamedTuple)" in told["adding-a-design"]
    assert told["adding-a-design"].rstrip().endswith("```")  # a comment of the code's is no heading
    assert all(f"`{column.name}`" in told["columns"] for column in ROUNDS)
    assert all(f"`{counter.name}`" in told["counters"] for counter in work.COUNTERS)
    pages = {name for topic in topics.TOPICS for kind, name in topic.parts if kind == topics.PAGE}
    assert {path.relative_to(ROOT / "replay").as_posix() for path in (ROOT / "replay").rglob("README.md")} <= pages


def test_every_form_of_the_units_topic_is_accepted():
    parsers = {
        "sizes": units.parse_bytes, "bandwidths": units.parse_bandwidth, "times": units.parse_duration_ns,
        "shares": units.parse_share, "page rates": units.parse_page_rate,
    }  # fmt: skip
    assert set(units.FORMS) == set(parsers)
    for what, forms in units.FORMS.items():
        for form in forms:
            assert parsers[what](form) >= 0


def test_commands_and_mistypes(capsys):
    assert call(capsys, "help", "run")[1].startswith("usage: replay run")
    assert not set(COMMANDS) & set(NAMES)
    code, _, err = call(capsys, "help", "desings")
    assert code == 2
    assert "Did you mean 'designs'" in err


def test_an_installation_without_the_front_page_says_so(monkeypatch, tmp_path):
    import importlib.metadata

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(topics, "_PACKAGE", tmp_path / "replay")
    monkeypatch.setattr(importlib.metadata, "metadata", missing)
    with pytest.raises(ReplayError, match="install it"):
        topics.front_page()
    with pytest.raises(ReplayError, match="install dirtyreplay again"):
        topics._page("results/README.md")
    with pytest.raises(ReplayError, match="no section"):
        topics.section("# page\n", "Words")


@pytest.mark.parametrize("name", [*NAMES, "double-ring", "zipf"])
def test_help_imports_nothing_heavy(name):
    code = (
        "import sys\nfrom replay.cli.main import main\n"
        f"assert main(['help', {name!r}]) == 0\n"
        "heavy = {'numba', 'numpy', 'polars', 'pyarrow', 'matplotlib'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
