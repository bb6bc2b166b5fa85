"""Advice, bounds, fronts and fleets on small guests, and through the command line."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import replay
from replay.analysis.guest_cost import guest_cost
from replay.analysis.pareto import front, fronts
from replay.analysis.share import interval
from replay.answers.advice import Found
from replay.answers.search import bisect
from replay.config import make
from replay.errors import UsageError
from replay.jit import DISABLED
from tests.cli.calls import call

BUSY = "uniform:rate=20000,memory=16M,duration=1s,vcpus=2"
CALM = "uniform:rate=500,memory=16M,duration=1s,vcpus=2"
FAST = {"downtime_limit": "20ms", "max_total_time": "3s", "starts": 3, "tolerance": "10%"}
compiled = pytest.mark.skipif(DISABLED, reason="hundreds of replays as plain Python")


def draws(made) -> bool:
    picture = io.BytesIO()
    made.plot().savefig(picture, format="png")
    return len(picture.getvalue()) > 5000


# -- how sure a share is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(0, 10, 0, 0.30850), (10, 10, 0.69150, 1), (3, 10, 0.06674, 0.65245), (8, 8, 0.63058, 1), (1, 1, 0.025, 1)],
)
def test_intervals_are_those_of_the_tables(k, n, low, high):
    assert interval(k, n) == pytest.approx((low, high), abs=1e-5)


def test_the_interval_covers_as_often_as_it_says():
    """Exactly, by the binomial distribution, for any true share."""
    from math import comb

    ends = [interval(k, 9) for k in range(10)]
    for share in (0.01, 0.2, 0.5, 0.77, 0.99):
        inside = [k for k, (low, high) in enumerate(ends) if low <= share <= high]
        assert sum(comb(9, k) * share**k * (1 - share) ** (9 - k) for k in inside) >= 0.95
    assert interval(0, 0) == (0.0, 1.0)


# -- advice -----------------------------------------------------------------------------------------------------------


@given(st.integers(2, 10**9), st.integers(1, 10**9), st.floats(0.01, 0.5))
@settings(max_examples=20, deadline=None)
def test_bisection_ends_beside_the_least(least, high, step):
    high = least + high
    low, found = bisect(lambda value: value >= least, 1, high, step)
    assert low < least <= found
    assert found <= max(low * (1 + step), low + 1)


def test_probes_that_contradict_are_told():
    found = Found(name="x", config=make({}), bandwidth=100, more_than=95, probe=None, beside=[(50, False), (200, True)])
    assert found.monotone
    assert found.surely_from == 100
    odd = dataclasses.replace(found, beside=[(50, True), (80, False), (110, False), (150, True), (200, True)])
    assert not odd.monotone
    assert odd.surely_from == 150
    assert odd.as_dict()["surely_from"] == 150


@compiled
def test_advice_is_what_replays_say():
    """The least bandwidth is enough from every moment and what is below is not; a throttle needs less and costs more."""
    advice = replay.advise(BUSY, designs=["bitmap"], max_bandwidth="10MB/s", **FAST)
    best = advice.best
    assert not advice.now.enough
    assert advice.best.bandwidth <= best.more_than * 1.1 + 1

    def completes(bandwidth, start):
        config = dataclasses.replace(best.config, max_bandwidth=bandwidth, link=bandwidth, start=start)
        result = replay.api.run_config(BUSY, config)
        return result.status == "completed" and result.rows[-1]["end_ns"] <= 3e9 and guest_cost(result).share <= 0.05

    moments = [10**9 * n // 3 for n in range(3)]
    assert all(completes(best.bandwidth, start) for start in moments)
    assert not all(completes(best.more_than, start) for start in moments)
    assert advice.slowed is None or advice.slowed.bandwidth < best.bandwidth
    helpful = {remedy.name: remedy for remedy in advice.remedies}
    assert helpful["bandwidth"].probe.kept == 3
    limit = int(helpful["downtime limit"].value.split()[0])
    longer = [
        replay.run(BUSY, max_bandwidth="10MB/s", link="10MB/s", give_up="3s", downtime_limit=limit, start=start)
        for start in moments
    ]
    assert all(result.status == "completed" for result in longer)
    assert limit > 20
    again = replay.advise(BUSY, designs=["bitmap"], max_bandwidth="10MB/s", threads=1, **FAST)
    assert json.loads(json.dumps(again.as_dict())) == json.loads(json.dumps(advice.as_dict()))
    assert draws(advice)


@compiled
def test_a_guest_that_converges_needs_no_remedy(capsys):
    code, out, _ = call(capsys, "advise", CALM, "--starts", "2", "--max-total-time", "3s", "--design", "bitmap",
                        "--policy", "none", "--tolerance", "20%")  # fmt: skip
    assert code == 0
    assert "converges: from 2/2" in out
    assert "What would make it" not in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"starts": 0}, "start moments"), ({"wanted": "0%"}, "above 0"), ({"tolerance": "0%"}, "tolerance"),
        ({"start": "1s"}, "chooses start itself"), ({"designs": []}, "at least one"), ({"designs": ["bitmop"]}, "bitmap"),
        ({"max_total_time": "60"}, "needs a unit"), ({"policies": ["x"]}, "no policy"), ({"threads": 0}, "at least one"),
    ],
)  # fmt: skip
def test_senseless_requests_for_advice(options, told):
    with pytest.raises(UsageError, match=told):
        replay.advise(CALM, **options)


# -- the bound --------------------------------------------------------------------------------------------------------


def test_runs_are_not_better_than_the_bound():
    found = replay.bound(
        BUSY, designs=["bitmap", "double-ring:64"], policies=["", "auto-converge", "dirty-limit"], log="kvm-ring:1024",
        link="120MB/s", max_bandwidth=0, downtime_limit="50ms", give_up="3s",
    )  # fmt: skip
    rows = found.frame.filter(pl.col("pause_ns").is_not_null())
    assert len(rows) >= 2
    assert (rows["pause_ratio"] >= 1).all()
    assert (rows["bytes_ratio"] >= 1).all()
    assert (rows["least_here_ns"] >= rows["least_ns"]).all()
    assert found.limited.best == found.channel.best or found.limited.best.at_ps >= found.channel.best.at_ps
    assert json.loads(json.dumps(found.as_dict()))["runs"][0]["design"] == "bitmap"
    assert draws(found)
    refused = replay.bound(CALM, designs=["bitmap"], policies=["dirty-limit"], log="tcg", give_up="1s")
    assert "kvm-ring" in refused.rows[0]["refused"]


# -- fronts -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_the_front_is_what_nobody_dominates(points):
    on, by = front(np.array(points, dtype=float))

    def beats(a, b):
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    assert on.tolist() == [not any(beats(other, point) for other in points) for point in points]
    assert all(at < 0 or beats(points[at], point) for at, point in zip(by.tolist(), points, strict=True))


def test_guests_are_apart_and_what_is_missing_is_no_candidate():
    frame = pl.DataFrame({"trace": ["a", "a", "a", "b"], "x": [1, 2, None, 9], "y": [1, 2, 0, 9]})
    told = fronts(frame, ["x", "y"], ["trace"])
    assert told["on_front"].to_list() == [True, False, None, True]
    assert told["beaten_by"].to_list() == [None, 0, None, None]


@compiled
def test_fronts_of_a_sweep(tmp_path, capsys):
    plan = {
        "sweep": {"traces": [BUSY, CALM], "repeats": 2},
        "base": {"downtime-limit": "50ms", "give-up": "2s"},
        "axes": {"design": ["bitmap", "double-ring:64"], "link": ["80Mbit/s", "800Mbit/s"]},
    }
    replay.sweep(plan, tmp_path / "swept")
    found = replay.pareto(tmp_path / "swept")
    assert found.by[0] == "trace"
    assert set(found.by) == {"trace", "design", "link"}
    assert len(found.frame) == 8
    assert found.frame.filter(pl.col("on_front").is_null())["link"].to_list()[0] == 10**7
    assert found.front["trace"].n_unique() == 2
    assert draws(found)
    code, out, _ = call(capsys, "pareto", str(tmp_path / "swept"), "--figures", "downtime,bytes")
    assert code == 0
    assert "settings are on a front" in out
    assert max(map(len, out.splitlines())) <= 100
    code, out, _ = call(capsys, "pareto", str(tmp_path / "swept"), "--json")
    assert json.loads(out)["front"]
    for bad in (("--figures", "downtime"), ("--figures", "downtime,speed"), ("--by", "nothing")):
        assert call(capsys, "pareto", str(tmp_path / "swept"), *bad)[0] == 2
    assert call(capsys, "pareto", str(tmp_path))[0] == 4


# -- a fleet ----------------------------------------------------------------------------------------------------------


def test_a_fleet_is_sorted_by_trouble_and_names_what_is_damaged(tmp_path, capsys):
    folder = tmp_path / "fleet"
    (folder / "more").mkdir(parents=True)
    replay.generate(BUSY, folder / "busy.parquet")
    replay.generate(CALM, folder / "more" / "calm.parquet")
    whole = (folder / "busy.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    pq.write_table(pa.table({"x": [1]}), folder / "other.parquet")
    code, out, err = call(capsys, "fleet", str(folder), "--max-bandwidth", "10MB/s", "--link", "10MB/s", "--give-up", "2s",
                          "--starts", "2", "--downtime-limit", "20ms")  # fmt: skip
    assert code == 4
    assert out.index("busy") < out.index("calm")
    assert "1 of 2 guests never converge" in out
    assert "cut.parquet" in err
    assert "other.parquet" in err
    assert max(map(len, out.splitlines())) <= 100
    found = replay.fleet(folder, max_bandwidth="10MB/s", link="10MB/s", give_up="2s", starts=2, downtime_limit="20ms")
    assert [row["converges"] for row in found.rows] == ["never", "always"]
    assert found.rows[0]["possible"] is False
    assert found.frame["guest"].to_list() == ["busy", "more/calm"]
    assert len(found.skipped) == 2
    assert draws(found)


@pytest.mark.parametrize(("name", "told"), [("nowhere", "no such folder"), (".", "holds no trace")])
def test_no_fleet(tmp_path, capsys, monkeypatch, name, told):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, "fleet", name)
    assert code == 2
    assert told in err


def test_pictures_are_refused_before_the_work(tmp_path, capsys):
    for command in ("advise", "bound", "fleet", "pareto"):
        code, _, err = call(capsys, command, "idle-1g", "--plot", "picture.gif")
        assert code == 2
        assert "must end in" in err


def test_the_order_of_sends_as_a_file(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guest = "uniform:rate=20000,memory=32M,duration=1s"
    words = ("bound", guest, "--link", "100MB/s", "--max-bandwidth", "0", "--design", "bitmap", "--policy", "none")
    code, out, _ = call(capsys, *words, "--order", "order.parquet")
    assert code == 0
    assert "order of sends: 8,192 pages by their last writes" in out
    sends = pl.read_parquet("order.parquet")
    found = replay.bound(guest, designs=[], link="100MB/s", max_bandwidth=0, order=True)
    assert sends.equals(found.order.frame)
    assert sorted(sends["page"]) == list(range(8192))
    assert sends["send_ns"].is_sorted()
    late = sends.filter("in_downtime").height
    assert f"{late:,} of them after the stop" in out
    channel, best = found.channel.channel, found.channel.best
    assert found.order.left_ps >= best.downtime_ps - channel.stop_ps
    code, _, err = call(capsys, *words, "--order", "order.csv")
    assert (code, "must end in .parquet" in err) == (2, True)
