"""The check is worth something: plug-ins that lose pages in known ways are caught, by path, from Python and the shell."""

from __future__ import annotations

import pytest

import replay
from replay.cli.main import main
from replay.errors import UsageError
from replay.plugins import parse
from replay.trace.writer import write_trace
from tests.engine.test_scale_and_feed import small_trace

DESIGN = '''
"""A design that forgets: writes to every seventh page are not marked."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from replay.jit import NONE, U0, U1, U64
from replay.plugins import param
from replay.verbs import mark_ram, pending, pop, sync


@dataclass(frozen=True, kw_only=True)
class Config:
    forget: int = param(7, "forget the writes to every so-manyeth page", low=0)


class State(NamedTuple):
    marked: np.ndarray  # uint8 (n_pages,)  written since the last sync
    waiting: np.ndarray  # uint8 (n_pages,)  to be sent
    numbers: np.ndarray  # uint64 (3,)  forget, cursor, pending


def build(config, shape):
    numbers = np.array([config.forget, 0, shape.n_pages], dtype=np.uint64)
    return State(np.zeros(shape.n_pages, np.uint8), np.ones(shape.n_pages, np.uint8), numbers)


@mark_ram.implement(State)
def _mark(design, page, meter):
    if design.numbers[0] == U0 or page % design.numbers[0] != U0:
        design.marked[page] = 1


@sync.implement(State)
def _sync(design, meter):
    new = U0
    for page in range(design.marked.size):
        if design.marked[page] != 0:
            design.marked[page] = 0
            if design.waiting[page] == 0:
                design.waiting[page] = 1
                new += U1
    design.numbers[2] += new
    return new


@pop.implement(State)
def _pop(design, meter):
    for page in range(design.waiting.size):
        if design.waiting[page] != 0:
            design.waiting[page] = 0
            design.numbers[2] -= U1
            return U64(page)
    return NONE


@pending.implement(State)
def _pending(design):
    return design.numbers[2]
'''


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory):
    path = tmp_path_factory.mktemp("mine") / "forgetful.py"
    path.write_text(DESIGN)
    return path


OPTIONS = {"log": "tcg", "max_bandwidth": "10MB/s", "downtime_limit": "5ms", "at_end": "hold"}


def test_forgotten_writes_are_lost_pages_and_no_others(forgetful):
    trace = small_trace(n_pages=300, events=2000)
    result = replay.run(trace, design=f"{forgetful}:7", **OPTIONS)
    seventh = {int(page) for page in trace.decode().page if page % 7 == 0}
    assert result.status == "completed"
    assert 0 < result.lost_pages <= len(seventh)
    honest = replay.run(trace, design=f"{forgetful}:0", **OPTIONS)
    assert honest.lost_pages == 0


def test_a_design_of_ones_own_gives_what_the_shipped_one_gives(forgetful):
    """It has only the four verbs that a design needs, runs on every log, and moves the same pages."""
    trace = small_trace(n_pages=300, events=2000)
    for log in ("tcg", "kvm-ring:256,pml=off", "kvm-bitmap"):
        options = OPTIONS | {"log": log}
        mine = replay.run(trace, design=f"{forgetful}:0", **options)
        shipped = replay.run(trace, design="bitmap", **options)
        assert mine.lost_pages == 0
        assert mine.rows[0]["formulation"] == "stepping"
        assert shipped.rows[0]["formulation"] == "batched"
        # It counts other work, so its first round ends some microseconds earlier or later.
        first, theirs = ([row["dirty_pages"] for row in result.rows[:2]] for result in (mine, shipped))
        assert first == pytest.approx(theirs, abs=5)
        assert mine.summary["ram"]["normal"] == pytest.approx(shipped.summary["ram"]["normal"], rel=0.05)


def test_two_plugins_of_the_same_shape_do_not_run_each_others_code(tmp_path):
    """Their states have the same name and the same fields; only what the verbs do differs."""
    trace = small_trace(n_pages=300, events=2000)
    paths = [tmp_path / "left.py", tmp_path / "right.py"]
    paths[0].write_text(DESIGN)
    paths[1].write_text(DESIGN.replace("design.marked[page] = 1", "design.marked[page] = 1 if page > 150 else 0"))
    lost = [replay.run(trace, design=f"{path}:0", **OPTIONS).lost_pages for path in (*paths, *paths)]
    assert lost[0] == lost[2] == 0
    assert lost[1] == lost[3] > 0


def test_the_shell_says_so_with_exit_code_3(forgetful, capsys, tmp_path):
    trace = small_trace(n_pages=300, events=2000)
    events, path = trace.decode(), tmp_path / "small.parquet"
    write_trace(path, trace.metadata, events.t_ns, events.page, events.origin)
    code = main(
        [
            "run",
            str(path),
            "--design",
            f"{forgetful}:7",
            "--log",
            "tcg",
            "--at-end",
            "hold",
            "--max-bandwidth",
            "10MB/s",
        ]
    )
    _, err = capsys.readouterr()
    assert code == 3
    assert "pages were lost" in err


def test_an_edited_plugin_is_a_new_plugin(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(DESIGN)
    first = parse("design", str(path))
    path.write_text(DESIGN.replace("param(7,", "param(9,"))
    second = parse("design", str(path))
    assert first.module.State is not second.module.State
    assert (first.config.forget, second.config.forget) == (7, 9)


@pytest.mark.parametrize(
    ("text", "told"),
    [("import nothing_of_that_name", "fails to import"), ("x = (", "fails to import"), ("x = 1", "must define Config")],
)
def test_a_broken_plugin_is_named(tmp_path, text, told):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(UsageError, match=told):
        parse("design", str(path))
