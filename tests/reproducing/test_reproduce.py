"""Published experiments: the files are read, small ones are replayed, fits are fits, signs are signs."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

import replay
from replay.cli.main import main
from replay.errors import UsageError
from replay.jit import DISABLED
from replay.reproducing import picture, scan, scenario
from replay.reproducing.report import Figure, markdown, signs_of

compiled = pytest.mark.skipif(DISABLED, reason="full-size guests would take hours as plain Python")

SMALL = """
kind = "replays"
title = "A small one"
source = "nobody"
unit = "ms"
[options]
trace = "uniform:rate=2000,memory=32M,vcpus=2,duration=500ms"
zero-share = "60%"
max-bandwidth = "0"
downtime-limit = "1ms"
give-up = "2s"
log = "tcg"
[[table]]
compared = ["slow", "fast"]
columns.slow = { design = "bitmap" }
columns.fast = { design = "bitmap:off" }
rows = { A = {}, B = { memory = "48M" }, C = { max-bandwidth = "4MB/s" } }
[table.published]
A = { slow = [19.0, 18.0, 20.0], fast = 18.9 }
B = { slow = 15.0, fast = 16.0 }
C = { slow = inf, fast = inf }
[[fit]]
name = "prices"
costs = ["zero_pages", "refind_calls"]
cells = [["A", "slow"], ["A", "fast"]]
[[assumption]]
name = "writes"
text = "uniform"
[[sensitivity]]
name = "more zeros"
change = { zero-share = "70%" }
rows = ["A", "B"]
[[sensitivity]]
name = "an expensive second search"
change = { costs = "generic-x86:refind_calls=400" }
fitted = false
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("scenario") / "small.toml"
    path.write_text(SMALL)
    return path


def test_every_shipped_scenario_is_whole():
    assert scenario.names() == ["accuracy", "huang-2022", "imamura-2024", "scan-2025", "xu-2020"]
    for name in scenario.names():
        found = scenario.load(name)
        assert found.title
        assert found.source
        assert found.assumptions
        for table in found.tables:
            assert {row for row, _ in table.published} == set(table.rows)
    seed = scenario.load("imamura-2024").tables[0].published
    assert seed["96G", "bitmap"] == 5388
    assert {row for fit in scenario.load("imamura-2024").fits for row, _ in fit.cells} == {"8G", "32G"}
    huang = scenario.load("huang-2022")
    assert huang.tables[0].published["110 MB", "auto-converge"] == math.inf
    assert huang.tables[2].published["dhry2reg", "auto-converge"] == pytest.approx(100 * 25292 / 32800)


@pytest.fixture(scope="module")
def report(small):
    seen = []
    made = replay.reproduce(str(small), progress=lambda done, what: seen.append(done))
    assert seen == list(range(1, len(seen) + 1))
    return made


def test_fitted_cells_come_out_right_and_say_so(report):
    told = report.as_dict()
    assert list(told)[:3] == ["experiment", "cells", "sign_agreement"]
    assert all(set(c) == {"row", "column", "published", "replayed", "error_pct", "kind"} for c in told["cells"])
    cells = {(c["row"], c["column"]): c for c in told["cells"]}
    assert {place for place, c in cells.items() if c["kind"] == "fit"} == {("A", "slow"), ("A", "fast")}
    assert abs(cells["A", "slow"]["error_pct"]) < 0.1
    assert cells["A", "slow"]["published"] == 19.0
    assert cells["C", "fast"]["published"] is None
    assert cells["C", "fast"]["error_pct"] is None
    json.dumps(told, allow_nan=False)
    again = replay.run(
        "uniform:rate=2000,memory=32M,vcpus=2,duration=500ms", zero_share="60%", max_bandwidth="0", downtime_limit="1ms",
        log="tcg", give_up="2s",
        costs="generic-x86:" + ",".join(f"{k}={v:.3f}" for k, v in report.fits[0]["values"].items()),
    )  # fmt: skip
    assert again.rows[-1]["end_ns"] / 1e6 == pytest.approx(cells["A", "slow"]["replayed"], abs=1e-3)


def test_signs_agree_or_do_not(report):
    assert {sign.row: (sign.published, sign.replayed) for sign in report.signs} == {
        "A": (1, 1),
        "B": (-1, 1),
        "C": (0, 0),
    }
    assert report.sign_agreement == pytest.approx(2 / 3)
    figures = {("r", "a"): Figure(place=("r", "a"), published=math.inf, replayed=5.0, kind="fit"),
               ("r", "b"): Figure(place=("r", "b"), published=1.0, replayed=7.0, kind="fit")}  # fmt: skip
    assert [(s.published, s.replayed) for s in signs_of(figures, ["r"], ("a", "b"))] == [(1, -1)]


