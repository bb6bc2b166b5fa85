"""Results: what they hold, that files give back what was written, and that damage is named."""

from __future__ import annotations

import json

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import replay
from replay.columns import ROUNDS
from replay.errors import ResultError, UsageError
from tests.engine.test_scale_and_feed import small_trace


@pytest.fixture(scope="module")
def result():
    return replay.run(small_trace(), log="kvm-ring", design="double-ring:64", max_bandwidth="10MB/s", give_up="2s")


def test_rounds_have_the_documented_columns(result):
    assert result.rounds.columns == [column.name for column in ROUNDS]
    assert result.rounds.schema["cause"] == pl.String
    assert result.rounds.height == result.summary["ram"]["dirty-sync-count"]
    assert result.rounds["normal_pages"].sum() == result.summary["ram"]["normal"]
    assert result.rounds["sent_bytes"].sum() <= result.summary["ram"]["transferred"] + 1
    assert len({column.name for column in ROUNDS}) == len(ROUNDS)


def test_modelled_time_adds_up_to_the_clock(result):
    parts = ("harvest", "sync", "find", "send", "wait", "other")
    total_ns = sum(result.total(f"modelled_{part}_ns") for part in parts)
    assert abs(total_ns - result.rows[-1]["end_ns"]) < len(parts)
    assert "modelled_" not in "".join(c.name for c in ROUNDS if c.name.startswith("measured_"))


def test_a_file_gives_back_the_result(result, tmp_path):
    path = tmp_path / "result.parquet"
    result.save(path)
    back = replay.load(path)
    assert back == result
    assert back.rounds.equals(result.rounds)
    fields = {field.name: field.metadata for field in pq.read_schema(path)}
    assert fields["dirty_pages"][b"unit"] == b"pages"
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.parquet"]
    for key in ("trace", "numba", "cpu", "costs", "made_at", "sources"):
        assert back.provenance[key]


def test_what_is_not_a_result_is_refused(result, tmp_path):
    missing, text, other, cut = (tmp_path / name for name in ("missing", "text", "other", "cut"))
    text.write_text("not parquet")
    pq.write_table(pa.table({"a": [1]}), other)
    result.save(cut)
    cut.write_bytes(cut.read_bytes()[:-50])
    for path, told in (
        (missing, "not a readable"),
        (text, "not a readable"),
        (other, "not a result"),
        (cut, "not a readable"),
    ):
        with pytest.raises(ResultError, match=told):
            replay.load(path)
    with pytest.raises(ResultError, match="cannot be written"):
        result.save(tmp_path / "nowhere" / "x.parquet")


def test_json_has_the_fields_that_are_relied_on(result):
    told = json.loads(json.dumps(result.as_dict()))
    for key in (
        "total-time",
        "downtime",
        "setup-time",
        "status",
        "ram",
        "lost_pages",
        "redundant_pages",
        "rounds",
        "config",
        "provenance",
    ):
        assert key in told
    wanted = "transferred duplicate normal normal-bytes dirty-sync-count dirty-pages-rate pages-per-second mbps remaining total multifd-bytes postcopy-requests".split()
    assert set(wanted) == set(told["ram"])
    assert told["ram"]["normal-bytes"] == told["ram"]["normal"] * 4096


def test_comparison_keeps_modelled_and_measured_apart(result):
    other = replay.run(small_trace(), log="kvm-ring", design="bitmap", max_bandwidth="10MB/s", give_up="2s")
    frame = replay.compare([result, other])
    assert frame["design"].to_list() == ["double-ring:64", "bitmap"]
    assert frame["ratio_total_ms"][0] == 1.0
    assert frame["ratio_total_ms"][1] == pytest.approx(other.summary["total-time"] / result.summary["total-time"])
    measured = [name for name in frame.columns if "measured" in name]
    assert measured
    assert not any("modelled" in name for name in measured)
    with pytest.raises(UsageError, match="nothing to compare"):
        replay.compare([])
