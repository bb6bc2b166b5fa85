"""Generated guests: spellings, mixtures against plain lists, files against memory, replays against both."""

from __future__ import annotations

import itertools
import resource
from fractions import Fraction

import numpy as np
import pytest

import replay
from replay.chance import Guest
from replay.errors import TraceError, UsageError
from replay.synthesis import spelling, synthetic
from replay.synthesis.parts import Place, Recorded
from replay.trace.operations import validate
from replay.trace.writer import write_trace
from tests.engine.test_scale_and_feed import small_trace

MIB = 1 << 20
OWN = '''
"""A workload of one page."""

from dataclasses import dataclass

import numpy as np

from replay.chance import ticks
from replay.plugins import param


@dataclass(frozen=True, kw_only=True)
class Config:
    rate: int = param(100, "writes", unit="pages/s", low=1)


def events(config, guest, seed, begin_ns, end_ns):
    number, t_ns = ticks(config.rate, seed, begin_ns, end_ns)
    return t_ns, number * 0 + 7, number % 2
'''


def rows(trace) -> list[tuple[int, int, int]]:
    return list(zip(*(column.tolist() for column in trace.decode()), strict=True))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    trace = small_trace(n_pages=300, events=400)
    events, path = trace.decode(), tmp_path_factory.mktemp("traces") / "small.parquet"
    write_trace(path, trace.metadata, events.t_ns, events.page, events.origin)
    return path


def test_a_file_holds_what_memory_holds_and_replays_alike(tmp_path):
    path = tmp_path / "made.parquet"
    options = {"memory": "8M", "vcpus": 3, "duration": "2s", "rate": 4000, "seed": 5}
    filed, made = replay.generate("zipf", path, **options), replay.generate("zipf", **options)
    assert validate(path) == []
    assert rows(filed) == rows(made)
    assert len(rows(made)) == 8000
    assert filed.metadata.provenance["made_from"] == "zipf:4000"
    assert filed.metadata.provenance["seed"] == 5
    assert filed.metadata.page_classes == made.metadata.page_classes
    run = {"log": "kvm-ring:256,pml=off", "max_bandwidth": "20MB/s", "give_up": "3s", "seed": 5}
    results = [replay.run(trace, **run) for trace in (filed, made, "zipf:rate=4000,memory=8M,vcpus=3,duration=2s")]
    assert [result.summary for result in results] == [results[0].summary] * 3


