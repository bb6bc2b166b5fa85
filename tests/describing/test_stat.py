"""The figures of a trace against what is known of it, and whatever the windows it is read in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import replay
from replay.describing import period
from replay.describing.against import compare
from replay.describing.heat import heat
from replay.describing.stat import stat
from replay.errors import UsageError
from replay.trace.operations import describe
from replay.trace.reader import Trace

SECOND = 1_000_000_000


def test_the_working_sets_are_those_of_trace_info() -> None:
    """Two implementations: sorting (describe) and bitmaps (stat)."""
    for name in ("redis-1g", "sqlite-1g-events", "idle-1g"):
        trace = replay.open_trace(name)
        assert isinstance(trace, Trace)
        mine, other = stat(trace).figures, describe(trace)
        assert mine["written_pages"] == other["unique_pages"]
        assert mine["n_events"] == other["n_events"]
        assert mine["rate"]["mean"] == other["events_per_s"]
        for a, b in zip(mine["windows"], other["working_set"], strict=True):
            assert {key: a[key] for key in b} == b


def test_windows_of_reading_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = replay.open_trace("idle-1g")
    whole = stat(trace)
    monkeypatch.setattr("replay.describing.stat.WINDOW_EVENTS", 997)
    again = stat(trace)
    assert again.as_dict() == whole.as_dict()
    assert again.frame().equals(whole.frame())


def test_a_sequential_writer_is_known() -> None:
    made = replay.generate("sequential:rate=10000", memory="64M", vcpus=1, duration="10s")
    found = stat(made, [SECOND])
    f = found.figures
    assert f["rate"]["mean"] == 10_000
    assert f["rate"]["variation"] == pytest.approx(0, abs=1e-3)
    assert f["written_pages"] == 16384
    assert f["runs"] == {"count": 7, "mean": 100_000 / 7, "median": 16384, "p95": 16384, "longest": 16384,
                         "half_of_pages_in": 16384}  # fmt: skip
    assert f["windows"][0]["mean_unique_pages"] == 10_000
    assert f["windows"][0]["extents"]["count"] == 16, "ten windows, six of which wrap around"
    assert f["reuse"]["rewrites_share"] == pytest.approx(1 - 0.16384)
    assert f["reuse"]["distance_pages"]["p50"] == pytest.approx(16383, rel=0.13)
    assert f["reuse"]["time_ns"]["p50"] == pytest.approx(1.6384e9, rel=0.13)
    assert f["skew"]["zipf_exponent"] == pytest.approx(0, abs=0.1)
    assert found.curves[0].unique_pages.tolist() == [10_000] * 10


def test_skew_is_known() -> None:
    made = replay.generate("hot-cold:rate=100000,hot=10%,writes=90%", memory="64M", vcpus=2, duration="10s")
    skew = stat(made).figures["skew"]
    assert skew["top_10pct_share"] == pytest.approx(0.9, abs=0.01)
    assert skew["top_1pct_share"] == pytest.approx(0.09, abs=0.02)
    zipf = replay.generate("zipf:rate=200000,skew=1", memory="16M", vcpus=2, duration="10s")
    assert stat(zipf).figures["skew"]["zipf_exponent"] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("every_ms", [40, 250, 1000])
def test_a_period_is_found(every_ms: int) -> None:
    made = replay.generate(f"phases:rate=20000,period={every_ms}ms", memory="64M", duration="8s")
    found = stat(made).figures["period"]
    assert found["period_ns"] == pytest.approx(every_ms * 1e6, rel=0.06)
    assert found["strength"] > 0.8


def test_no_period_is_made_up() -> None:
    made = replay.generate("uniform:rate=20000", memory="64M", duration="8s")
    assert stat(made).figures["period"] is None
    rng = np.random.default_rng(1)
    assert all(period.find(rng.poisson(20, 4096), 1) is None for _ in range(30))
    assert period.find(np.arange(4096), 1) is None, "a trend is no period"
    assert period.find(np.zeros(4096, int), 1) is None
    assert period.find(np.ones(3, int), 1) is None
    assert period.find(np.full(4096, 7), 1) is None


def test_one_event_has_figures() -> None:
    trace = Trace.from_arrays([5], [3], memory_bytes=1 << 20, duration_ns=10)
    f = stat(trace, [1, 10]).figures
    assert (f["written_pages"], f["n_events"], f["runs"]["mean"]) == (1, 1, 1.0)
    assert f["reuse"]["time_ns"] == {"p10": None, "p50": None, "p90": None}
    assert f["windows"][0]["windows"] == 10
    assert all(row.error in (0, None) for row in compare(f, f))


def test_more_memory_than_there_is_is_an_error() -> None:
    trace = Trace.from_arrays([5, 6], [3, (1 << 32) - 1], memory_bytes=1 << 44, duration_ns=10)
    with pytest.raises(UsageError, match="look at a part of memory"):
        stat(trace, [10])


@pytest.mark.parametrize(
    ("windows", "told"),
    [([0], "not longer than nothing"), ([5, 5], "different"), ([], "one or more"), ([1], "are more than")],
)
def test_windows_that_cannot_be(windows: list[int], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        stat(replay.open_trace("idle-1g"), windows)


def test_heat_counts_every_write_once(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = replay.open_trace("idle-1g")
    monkeypatch.setattr("replay.describing.heat.WINDOW_EVENTS", 5000)
    found = heat(trace, rows=37, columns=53)
    assert found.cells.shape == (37, 53)
    assert int(found.cells.sum()) == found.n_events == trace.n_events
    t_ns, page, _ = trace.decode()
    part = heat(trace, rows=10, columns=10, from_ns=SECOND, to_ns=3 * SECOND, pages=(0, 40_000))
    inside = (t_ns >= SECOND) & (t_ns < 3 * SECOND) & (page < 40_000)
    assert int(part.cells.sum()) == np.count_nonzero(inside)
    tiny = heat(trace, rows=100, columns=100, pages=(5, 8), to_ns=40)
    assert tiny.cells.shape == (3, 40)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"from_ns": 99 * SECOND}, "not a part"),
        ({"to_ns": 99 * SECOND}, "not a part"),
        ({"pages": (0, 1 << 30)}, "not a range"),
        ({"rows": 0}, "empty or too large"),
        ({"rows": 1 << 14, "columns": 1 << 14}, "empty or too large"),
    ],
)
def test_heat_that_cannot_be(options: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        heat(replay.open_trace("idle-1g"), **({"rows": 10, "columns": 10} | options))