def test_shares_have_an_axis_and_a_unit_of_their_own(report):
    shares = [dataclasses.replace(figure, unit="%", place=(f"share {figure.place[0]}", figure.place[1]))
              for figure in report.figures if figure.error_pct is not None]  # fmt: skip
    both = dataclasses.replace(report, figures=(*report.figures, *shares))
    drawn = picture.draw(both)
    assert [axis.get_xlabel().split(" ")[0] for axis in drawn.axes] == ["ms", "%"]
    assert [len(axis.get_yticks()) for axis in drawn.axes] == [len(report.figures), len(shares)]
    assert "| share A | slow | 19.00 % |" in markdown(both)
    assert len(picture.draw(report).axes) == 1


def test_sensitivity_rows_say_what_moves(report):
    zeros, search = report.what_ifs
    assert {figure.place[0] for figure in zeros.figures} == {"A", "B"}
    assert zeros.fits
    assert zeros.fits[0]["values"] != report.fits[0]["values"]
    assert search.moved_pct > 5
    assert not search.fits
    text = markdown(report)
    assert "| A | slow | 19.00 |" in text
    assert "more zeros" in text
    assert "never" in text
    assert "Fits:" in text
    assert all(len(line) <= 78 for line in text.splitlines() if not line.startswith("|"))


def test_an_option_is_fitted_on_one_cell(tmp_path):
    path = tmp_path / "option.toml"
    path.write_text(
        SMALL.split("[[fit]]")[0].replace("A = { slow = [19.0, 18.0, 20.0], fast = 18.9 }", "A = { slow = 9.0 }")
        + '[[fit]]\nname = "zeros"\noption = "zero-share"\nwithin = [0.2, 0.95]\ncells = [["A", "slow"]]\n'
    )
    made = replay.reproduce(str(path))
    assert abs(made.figures[0].error_pct) < 1
    assert 0.2 < made.fits[0]["values"]["zero_share"] < 0.95
    path.write_text(path.read_text().replace("0.95]", "0.21]"))
    with pytest.raises(UsageError, match="not between them"):
        replay.reproduce(str(path))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('kind = "replays"', 'kind = "plays"', "Did you mean 'replays'"),
        ('unit = "ms"', 'unit = "h"', "there are: ms, s"),
        ("zero-share", "zero-shares", "Did you mean 'zero_share'"),
        ("fast = 18.9", "fast = -18.9", "above 0"),
        ("fast = 18.9", "faster = 18.9", "no row and column"),
        ('["A", "fast"]', '["A", "other"]', "no figure is published for A, other"),
        ('["slow", "fast"]\ncol', '["slow", "slower"]\ncol', "are not two of the columns"),
        ('costs = ["zero_pages"', 'costs = ["zeros"', "zeros is no price"),
        ('title = "A small one"', "", "lacks 'title'"),
        ("[options]", "[options", "not a scenario"),
        ('rows = ["A", "B"]', 'rows = ["A", "D"]', "row 'D'"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_scenario_is_named(tmp_path, old, new, told):
    path = tmp_path / "bad.toml"
    path.write_text(SMALL.replace(old, new))
    with pytest.raises(UsageError, match=told):
        replay.reproduce(str(path))


def test_both_scans_find_the_same_bits():
    words = scan.bitmap(200, 0.03)
    a, b = scan.np.zeros(8192, dtype="uint64"), scan.np.zeros(8192, dtype="uint64")
    assert scan.every_bit(words, a) == scan.touched_words(words, b) > 200
    assert (a == b).all()


def test_the_command(small, capsys, tmp_path):
    picture = tmp_path / "small.png"
    assert main(["reproduce", str(small), "--json", "--no-sensitivity", "--plot", str(picture)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["experiment"] == "small"
    assert told["sensitivity"] == []
    assert picture.stat().st_size > 5000
    assert main(["reproduce"]) == 0
    out = capsys.readouterr().out
    assert "imamura-2024" in out
    assert max(map(len, out.splitlines())) <= 100
    assert main(["reproduce", str(small)]) == 0
    assert "How much it matters" in capsys.readouterr().out
    for arguments, word in (
        (["imamura"], "Did you mean 'imamura-2024'"),
        (["nowhere.toml"], "no such scenario"),
        (["accuracy"], "--cases"),
        ([str(small), "--plot", "x.gif"], "must end in"),
        ([str(small), "--json", "--markdown"], "one of them"),
    ):
        assert main(["reproduce", *arguments]) == 2
        assert word in capsys.readouterr().err


@compiled
def test_the_seed_table_keeps_its_signs():
    made = replay.reproduce("imamura-2024", sensitivity=False)
    assert made.sign_agreement == 1.0
    assert all(abs(figure.error_pct) < 8 for figure in made.figures)
    assert {figure.place[0] for figure in made.figures if figure.kind == "prediction"} == {"16G", "64G", "96G"}


@compiled
@pytest.mark.parametrize(("experiment", "rows"), [("xu-2020", 1), ("huang-2022", 14)])
def test_published_differences_keep_their_signs(experiment, rows):
    made = replay.reproduce(experiment, sensitivity=False)
    assert [sign.agrees for sign in made.signs] == [True] * rows
    assert all(math.isinf(figure.replayed) == math.isinf(figure.published) for figure in made.figures)
