"""The shipped traces, their cards, and traces/README.md, which must be enough to write a trace from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from replay.trace.documentation import data_card, traces_table, with_section
from replay.trace.operations import validate
from replay.trace.reader import open_trace
from replay.trace.schema import markdown_table

TRACES = Path(__file__).resolve().parents[2] / "traces"
README = TRACES / "README.md"
FILES = sorted(TRACES.glob("*.parquet"))


def test_there_are_12_to_16_of_25_mb_in_all() -> None:
    assert 12 <= len(FILES) <= 16
    assert sum(path.stat().st_size for path in FILES) <= 25_000_000
    assert (TRACES / "redis-1g.parquet").stat().st_size <= 7_000_000
    assert {path.name for path in TRACES.iterdir()} == {
        "README.md", "index.json", *(path.name for path in FILES), *(f"{path.stem}.md" for path in FILES)
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_valid_with_an_up_to_date_card(path: Path) -> None:
    assert validate(path) == []
    metadata = open_trace(path).metadata
    assert metadata.licence == "CC0-1.0"
    assert metadata.n_vcpus == 2 or path.stem in ("microvm-sequential", "process-sort", "process-sqlite")
    assert metadata.provenance.get("events_outside_ram_blocks", 0) == 0
    assert metadata.rearm_gap_ns is not None
    if metadata.migration_start_ns is not None:
        assert metadata.page_classes_at_ns == metadata.migration_start_ns
        assert open_trace(path).zero_pages().any()
    assert (TRACES / f"{path.stem}.md").read_text() == data_card(path)


def test_the_collection_is_broad() -> None:
    metadata = [open_trace(path).metadata for path in FILES]
    assert any(m.throttled for m in metadata)
    assert any(m.rearm_times_ns for m in metadata)
    assert len({m.workload for m in metadata}) >= 7


def test_generated_sections_of_the_readme() -> None:
    text = README.read_text()
    assert with_section(text, "fields", markdown_table()) == text
    listed = re.findall(r"^\| \[([\w-]+)\]\([\w-]+\.md\)", text, re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in FILES)
    assert with_section(text, "traces", traces_table(TRACES, listed)) == text


def test_the_example_of_the_readme_writes_a_valid_trace(tmp_path: Path, monkeypatch: Any) -> None:
    [example] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert "replay.trace" not in re.sub(r'"replay\.trace"', "", example), "it must need pyarrow alone"
    assert len([line for line in example.splitlines() if line]) <= 15
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README example", "exec"), {})
    assert validate("example.parquet") == []
    events = open_trace("example.parquet").decode()
    assert events.t_ns.tolist() == [0, 1500, 1500, 40_000]
    assert events.page.tolist() == [7, 8, 9, 7]
