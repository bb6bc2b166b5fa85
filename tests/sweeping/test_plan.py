"""What a plan file says is what is run: axes of every kind, lists, baselines, traces from everywhere, each once."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest

import replay
from replay.errors import ReplayError, TraceError, UsageError
from replay.sweeping import plan as planning
from replay.sweeping.estimate import estimate, spread
from replay.sweeping.jobs import Guests, by_guest, stream
from replay.sweeping.sources import Source
from replay.trace import shipped
from tests.sweeping.common import GUEST, OTHER, PLAN, ROOT, RUNS, TOML, plan


def made(tmp_path, **tables):
    return planning.make(plan(**tables), tmp_path / "fetched")


def test_the_file_and_the_dict_are_one_plan(tmp_path):
    (tmp_path / "sweep.toml").write_text(TOML)
    told = planning.read(tmp_path / "sweep.toml", tmp_path)
    assert told.digest == planning.make(PLAN, tmp_path).digest
    assert len(told.runs) == RUNS
    assert told.axes == ["design", "log.entries", "link", "seed", "start"]


def test_every_run_is_the_replay_that_one_would_make_alone(whole):
    runs = replay.load_sweep(whole).runs.collect()
    rounds = replay.load_sweep(whole).rounds.collect()
    for row in runs.to_dicts()[::11]:
        alone = replay.run(
            {"uniform:3000": GUEST, "sequential:3000": OTHER}[row["trace"]],
            log=row["log"], design=row["design"], link=f"{row['link']}", seed=row["seed"], start=row["start"],
            max_bandwidth="40MB/s", downtime_limit="50ms", give_up="2s",
        )  # fmt: skip
        assert (row["status"], row["total_ms"]) == (alone.status, alone.summary["total-time"])
        assert row["memory"] == alone.config["memory"]
        own = rounds.filter(pl.col("run") == row["run"])
        modelled = [name for name in own.columns if name not in ("run", "trace")]
        assert own.select(modelled).equals(alone.rounds.select(modelled))


def test_nothing_that_differs_from_time_to_time_is_in_the_dataset(whole):
    told = replay.load_sweep(whole)
    for frame in (told.runs, told.rounds, told.points):
        assert not [
            name for name in frame.collect_schema() if name.startswith("measured") or name in ("made_at", "cpu")
        ]
    measured = told.measured.collect()
    assert measured["run"].to_list() == list(range(RUNS))
    assert (measured["measured_wall_ns"] > 0).all()
    assert told.about["runs"] == RUNS


def test_a_combination_is_as_the_plan_names_it(tmp_path):
    told = made(
        tmp_path,
        base={"log": "kvm-ring:1024", "policy": "auto-converge", "downtime-limit": "50ms"},
        axes={
            "design": ["bitmap", "double-ring"], "ring-size": [16, 64], "log.pml": [False], "policy.initial": [10, 30],
            "costs.refind_calls": [0.1], "dirty-rate": ["0.5x", 3000], "memory": ["none", "64M"], "xbzrle": ["none"],
        },
        zip=[{"link": ["1Gbit/s", "2Gbit/s"], "max-bandwidth": ["50MB/s", "60MB/s"]}],
        sweep={"traces": GUEST},
    )  # fmt: skip
    assert len(told.runs) == (1 + 2) * 2 * 2 * 2 * 2  # ring-size changes nothing of bitmap
    first, last = told.runs[0], told.runs[-1]
    assert first.job.config.log == "kvm-ring:1024,pml=off"
    assert first.job.config.policy == "auto-converge:initial=10"
    assert first.job.config.costs == "generic-x86:refind_calls=0.1"
    assert (first.job.factor, first.job.config.memory) == (0.5, None)
    assert (last.job.factor, last.job.config.memory) == (1, 64 << 20)
    assert last.job.config.design == "double-ring:entries=64"
    pairs = {(run.job.config.link, run.job.config.max_bandwidth) for run in told.runs}
    assert pairs == {(125_000_000, 50_000_000), (250_000_000, 60_000_000)}


def test_lists_repeats_starts_and_baselines(tmp_path):
    told = made(
        tmp_path,
        sweep={"traces": [GUEST], "repeats": 3, "starts": 2},
        base={"seed": 5},
        axes={},
        run=[{"design": "bitmap"}, {"design": "ring-only:64", "link": "1Gbit/s"}, {"design": "bitmap"}],
        baselines={"today": {"design": "bitmap"}, "slow": {"link": "100Mbit/s"}},
    )
    assert [run.job.config.seed for run in told.runs[:3:1]] == [5, 5, 6]
    assert {run.job.config.start for run in told.runs} == {0, 500_000_000}
    of = {index: (run.job.config.design, run.job.config.link) for index, run in enumerate(told.runs)}
    assert set(of.values()) == {
        ("bitmap", 0), ("ring-only:64", 125_000_000), ("bitmap", 125_000_000), ("bitmap", 12_500_000),
        ("ring-only:64", 12_500_000),
    }  # fmt: skip
    assert len(told.runs) == 5 * 6
    for run, others in told.against.items():
        assert of[others["today"]] == ("bitmap", of[run][1])
        assert told.runs[others["today"]].job.config.start == told.runs[run].job.config.start
        assert of[others["slow"]] == (of[run][0], 12_500_000)


def test_repeats_of_what_is_not_random_are_one_run(tmp_path):
    """A seed changes nothing of a recorded guest, unless it is tiled or its zero pages are drawn."""
    axes = {"fit": ["embed", "tile"], "zero-share": ["none", "50%"]}
    told = made(tmp_path, sweep={"traces": ["idle-1g"], "repeats": 3}, base={"memory": "2G"}, axes=axes, baselines={})
    counts = [(run.job.config.fit, run.job.config.zero_share) for run in told.runs]
    assert [counts.count(key) for key in dict.fromkeys(counts)] == [1, 3, 3, 3]
    first, second = (replay.run("idle-1g", memory="2G", seed=seed, give_up="1s") for seed in (1, 2))
    assert [row["sent_bytes"] for row in first.rows] == [row["sent_bytes"] for row in second.rows]


def test_traces_come_from_everywhere_and_equal_ones_are_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / folder).mkdir()
        replay.generate(GUEST, f"{folder}/guest.parquet", seed=seed)
    (tmp_path / "b" / "notes.txt").write_text("no trace")
    url = (tmp_path / "c").as_uri()
    traces = ["a/guest.parquet", "*/guest.parquet", f"{url}/guest.parquet", f"{url}/*.parquet", "idle-1g", GUEST]
    told = planning.make(plan(sweep={"traces": traces}), tmp_path / "fetched")
    labels = [source.label for source in told.sources]
    assert labels == [
        f"guest~{told.sources[0].sha256[:8]}",
        f"guest~{told.sources[1].sha256[:8]}",
        "idle-1g",
        "uniform:3000",
    ]
    assert len(list((tmp_path / "fetched").rglob("*.parquet"))) == 1
    small = plan(sweep={"traces": [f"{url}/*.parquet"]}, axes={"design": ["bitmap"]})
    replay.sweep(small, tmp_path / "out")
    assert replay.load_sweep(tmp_path / "out").runs.collect()["trace"].to_list() == ["guest"]
    for missing, error in (
        ("x/*.parquet", UsageError),
        (f"{url}/x*.parquet", UsageError),
        (f"{url}/x.parquet", UsageError),
        ("nothing://h/x", TraceError),
        ("ridis-1g", UsageError),
    ):
        with pytest.raises(error):
            planning.make(plan(sweep={"traces": [missing]}), tmp_path / "fetched")


def test_a_trace_that_changed_is_not_taken_for_the_planned_one(tmp_path):
    replay.generate(GUEST, tmp_path / "guest.parquet", seed=1)
    told = planning.make(plan(sweep={"traces": [str(tmp_path / "guest.parquet")]}), tmp_path)
    replay.generate(GUEST, tmp_path / "guest.parquet", seed=2)
    with pytest.raises(TraceError, match="changed since the sweep was planned"):
        Guests(Source.open).get(told.runs[0].job)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"axis": {}}, "no table of a plan: 'axis'.*Did you mean 'axes'"),
        ({"sweep": {}}, "must have traces"),
        ({"sweep": {"traces": [GUEST], "repeat": 2}}, "Did you mean 'repeats'"),
        ({"sweep": {"traces": [GUEST], "repeats": 0}}, "repeats is a whole number"),
        ({"sweep": {"traces": [GUEST], "repeats": 2}, "axes": {"seed": [1]}}, "leave out repeats"),
        ({"axes": {"desing": ["bitmap"]}}, "Did you mean 'design'"),
        ({"axes": {"design": ["bitmop"]}}, "Did you mean 'bitmap'"),
        ({"axes": {"design": "bitmap"}}, "must be a list"),
        ({"axes": {"design": []}}, "must be a list"),
        ({"axes": {"design": ["bitmap", "bitmap"]}}, "given twice"),
        ({"axes": {"design": ["bitmap", {"a": 1}]}}, "neither a text nor a number"),
        ({"axes": {"max-bandwidth": ["fast"]}}, "is not a bandwidth"),
        ({"base": {"downtime-limit": "3 parsecs"}}, "unknown|needs a unit"),
        ({"base": {"costs": "generic-x86:refind=3"}}, "no entry of cost table|refind_calls"),
        ({"zip": [{"link": [1, 2], "seed": [1]}]}, "equally many"),
        ({"zip": {"link": [1, 2]}}, r"\[\[zip\]\]"),
        ({"axes": {"link": [1]}, "zip": [{"link": [2]}]}, "axis link is given twice"),
        ({"run": [{}]}, "at least one setting"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(tables, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        made(tmp_path, **tables)


def test_a_plan_that_is_no_toml_says_where(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text("[sweep\n")
    with pytest.raises(UsageError, match="plan.toml: not TOML"):
        replay.sweep(path, tmp_path / "out")
    with pytest.raises(UsageError, match="cannot be read"):
        replay.sweep(tmp_path / "none.toml", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_estimate_is_made_of_runs_from_all_over_the_plan(tmp_path):
    """Of 800 runs the first 30 have every trace, design, link and start among them: no axis is in step with them."""
    axes = {
        "design": ["bitmap", "double-ring", "ring-only", "ring-fallback"],
        "link": [f"{n}Gbit/s" for n in (1, 2, 5, 9)],
    }
    told = plan(sweep={"traces": [GUEST, OTHER], "starts": 25}, axes=axes, baselines={})
    runs = planning.make(told, tmp_path).runs
    assert len(runs) == 800
    chosen = list(itertools.islice(spread(runs), 30))
    assert len({run.index for run in chosen}) == 30
    assert {run.source.label for run in chosen} == {run.source.label for run in runs}
    for name, least in (("design", 4), ("link", 4), ("start", 12)):
        assert len({getattr(run.job.config, name) for run in chosen}) >= least
    assert list(spread(runs[:7])) == runs[:7]


def test_an_estimate_counts_runs_and_memory(tmp_path):
    told = estimate(planning.make(PLAN, tmp_path), jobs=2)
    assert (told.runs, told.at_once, told.at_least) == (RUNS, 2, False)
    assert 20 < told.sampled <= RUNS
    assert 0 < told.seconds < 60
    assert 2 * (24 << 20) <= told.bytes < 1 << 30


def test_never_more_at_once_than_slots_and_memory_allow():
    """Needs of 5, 6, ... with a budget of 12: what does not fit waits; 20 fits nowhere and runs alone."""
    lock, running, seen = threading.Lock(), [], []

    def work(job):
        with lock:
            running.append(job)
            seen.append(list(running))
        time.sleep(0.01)
        with lock:
            running.remove(job)

    with ThreadPoolExecutor(8) as pool:
        jobs = [5, 6, 7, 1, 2, 20, 3, 4, 4]
        done = [
            job
            for job, _ in stream(jobs, lambda job: pool.submit(work, job), slots=3, needs=lambda job: job, budget=12)
        ]
    assert sorted(done) == sorted(jobs)
    assert all(len(group) <= 3 and (sum(group) <= 12 or group == [20]) for group in seen)
    assert max(map(len, seen)) > 1


def test_jobs_of_one_guest_go_together(tmp_path):
    jobs = by_guest(run.job for run in planning.make(PLAN, tmp_path).runs)
    guests = [(job.guest.label, job.config.seed) for job in jobs]
    assert (
        len({tuple(key) for key in guests})
        == sum(a != b for a, b in zip(guests, [None, *guests[:-1]], strict=True))
        == 4
    )
    assert len(jobs) == RUNS


def test_measured_figures_are_not_ranked(whole, tmp_path):
    with pytest.raises(ReplayError, match="measured"):
        replay.sweep(PLAN, tmp_path, best="measured-find-cpu")
    with pytest.raises(ReplayError, match="measured"):
        replay.rank_sweep(whole, best="measured-find-cpu")


def test_the_plan_in_tools_is_two_thousand_runs_of_every_shipped_trace(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    planned = planning.read("tools/sweep-96g.toml", tmp_path)
    assert len(planned.runs) == 2000
    assert all(run.job is not None and run.job.config.memory == 96 << 30 for run in planned.runs)
    assert sorted(source.label for source in planned.sources) == sorted(shipped.names())