def test_the_same_spelling_gives_the_same_digest_and_another_seed_another():
    digests = [replay.generate("uniform:1000", memory="4M", seed=seed).digest for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_a_run_takes_its_memory_and_seed_to_the_workload():
    options = {"log": "tcg", "max_bandwidth": "40MB/s", "downtime_limit": "5ms"}
    result = replay.run("uniform:rate=1000", memory="16M", **options)
    assert result.config["memory"] == 16 << 20
    assert result.summary["ram"]["normal"] >= 4096
    assert result.summary != replay.run("uniform:rate=1000", memory="16M", seed=2, **options).summary


def test_windows_of_any_size_are_the_whole():
    made = replay.generate("zipf:rate=900+sequential:rate=300,on=1", memory="4M", vcpus=2, duration="3s")
    whole = rows(made)
    for size in (1, 7, 1000):
        parts = [list(zip(*(c.tolist() for c in part), strict=True)) for part in made.windows(max_events=size)]
        assert [row for part in parts for row in part] == whole
    late = [
        row for part in made.windows(start_ns=1_234_567_891) for row in zip(*(c.tolist() for c in part), strict=True)
    ]
    assert late == [row for row in whole if row[0] >= 1_234_567_891]


def test_a_mixture_is_its_parts_in_their_places(recorded):
    text = f"uniform:rate=500,on=1-2,within=25%-50%+{recorded}:on=0,within=1M-4M+uniform:rate=200,source=dma"
    made = replay.generate(text, memory="8M", vcpus=3, duration="400ms")
    assert made.metadata.n_vcpus == 3
    vcpu_rows = [row for row in rows(made) if row[2] in (1, 2)]
    assert len(vcpu_rows) == 200
    assert all(512 <= page < 1024 for _, page, _ in vcpu_rows)
    assert len([row for row in rows(made) if row[2] >> 13 == 2]) == 80
    played = [row for row in rows(made) if row[2] == 0]
    once = [(t, p + 256, 0) for t, p, _ in rows(small_trace(n_pages=300, events=400))]
    expected = [(t + turn * 50_000_000, p, v) for turn in range(8) for t, p, v in once]
    assert played == expected
    assert rows(made) == sorted(rows(made), key=lambda row: row[0])
    zero = np.unpackbits(made.zero_pages().view(np.uint8), bitorder="little")[:2048]
    own = np.unpackbits(small_trace().zero_pages().view(np.uint8), bitorder="little")[:300]
    assert zero[256:556].tolist() == own.tolist()
    assert zero.sum() == own.sum()


def test_two_parts_of_one_kind_are_not_the_same_writes():
    made = replay.generate("uniform:rate=100+uniform:rate=100", memory="64M", duration="1s")
    times = [t for t, _, _ in rows(made)]
    assert len(set(times)) > 150


@pytest.mark.parametrize("factor", [Fraction(4), Fraction(1, 4), Fraction(3, 7), Fraction(1001, 1000)])
def test_a_recording_is_compressed_exactly(factor):
    trace = small_trace()
    original = rows(trace)
    fast = synthetic.faster(trace, factor)
    assert rows(fast) == [(int(t / factor), p, v) for t, p, v in original]
    assert fast.metadata.duration_ns == int(50_000_000 / factor)
    part = Recorded(trace=trace, name="small", place=Place(), factor=factor)
    guest, end = Guest(300, 2), 120_000_000
    expected = [(int((t + turn * 50_000_000) / factor), p, v) for turn in range(60) for t, p, v in original]
    for cuts in ([0, end], [0, 1, 12_345_678, 50_000_000, 50_000_001, end]):
        parts = [part.events(guest, 1, a, b) for a, b in itertools.pairwise(cuts)]
        got = [row for columns in parts for row in zip(*(c.tolist() for c in columns), strict=True)]
        assert got == [row for row in expected if row[0] < end]


def test_a_rate_of_a_mixture_keeps_proportions():
    made = replay.generate("uniform:rate=100+zipf:rate=300", rate="8000", memory="4M", duration="1s")
    assert made.rate == 8000
    assert [part.rate for part in made.parts] == [2000, 6000]
    assert replay.generate("uniform", rate="40MB/s").rate == 40_000_000 // 4096


def test_a_workload_of_ones_own(tmp_path):
    path = tmp_path / "one_page.py"
    path.write_text(OWN)
    made = replay.generate(f"{path}:rate=50", memory="4M", duration="1s")
    assert [row[1:] for row in rows(made)] == [(7, index % 2) for index in range(50)]
    assert "one_page" in made.metadata.provenance["parts"]["one_page:50"]
    path.write_text(OWN.replace("rate:", "speed:").replace("config.rate", "config.speed"))
    with pytest.raises(UsageError, match="must have a whole `rate`"):
        replay.generate(str(path))
    path.write_text("x = 1")
    with pytest.raises(UsageError, match="must define Config"):
        replay.generate(str(path))
    path.write_text(OWN.replace("number * 0 + 7", "number * 0 + 7000"))
    with pytest.raises(UsageError, match="writes page 7000"):
        replay.generate(str(path), memory="4M").decode()


def test_labels_parse_again(recorded):
    for text in ("zipf:rate=5,skew=0.5,on=0-1,within=0-50%", "idle", "phases:period=1s+hot-cold:rate=7,source=vhost"):
        made = replay.generate(text, memory="64M")
        assert replay.generate(made.label, memory="64M").label == made.label
        assert replay.generate(made.label, memory="64M").digest == replay.generate(text, memory="64M").digest


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        ("zipff:rate=5", {}, "no workload or recorded trace 'zipff'.*Did you mean 'zipf'"),
        ("zipf+", {}, "no workload or recorded trace ''"),
        ("zipf:skw=1", {}, "Did you mean 'skew'"),
        ("zipf:on=5", {}, "there is no vCPU 5 in a guest with 4"),
        ("zipf:on=2-1", {}, "not a range of vCPUs"),
        ("zipf:on=a", {}, "whole number"),
        ("zipf:on=0,on=1", {}, "given twice"),
        ("zipf:within=50%-25%", {}, "not a range of the guest's"),
        ("zipf:within=0-2G", {}, "not a range of the guest's"),
        ("zipf:within=1G", {}, "write within=0-1G"),
        ("zipf:source=disk", {}, "no source 'disk'"),
        ("zipf:memory=1G+idle:memory=2G", {}, "given twice"),
        ("redis-1g:rate=5+idle", {}, "a recorded trace has no parameter"),
        ("redis-1g+idle", {"memory": "512M"}, "more than the 512 MiB"),
        ("uniform", {"memory": "5000"}, "whole number of pages"),
        ("uniform", {"memory": "32T"}, "whole number of pages"),
        ("uniform", {"vcpus": 0}, "vcpus must be from 1"),
        ("uniform", {"vcpus": "many"}, "whole number"),
        ("uniform", {"duration": "0s"}, "longer than nothing"),
        ("uniform", {"duration": "9999999h"}, "at most a year"),
        ("uniform", {"rate": "0"}, "less than one page"),
        ("uniform", {"rate": "9e12"}, "is not between 1 and"),
        ("redis-1g:on=0", {"rate": "999999999999999"}, "times as fast"),
    ],
)
def test_senseless_guests_are_refused(text, options, told):
    with pytest.raises(UsageError, match=told):
        replay.generate(text, **options)


def test_a_guest_that_writes_nothing_leaves_no_file(tmp_path):
    path = tmp_path / "none.parquet"
    with pytest.raises(UsageError, match="no event in 1e-09 s"):
        replay.generate("idle", path, duration="1ns", rate=1)
    with pytest.raises(UsageError, match="no event"):
        replay.generate("idle", duration="1ns", rate=1).decode()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TraceError, match="cannot be written"):
        replay.generate("idle", tmp_path / "nowhere" / "x.parquet")


def test_what_is_too_long_for_memory_says_so():
    with pytest.raises(UsageError, match="do not fit into this machine's memory"):
        replay.generate("uniform", rate="900M", duration="24h").decode()


def test_writing_takes_bounded_memory(tmp_path):
    replay.generate("uniform", tmp_path / "warm.parquet", rate=1_000_000, duration="3s")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = replay.generate("uniform", tmp_path / "long.parquet", rate=1_000_000, duration="12s")
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert made.n_events == 12_000_000
    assert grown_kib * 1024 < 100 * MIB  # in memory it would be 168 MB and as much again


def test_what_is_a_workload_and_what_a_trace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert spelling.is_workload("idle")
    assert spelling.is_workload("zipf:rate=5")
    assert spelling.is_workload("redis-1g+zipf")
    assert not spelling.is_workload("redis-1g")
    assert not spelling.is_workload("some/trace.parquet")
    (tmp_path / "idle").write_text("a file of that name")
    assert not spelling.is_workload("idle")
