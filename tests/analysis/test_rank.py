"""Rankings on frames made by hand: means, intervals, strata, who comes last."""

from __future__ import annotations

import math

import polars as pl
import pytest

from replay.analysis.phase import figure_of
from replay.analysis.rank import rank, t_quantile
from replay.columns import LOST_PCT, LOST_SHARES
from replay.errors import UsageError

TOTAL = figure_of("total-time")


def runs(*rows):
    """From (design, link, seed, value[, status[, unsafe]])."""
    dicts = [
        {
            "run": number, "design": row[0], "link": row[1], "seed": row[2], "start": 0, "modelled_total_ns": row[3],
            "status": row[4] if len(row) > 4 else "completed", "unsafe": row[5] if len(row) > 5 else None,
            "lost_pages": 0, "baseline_b": 0 if row[1] == 1 else 1,
            **dict.fromkeys((LOST_PCT, *LOST_SHARES), 0.0), LOST_PCT: 2.0 * row[2], "modelled_sync_pct": 1.5 * row[2],
        }
        for number, row in enumerate(rows)
    ]  # fmt: skip
    return pl.DataFrame(dicts, schema_overrides={"unsafe": pl.String})


def ranked(frame, by, **more):
    return rank(frame, by, TOTAL, settings=["design", "link", "seed", "start"], **more).to_dicts()


@pytest.mark.parametrize(
    ("freedom", "table"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (5, 2.5706), (10, 2.2281), (30, 2.0423), (1000, 1.9623)],
)
def test_quantiles_are_those_of_the_tables(freedom, table):
    assert t_quantile(freedom) == pytest.approx(table, abs=6e-5)
    assert t_quantile(freedom + 0.5) < t_quantile(freedom)


def test_one_sample_is_the_t_interval():
    row = ranked(runs(*(("a", 1, seed, value) for seed, value in enumerate((10, 12, 14)))), ["design"])[0]
    half = t_quantile(2) * 2 / math.sqrt(3)
    assert (row["mean"], row["best"], row["completed"]) == (12, 10, 3)
    assert (row["low"], row["high"]) == pytest.approx((12 - half, 12 + half))


def test_strata_have_equal_weight_and_their_difference_is_no_error():
    """Links differ by 1000; the interval is of what differs within a link."""
    frame = runs(("a", 1, 1, 10), ("a", 1, 2, 12), ("a", 2, 1, 1010), ("a", 2, 2, 1012), ("a", 2, 3, 1011))
    row = ranked(frame, ["design"])[0]
    assert row["mean"] == (11 + 1011) / 2
    assert 0 < row["high"] - row["mean"] < 5
    assert [entry["mean"] for entry in ranked(frame, ["link"])] == [11, 1011]


def test_a_setting_that_was_run_once_has_no_interval():
    rows = ranked(runs(("a", 1, 1, 10), ("b", 1, 1, 20)), ["design"])
    assert [(row["design"], row["low"]) for row in rows] == [("a", None), ("b", None)]


def test_who_did_not_complete_or_is_unsafe_comes_last():
    frame = runs(
        ("slow", 1, 1, 99), ("slow", 1, 2, 99), ("stuck", 1, 1, 5), ("stuck", 1, 2, None, "not-converged"),
        ("loses", 1, 1, 1, "completed", "why"), ("fails", 1, 1, None, "failed"),
    )  # fmt: skip
    rows = ranked(frame, ["design"])
    assert [row["design"] for row in rows] == ["slow", "stuck", "loses", "fails"]
    assert [(row["completed"], row["runs"], row["unsafe"], row["failed"]) for row in rows] == [
        (2, 2, 0, 0), (1, 2, 0, 0), (1, 1, 1, 0), (0, 1, 0, 1),
    ]  # fmt: skip
    assert rows[2]["mean"] is None


def test_ratios_are_to_the_run_that_is_ones_baseline():
    frame = runs(("b", 1, 1, 10), ("b", 2, 1, 100), ("a", 1, 1, 20), ("a", 2, 1, 50))
    rows = {row["design"]: row["ratio"] for row in ranked(frame, ["design"], baseline="b")}
    assert rows == pytest.approx({"a": 1.0, "b": 1.0})
    rows = {(row["design"], row["link"]): row["ratio"] for row in ranked(frame, ["design", "link"], baseline="b")}
    assert rows == pytest.approx({("a", 1): 2.0, ("a", 2): 0.5, ("b", 1): 1.0, ("b", 2): 1.0})


def test_names_that_there_are_not():
    frame = runs(("a", 1, 1, 10))
    with pytest.raises(UsageError, match="Did you mean 'design'"):
        ranked(frame, ["desing"])
    with pytest.raises(UsageError, match="no baseline 'c'"):
        ranked(frame, ["design"], baseline="c")


def test_every_ranking_says_what_the_guest_lost_and_to_what():
    frame = runs(("a", 1, 1, 5), ("a", 1, 3, 6), ("a", 1, 9, 6, "not-converged"), ("b", 1, 1, 7, "failed"))
    first, last = ranked(frame, ["design"])
    assert (first["design"], first["modelled_lost_pct"], first["modelled_sync_pct"]) == ("a", 4.0, 3.0)
    assert first["modelled_fault_pct"] == 0.0
    assert last["modelled_lost_pct"] is None
