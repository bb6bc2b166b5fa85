"""Grids of replays: winners and crossovers on frames made by hand, and grids against replays run one by one."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

import replay
from replay import axes
from replay.analysis import phase as analysis
from replay.errors import ResultError, UsageError
from replay.plugins import names, parse
from replay.synthesis.synthetic import faster
from tests.engine.test_scale_and_feed import small_trace

TOTAL = analysis.FIGURES["total-time"]
QUICK = {"log": "kvm-ring:256,pml=off", "max_bandwidth": "20MB/s", "downtime_limit": "5ms", "give_up": "2s"}
PAIR = ["bitmap", "double-ring"]


def frame(cells: dict[tuple[int, int, int], dict[str, Any]], x: Any = (1.0, 10.0), y: Any = (1.0, 2.0)) -> pl.DataFrame:
    """A grid from {(facet, y, x): {candidate: total or (total, status, lost)}}."""
    rows = []
    for (facet, row, column), figures in cells.items():
        for name, given in figures.items():
            total, status, lost = given if isinstance(given, tuple) else (given, "completed", 0)
            rows.append({
                "facet_index": facet, "y_index": row, "x_index": column, "x_place": x[column], "y_place": y[row],
                "candidate": name, "status": status, "lost_pages": lost, TOTAL.column: total,
                "unsafe": "it was told so" if name == "u" else None,
            })  # fmt: skip
    schema = {"unsafe": pl.String, "x_place": pl.Float64, "y_place": pl.Float64, TOTAL.column: pl.Int64}
    return pl.DataFrame(rows, schema_overrides=schema)


def evaluated(*arguments: Any, tie: float | None = None, **places: Any) -> tuple[list[dict], list[dict]]:
    made = frame(*arguments, **places)
    won = analysis.cells(made, TOTAL, tie)
    return won.to_dicts(), analysis.crossovers(made, won, TOTAL).to_dicts()


def test_the_least_wins_by_its_share_of_the_runner_up():
    (cell,), lines = evaluated({(0, 0, 0): {"a": 1200, "b": 1000, "c": 1100}})
    assert (cell["winner"], cell["tied"], cell["value"]) == ("b", ["b"], 1000)
    assert (cell["runner_up"], cell["margin"]) == ("c", pytest.approx(0.1))
    assert lines == []


def test_ties_are_named_as_ties():
    figures = {(0, 0, 0): {"a": 1001, "b": 1000, "c": 1002}}
    assert evaluated(figures)[0][0]["tied"] == ["b", "a"]
    assert evaluated(figures)[0][0]["runner_up"] == "c"
    assert evaluated(figures, tie=0.0)[0][0]["tied"] == ["b"]
    (cell,), _ = evaluated(figures, tie=0.01)
    assert (cell["tied"], cell["runner_up"], cell["margin"]) == (["b", "a", "c"], None, None)
    (cell,), _ = evaluated({(0, 0, 0): {"a": 0, "b": 0, "c": 5}})
    assert (cell["tied"], cell["runner_up"], cell["margin"]) == (["a", "b"], "c", None)


def test_who_lost_pages_or_did_not_converge_is_named_and_cannot_win():
    (cell,), _ = evaluated({(0, 0, 0): {"a": (1, "completed", 7), "b": (None, "not-converged", 0), "c": 900}})
    assert cell["winner"] == "c"
    assert cell["out"] == ["a: unsafe, lost 7 pages", "b: not-converged"]
    assert cell["runner_up"] is None
    assert evaluated({(0, 0, 0): {"u": 1, "c": 900}})[0][0]["out"] == ["u: unsafe, it was told so"]
    (cell,), _ = evaluated({(0, 0, 0): {"a": (1, "completed", 7)}})
    assert (cell["winner"], cell["tied"], cell["value"]) == (None, [], None)


def test_a_crossover_is_where_the_figures_are_equal_on_a_logarithmic_axis():
    """a - b goes from -30 to +10 between 1 and 10: three quarters of the way."""
    _, lines = evaluated({(0, 0, 0): {"a": 70, "b": 100}, (0, 0, 1): {"a": 110, "b": 100}})
    (line,) = lines
    assert (line["along"], line["before"], line["after"]) == ("x", "a", "b")
    assert line["step"] == pytest.approx(0.75)
    assert line["place"] == pytest.approx(10**0.75)


def test_an_axis_with_a_zero_is_linear_and_one_without_numbers_has_no_places():
    figures = {(0, 0, 0): {"a": 70, "b": 100}, (0, 0, 1): {"a": 110, "b": 100}}
    assert evaluated(figures, x=(0.0, 8.0))[1][0]["place"] == pytest.approx(6.0)
    (line,) = evaluated(figures, x=(None, None))[1]
    assert line["step"] == pytest.approx(0.75)
    assert line["place"] is None


def test_no_place_where_one_of_the_two_could_not_win_and_no_line_through_ties():
    (line,) = evaluated({(0, 0, 0): {"a": 70, "b": (None, "not-converged", 0)}, (0, 0, 1): {"a": 110, "b": 100}})[1]
    assert (line["before"], line["after"], line["step"], line["place"]) == ("a", "b", None, None)
    assert evaluated({(0, 0, 0): {"a": 100, "b": 100}, (0, 0, 1): {"a": 110, "b": 100}})[1] == []
    assert evaluated({(0, 0, 0): {"a": (1, "x", 0)}, (0, 0, 1): {"a": 110}})[1] == []


def test_lines_run_along_both_axes_and_not_across_facets():
    cells = {(f, y, x): {"a": 10, "b": 20} for f in (0, 1) for y in (0, 1) for x in (0, 1)}
    cells[0, 1, 1] = {"a": 20, "b": 10}
    cells[1, 0, 0] = {"a": 20, "b": 10}
    _, lines = evaluated(cells)
    assert {(line["facet_index"], line["y_index"], line["x_index"], line["along"]) for line in lines} == {
        (0, 1, 0, "x"), (0, 0, 1, "y"), (1, 0, 0, "x"), (1, 0, 0, "y")
    }  # fmt: skip


def test_line_segments_join_crossovers_and_run_out_at_the_edge():
    from replay.analysis.phase_plot import segments

    line = {"x_index": 0, "y_index": 0, "along": "x", "step": 0.25}
    assert segments([line], 2, 1) == [(((0.25, 0.0), (0.25, -0.5)), True), (((0.25, 0.0), (0.25, 0.5)), True)]
    corner = [line | {"y_index": 1, "step": None}, line | {"x_index": 1, "along": "y"}]
    drawn = segments(corner, 2, 2)
    assert (((0.5, 1.0), (1.0, 0.25)), False) in drawn
    assert (((0.5, 1.0), (0.5, 1.5)), False) in drawn
    assert (((1.0, 0.25), (1.5, 0.25)), True) in drawn
    assert len(drawn) == 3


# -- grids ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grid():
    return replay.phase(
        small_trace(), x="memory=2M,8M", y="dirty-rate=0.5x,3x", facet="ring-size=4,64", designs=PAIR, **QUICK
    )


def test_every_cell_is_the_replay_that_one_would_run_alone(grid):
    assert grid.frame.height == 2 * 2 * 2 * 2
    for row in grid.frame.to_dicts():
        factor = Fraction(row["y"][:-1])
        design = row["candidate"] if row["candidate"] == "bitmap" else f"double-ring:{row['facet']}"
        alone = replay.run(faster(small_trace(), factor), memory=row["x"], design=design, **QUICK)
        assert row["design"] == alone.config["design"]
        assert row["status"] == alone.status
        assert row["lost_pages"] == alone.lost_pages == 0
        assert row["trace_sha256"] == alone.provenance["trace"]["sha256"]
        assert row["sent_bytes"] == alone.summary["ram"]["transferred"]
        parts = ("harvest", "sync", "find", "aside")
        assert row["modelled_find_cpu_ns"] == sum(alone.total(f"modelled_{part}_ns") for part in parts)
        assert row["modelled_stall_ns"] == alone.total("modelled_stall_ns")
        if alone.status == "completed":
            assert row["modelled_total_ns"] // 10**6 == alone.summary["total-time"]
            assert abs(row["modelled_downtime_ns"] / 1e6 - alone.summary["downtime"]) <= 1
    least = {
        key: rows.sort("modelled_total_ns", maintain_order=True)["modelled_total_ns"][0]
        for key, rows in grid.frame.group_by("facet_index", "y_index", "x_index")
    }
    for cell in grid.cells.to_dicts():
        assert cell["value"] == least[cell["facet_index"], cell["y_index"], cell["x_index"]]


def test_what_several_cells_ask_for_runs_once(grid):
    assert grid.provenance["replays"] == 4 + 8


def test_threads_and_repetition_change_nothing(grid):
    again = replay.phase(
        small_trace(),
        x="memory=2M,8M",
        y="dirty-rate=0.5x,3x",
        facet="ring-size=4,64",
        designs=PAIR,
        threads=1,
        **QUICK,
    )
    modelled = [name for name in grid.frame.columns if "measured" not in name]
    assert again.frame.select(modelled).equals(grid.frame.select(modelled))
    assert again.crossovers.equals(grid.crossovers)


def test_a_file_has_every_run_and_where_it_came_from(grid, tmp_path):
    path = tmp_path / "grid.parquet"
    grid.save(path)
    assert pl.read_parquet(path).equals(grid.frame)
    told = json.loads(pq.read_schema(path).metadata[b"replay.phase"])
    assert told["axes"]["facet"] == {"name": "ring-size", "values": ["4", "64"]}
    assert told["provenance"]["candidates"] == PAIR
    for key in ("trace", "numba", "cpu", "costs", "made_at", "sources", "options"):
        assert told["provenance"][key]
    json.dumps(grid.as_dict())
    assert [entry.name for entry in tmp_path.iterdir()] == ["grid.parquet"]
    with pytest.raises(ResultError, match="cannot be written"):
        grid.save(tmp_path / "nowhere" / "grid.parquet")


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_it_is_drawn(grid, tmp_path, suffix):
    path = tmp_path / f"grid.{suffix}"
    grid.plot().savefig(path)
    assert path.stat().st_size > 2000


def test_a_workload_takes_memory_and_absolute_rates():
    grid = replay.phase(
        "uniform:rate=500,duration=1s", x="memory=2M,4M", y="dirty-rate=250,1000", designs=PAIR, **QUICK
    )
    for row in grid.frame.to_dicts():
        text = f"uniform:rate={row['y']},duration=1s"
        alone = replay.run(text, memory=row["x"], design=row["candidate"], **QUICK)
        assert row["trace_sha256"] == alone.provenance["trace"]["sha256"]
        assert row["sent_bytes"] == alone.summary["ram"]["transferred"]
    assert grid.frame["y_place"].unique().sort().to_list() == [250.0, 1000.0]


def test_measured_figures_are_their_own(grid):
    for figure in analysis.FIGURES.values():
        assert ("measured" in figure.name) == figure.measured
        assert not figure.measured or "modelled" not in figure.meaning
    told = replay.phase(
        small_trace(), x="memory=2M", y="dirty-rate=1x", figure="measured-find-cpu", designs=PAIR, **QUICK
    )
    assert told.provenance["options"]["formulation"] == "stepping"
    assert told.provenance["tie"] == 0.05


def test_every_design_that_claims_to_be_safe_competes_by_default():
    grid = replay.phase(small_trace(), x="memory=2M", y="dirty-rate=1x", **QUICK)
    assert grid.frame["candidate"].to_list() == [
        name for name in names("design") if parse("design", name).unsafe is None
    ]
    assert grid.frame["lost_pages"].to_list() == [0] * grid.frame.height


@pytest.mark.parametrize(
    ("axis", "values", "places"),
    [
        ("memory=8G,32G", ("8G", "32G"), (8 << 30, 32 << 30)),
        ("dirty-rate=0.5x,400", ("0.5x", "400"), (100, 400)),
        ("downtime-limit=30ms,1s", ("30ms", "1s"), (30, 1000)),
        ("max-bandwidth=1MB/s,1MiB/s", ("1MB/s", "1MiB/s"), (10**6, 1 << 20)),
        ("log.entries=1k,2k", ("1k", "2k"), (1024, 2048)),
        ("reaper-period=1ms,1s", ("1ms", "1s"), (10**6, 10**9)),
        ("ring-size=4,8", ("4", "8"), (4, 8)),
        ("host-page-refind", ("off", "on"), None),
        ("open-loop", ("off", "on"), None),
        ("at-end", ("loop", "hold"), None),
        ("log", tuple(names("log")), None),
        ("costs=generic-x86", ("generic-x86",), None),
    ],
)
def test_axes(axis, values, places):
    made = axes.make(axis, log="kvm-ring", designs=PAIR, memory_bytes=1 << 30, base_rate=Fraction(200))
    assert made.values == values
    assert made.places == places
    assert not places or all(math.isfinite(place) for place in made.places)


def test_an_axis_without_values_has_sensible_ones():
    for name in ("memory", "dirty-rate", "ring-size", "max-bandwidth", "downtime-limit", "link", "zero-share"):
        made = axes.make(name, log="kvm-ring", designs=PAIR, memory_bytes=10 << 30, base_rate=Fraction(200))
        assert len(made.values) >= 2
    assert axes.make("memory", log="tcg", designs=PAIR, memory_bytes=10 << 30, base_rate=Fraction(1)).values[0] == "10G"


def test_an_axis_changes_one_parameter_and_leaves_the_rest():
    made = axes.make("design.entries=8", log="kvm-ring", designs=["double-ring"], memory_bytes=1, base_rate=Fraction(1))
    for given, changed in (
        ("double-ring", "double-ring:entries=8"),
        ("double-ring:64", "double-ring:entries=8"),
        ("double-ring:64,host-page-refind=on", "double-ring:host-page-refind=on,entries=8"),
        ("bitmap:off", "bitmap:off"),
    ):
        assert made.apply(axes.Setting(log="tcg", design=given, options={}), "8").design == changed


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"x": "memry"}, "no axis 'memry'.*Did you mean 'memory'"),
        ({"x": "entries=1"}, "log.entries or design.entries"),
        ({"x": "design=bitmap"}, "no axis 'design'"),
        ({"x": "give-up"}, "give its values"),
        ({"x": "memory="}, "give its values"),
        ({"x": "memory=lots"}, "not a size"),
        ({"x": "memory=8G,8G"}, "given twice"),
        ({"x": "memory=8G,2G"}, "must rise"),
        ({"y": "dirty-rate=0x"}, "is no rate"),
        ({"y": "dirty-rate=1/0x"}, "not a multiple"),
        ({"y": "dirty-rate=fastx"}, "not a multiple"),
        ({"y": "dirty-rate=-1"}, "not a rate"),
        ({"y": "dirty-rate=1e9x"}, "times as fast"),
        ({"y": "memory=8G"}, "given twice"),
        ({"facet": "log.entries=5"}, "must be at least"),
        ({"facet": "ring-size=8", "designs": ["bitmap", "hierarchical-bitmap"]}, "none of the designs"),
        ({"facet": "open-loop=maybe"}, "on or off"),
        ({"designs": ["bitmap"]}, "two or more"),
        ({"designs": ["bitmap", "bitmap"]}, "two or more"),
        ({"designs": ["bitmap", "double-rings"]}, "Did you mean 'double-ring'"),
        ({"figure": "speed"}, "no figure 'speed'"),
        ({"tie": 1.5}, "a tie is a share"),
        ({"speed": 5}, "no option 'speed'"),
    ],
)
def test_senseless_grids_are_refused(options, told):
    given = {"x": "memory=2M", "y": "dirty-rate=1x", "designs": PAIR} | QUICK | options
    with pytest.raises(UsageError, match=told):
        replay.phase(small_trace(), **given)
