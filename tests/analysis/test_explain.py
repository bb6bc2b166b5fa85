"""Causes sum exactly, whatever the run; the seed's control arms say what they should."""

from __future__ import annotations

import json

import pytest

import replay
from replay.analysis.explain import METRICS, rounds
from replay.cli.main import main
from replay.errors import UsageError
from replay.jit import DISABLED

GUEST = "uniform:rate=20000,memory=64M,vcpus=2,duration=500ms"
WAYS = {
    "ring": {"log": "kvm-ring:1024", "design": "double-ring:1024"},
    "log": {"log": "kvm-bitmap", "design": "bitmap"},
    "never": {"log": "kvm-ring:1024", "design": "bitmap", "max_bandwidth": "10MB/s", "give_up": "1s"},
    "throttled": {"log": "kvm-ring:1024", "policy": "auto-converge", "max_bandwidth": "40MB/s", "give_up": "9s"},
    "live": {"log": "kvm-ring:1024", "design": "ring-background:1024,source=kvm-ring"},
    "mapped": {"log": "tcg", "design": "bitmap", "mapped_ram": True},
}


@pytest.fixture(scope="module")
def results():
    options = {"max_bandwidth": "200MB/s", "downtime_limit": "5ms", "zero_share": "30%"}
    return {name: replay.run(GUEST, **(options | way)) for name, way in WAYS.items()}


@pytest.mark.parametrize("name", WAYS)
def test_causes_sum_to_every_figure(results, name):
    result = results[name]
    found = replay.explain(result)
    last = result.rows[-1]
    sums = {metric: sum(row["difference"] for row in found.of(metric)) for metric in METRICS}
    assert all(isinstance(row["a"], int) for row in found.rows)
    assert sums["total"] == last["end_ns"] * 1000
    assert sums["bytes"] == result.total("sent_bytes")
    assert sums["guest"] == pytest.approx(sum(result.vcpus["modelled_lost_ns"]) * 1000, abs=10**6)
    if result.status == "completed":
        assert 0 <= sums["downtime"] // 10**9 - result.summary["downtime"] <= 1
    assert all(row["a"] > 0 for row in found.of("bytes"))
    rounding = [row["a"] for row in found.rows if row["cause"] == "rounding of the record"]
    assert all(abs(ps) < 10_000 * len(result.rows) for ps in rounding)


def test_rounds_sum_too(results):
    for result in results.values():
        entries = rounds(result)
        assert sum(entry["total_ps"] for entry in entries) == result.rows[-1]["end_ns"] * 1000
        assert all(abs(entry["rounding_ps"]) < 10_000 for entry in entries)


def test_a_difference_is_the_difference_of_the_figures(results):
    a, b = results["ring"], results["log"]
    found = replay.explain(a, b)
    for metric in ("total", "bytes", "guest"):
        assert sum(row["difference"] for row in found.of(metric)) == found.totals[metric]["difference"]
    assert found.totals["total"]["difference"] == (b.rows[-1]["end_ns"] - a.rows[-1]["end_ns"]) * 1000
    causes = {row["cause"]: row for row in found.of("total")}
    assert causes["dequeue"]["b"] == causes["second find"]["a"] == 0
    assert causes["clear-log calls"]["b"] > 0
    assert not replay.explain(a, results["never"]).of("downtime")


def test_what_throttling_takes_is_told_apart(results):
    causes = {row["cause"]: row["a"] for row in replay.explain(results["throttled"]).of("guest")}
    steps = [row["throttle_pct"] for row in results["throttled"].rows]
    assert max(steps) > 0
    assert causes["throttle sleeps"] > 0


def test_the_command(capsys, tmp_path):
    options = ["--max-bandwidth", "200MB/s", "--downtime-limit", "5ms"]
    for name, design in (("a", "bitmap"), ("b", "double-ring:1024")):
        assert main(["run", GUEST, "--log", "kvm-ring:1024", "--design", design, "-o", f"{tmp_path}/{name}.parquet", *options]) == 0  # fmt: skip
    capsys.readouterr()
    assert main(["explain", f"{tmp_path}/a.parquet", f"{tmp_path}/b.parquet", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["totals"]["total"]["difference"] == sum(
        c["difference"] for c in told["causes"] if c["metric"] == "total"
    )
    assert main(["explain", f"{tmp_path}/a.parquet"]) == 0
    out = capsys.readouterr().out
    assert "round by round" in out
    assert max(map(len, out.splitlines())) <= 100
    both = ["--design", "bitmap", "--design", "double-ring:1024", "--log", "kvm-ring:1024"]
    assert main(["explain", GUEST, *both, *options]) == 0
    assert "difference" in capsys.readouterr().out
    for arguments, code, word in (
        (["nowhere.parquet", "b.parquet"], 4, "nowhere.parquet"),
        (["nowhere.parquet"], 4, "nowhere.parquet"),
        ([f"{tmp_path}/a.parquet", f"{tmp_path}/b.parquet", "--design", "bitmap"], 2, "leave out --design"),
        ([GUEST, *both, "--design", "ring-only"], 2, "not 3"),
        (["seed-96g", "--log", "tcg"], 2, "arms of its own"),
    ):
        assert main(["explain", *arguments]) == code, arguments
        assert word in capsys.readouterr().err


def test_a_lost_cost_table_is_named(tmp_path):
    table = tmp_path / "mine.toml"
    table.write_text('based_on = "generic-x86"\n')
    result = replay.run(GUEST, log="tcg", max_bandwidth="200MB/s", costs=str(table))
    table.unlink()
    with pytest.raises(UsageError, match=r"cost table is needed.*mine\.toml"):
        replay.explain(result)


@pytest.mark.skipif(DISABLED, reason="full-size guests would take hours as plain Python")
def test_the_seed_is_taken_apart():
    seed = replay.explain_seed()
    assert seed.published_ms == 202
    arms = {arm["arm"]: arm for arm in seed.arms}
    assert len(arms) == 5
    for price in seed.prices:
        explained = {name: arm["explains_ms"][price["price"]] for name, arm in arms.items()}
        assert abs(price["syncs_and_dequeue_ms"]) < 0.02 * seed.published_ms
        assert abs(explained["bitmap, one find a page"] - explained["ring as posted"]) < 0.02 * seed.published_ms
        assert abs(explained["ring without the early break"]) < 0.02 * seed.published_ms
        assert abs(explained["ring with repaired dedupe"] - explained["ring as posted"]) < 1
    assert [price["refind_ns"] for price in seed.prices][:3] == [0.12, 3.3, 4.2]
    assert all(arm["measured_ms"] > 0 for arm in seed.arms)
    json.dumps(seed.as_dict(), allow_nan=False)
