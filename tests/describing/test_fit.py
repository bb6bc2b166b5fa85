"""Fits find back what was generated, say how near they are, and write configs that generate the same again."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import replay
from replay.describing import fit as fitting
from replay.describing.candidates import candidates
from replay.describing.stat import stat
from replay.errors import UsageError
from replay.synthesis import config_file, synthetic


@pytest.fixture(scope="module")
def sequential_beside_idle() -> fitting.Fit:
    made = replay.generate(
        "idle:rate=4000,pages=100+sequential:rate=6000,within=10%-40%", memory="256M", vcpus=2, duration="6s"
    )
    return fitting.fit(made)


def test_a_fit_finds_back_what_was_generated(sequential_beside_idle: fitting.Fit) -> None:
    found = sequential_beside_idle
    assert found.name == "sequential + idle"
    assert found.score < 0.15
    other, idle = found.parts
    assert other["rate"] == pytest.approx(6000, rel=0.1)
    assert idle["pages"] == pytest.approx(100, rel=0.5)
    assert found.tried[0][1] < found.tried[-1][1]
    assert len({name for name, _ in found.tried}) == len(found.tried)


@pytest.mark.parametrize(
    ("spelled", "workload"),
    [("zipf:rate=20000,skew=0.9", "zipf"), ("file-cache:rate=20000,largest=64,metadata=20%", "file-cache")],
)
def test_other_workloads_are_told_apart(spelled: str, workload: str) -> None:
    made = replay.generate(spelled, memory="256M", vcpus=2, duration="5s")
    found = fitting.fit(made)
    assert workload in [part["workload"] for part in found.parts]
    errors = {row.figure: row.error for row in found.rows()}
    for figure in ("rate", "distinct pages in 100 ms", "distinct pages in 1 s"):
        assert errors[figure] is not None
        assert abs(errors[figure]) < 0.15, figure


def test_the_config_generates_what_the_figures_say(sequential_beside_idle: fitting.Fit, tmp_path: Path) -> None:
    path = tmp_path / "fit.toml"
    sequential_beside_idle.save(path)
    told = tomllib.loads(path.read_text())
    assert "is not the program" in path.read_text().splitlines()[1] or "not the program" in path.read_text()
    assert told["fit"]["source"] == sequential_beside_idle.source
    made = replay.generate(str(path), tmp_path / "made.parquet")
    again = stat(made).figures
    for key in ("n_events", "windows", "runs", "skew", "written_pages", "memory_bytes", "duration_ns"):
        assert again[key] == sequential_beside_idle.generated[key]
    assert list(tmp_path.glob("*.tmp")) == []


def test_a_fit_is_the_same_again() -> None:
    made = replay.generate("uniform:rate=3000", memory="64M", duration="2s")
    first, second = (fitting.fit(made, seed=3) for _ in range(2))
    assert first.as_dict() == second.as_dict()


def test_a_long_trace_is_fitted_on_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "SHORT_EVENTS", 2000)
    monkeypatch.setattr(fitting, "LONG_EVENTS", 8000)
    made = replay.generate("uniform:rate=5000", memory="64M", duration="4s")
    found = fitting.fit(made)
    assert found.parts[-1]["workload"] in ("uniform", "hot-cold", "zipf", "file-cache", "phases")
    assert found.original["n_events"] == 20_000


def test_scores() -> None:
    f = stat(replay.generate("uniform:rate=3000", memory="64M", duration="2s")).figures
    g = stat(replay.generate("sequential:rate=3000", memory="64M", duration="2s")).figures
    assert fitting.score(f, f) == 0
    assert 0 < fitting.score(f, g) <= fitting.CUT_OFF
    assert fitting.score(f, g) == pytest.approx(fitting.score(g, f))


def test_every_recipe_builds_what_generate_takes() -> None:
    f = stat(replay.open_trace("redis-1g")).figures
    recipes = candidates(f)
    assert {"idle", "uniform", "zipf", "hot-cold", "sequential", "file-cache", "zipf + idle"} <= {
        r.name for r in recipes
    }
    for recipe in recipes:
        for move in (-40.0, -1.0, 0.0, 1.0, 40.0):
            parts = recipe.build({key: value + move for key, value in recipe.start.items()}, f)
            made = synthetic.open_workload(config_file.spelled({"memory": str(f["memory_bytes"])}, parts, "test"))
            assert made.guest.n_pages == f["memory_bytes"] // 4096


def test_a_config_has_its_ending(tmp_path: Path, sequential_beside_idle: fitting.Fit) -> None:
    with pytest.raises(UsageError, match=r"must end in \.toml"):
        sequential_beside_idle.save(tmp_path / "fit.json")
    with pytest.raises(UsageError, match="cannot be written"):
        sequential_beside_idle.save(tmp_path / "nowhere" / "fit.toml")
