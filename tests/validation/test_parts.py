"""Filling in, re-arm times, zero profiles, scores, fits: each against what it must do, on small inputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.errors import UsageError
from replay.migration import costs
from replay.migration.policy import SyncRecord
from replay.migration.versions import nearest
from replay.plugins import parse
from replay.validation import calibration, guest_memory, score, table_file
from replay.validation.traces import THROTTLED_TAILS_NS, Continued, Recorded, fill, rearm_times, with_unseen_pages

MS = 1_000_000


def recorded(events, rearm=None, end_ns=None, bin_ns=None) -> Recorded:
    events = sorted(events)
    t_ns, page = (np.array([event[i] for event in events], np.int64) for i in (0, 1))
    return Recorded(
        t_ns=t_ns, page=page, vcpu=np.zeros(t_ns.size, np.uint16), end_ns=end_ns or int(t_ns[-1]) + 1,
        bin_ns=bin_ns, rearm_ns=None if rearm is None else np.array(rearm, np.int64), rearm_source="test",
    )  # fmt: skip


def first_writes(writes, rearm):
    """What an event trace would hold of `writes`: the first write to each page after each re-arm."""
    seen, events, times = set(), [], list(rearm)
    for t_ns, page in sorted(writes):
        while times and times[0] <= t_ns:
            times.pop(0)
            seen.clear()
        if page not in seen:
            seen.add(page)
            events.append((t_ns, page))
    return events


@given(
    writes=st.lists(st.tuples(st.integers(1, 400 * MS), st.integers(0, 9)), min_size=1, max_size=80),
    rearm=st.lists(st.integers(1, 400 * MS), max_size=6, unique=True),
    seed=st.integers(0, 5),
)
def test_filling_adds_writes_only_where_they_were_unseen(writes, rearm, seed):
    rearm = sorted(rearm)
    events = first_writes(writes, rearm)
    trace = recorded(events, rearm, end_ns=400 * MS + 1)
    filled = fill(trace, seed)
    assert (np.diff(filled.t_ns) >= 0).all()
    assert filled.t_ns.size >= trace.t_ns.size
    edges = [0, *rearm, 400 * MS + 1]
    known = {(int(np.searchsorted(edges, t, side="right")), page): t for t, page in events}
    for t, page in zip(filled.t_ns.tolist(), filled.page.tolist(), strict=True):
        assert known[(int(np.searchsorted(edges, t, side="right")), page)] <= t
    again = fill(trace, seed)
    assert (again.t_ns == filled.t_ns).all()


def test_a_page_written_all_the_time_is_found_dirty_whenever_one_looks():
    writes = [(t * MS, 0) for t in range(1, 1000)]
    rearm = [100 * MS * i for i in range(1, 10)]
    filled = fill(recorded(first_writes(writes, rearm), rearm, end_ns=1000 * MS), 1)
    for late in range(1, 20):  # a sync some ms later than the recording's
        syncs = [t + late * MS for t in rearm]
        counts = np.histogram(filled.t_ns, bins=syncs)[0]
        assert (counts > 0).all(), late


def test_rearms_are_found_from_repetitions():
    generator = np.random.default_rng(1)
    writes = [
        (int(t), int(p))
        for t, p in zip(generator.integers(0, 10**9, 5000), generator.integers(0, 40, 5000), strict=True)
    ]
    rearm = [200 * MS, 450 * MS, 800 * MS]
    found = rearm_times(recorded(first_writes(writes, rearm)))
    assert len(found) == 3
    assert all(0 <= there - here < 5 * MS for here, there in zip(rearm, found.tolist(), strict=True))


def test_unseen_pages_come_from_the_events():
    stores, events = recorded([(1, 5), (9, 6)], bin_ns=MS), recorded([(2, 5), (3, 7)])
    joined = with_unseen_pages(stores, events)
    assert list(zip(joined.t_ns.tolist(), joined.page.tolist(), strict=True)) == [(1, 5), (3, 7), (9, 6)]


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1)), min_size=1, max_size=10), st.integers(0, 3))
def test_a_zero_profile_is_met_at_every_point(parts, seed):
    points, pages, zeros = [], 0, 0
    for length, share in parts:
        pages, zeros = pages + length, zeros + int(length * share)
        points.append([pages, zeros])
    zero = np.ones(pages, bool)
    first_write = np.random.default_rng(seed).choice([0.001, 1.0, np.inf], pages)
    guest_memory._apply_profile(points, zero, first_write, 10**6)
    assert all(int(zero[:end].sum()) == count for end, count in points)


def test_pages_written_early_count_as_data_first():
    zero = np.ones(4, bool)
    guest_memory._apply_profile([[4, 3]], zero, np.array([np.inf, 0.0, np.inf, np.inf]), 10**9)
    assert zero.tolist() == [True, False, True, True]


def test_a_trace_is_continued_by_its_tails():
    class Guest:
        n_pages, n_vcpus, zero = 64, 1, np.zeros(64, bool)

    trace = recorded([(quarter * 250 * MS, quarter) for quarter in range(80)], end_ns=20_000 * MS)
    windows = Continued(trace, Guest, 0).windows(0)
    pages = [next(windows).page.tolist() for _ in range(8)]
    assert pages[0] == list(range(80))
    assert pages[1:] == [list(range(80 - count, 80)) for count in (1, 2, 4, 8, 16, 20, 20)]
    windows = Continued(trace, Guest, 19_250 * MS).windows(0)
    first, second, third, fourth = (next(windows) for _ in range(4))
    assert (first.t_ns[0], first.end_ns) == (0, 750 * MS)
    assert (second.t_ns[0], second.page[0], second.end_ns) == (750 * MS, 79, 1_000 * MS)
    assert (third.end_ns, fourth.end_ns) == (1_375 * MS, 1_750 * MS)  # at most half of the trace
    throttled = Continued(trace, Guest, 0, THROTTLED_TAILS_NS).windows(0)
    assert [next(throttled).page.size for _ in range(4)] == [80, 4, 8, 8]


def test_scores():
    case = {
        "metrics": {name: {"actual": 100, "predicted": 101, "error_pct": 1.0} for name in score.METRICS},
        "rounds": [{"error_pct": -3.0}, {"error_pct": None}],
        "interval_ms": (90, 100),
        "fluid": {"total-time": 150},
    }
    case["metrics"]["converged"] = {"actual": True, "predicted": True}
    told = score.summary([case])
    assert told["total-time"]["median_abs_error_pct"] == 1
    assert told["total-time"]["interval_80_covers_pct"] == 100
    assert told["dirty-pages-per-round"]["p90_abs_error_pct"] == 3
    assert told["dirty-sync-count"]["exact_pct"] == 0
    assert told["dirty-sync-count"]["within_1_or_10_pct"] == 100
    assert told["fluid"]["total-time"]["median_abs_error_pct"] == 50
    assert score.error_pct(None, 3) is None


def log_of_a_case(page_us: float, oversleep_us: int) -> dict:
    """A source's log: two rounds at 60 MB/s whose pages take `page_us`, three times that in the first round."""
    window, log, t = 6_041_106, [[1000, "savevm_state_header", ""], [1300, "migration_bitmap_sync_start", ""]], 2000
    for burst in range(20):
        if burst == 10:
            log += [[t, "migration_bitmap_sync_start", ""], [t + 200, "savevm_state_iterate", ""]]
            t += 200
        log.append([t, "savevm_state_iterate", ""])
        pages_us = int(page_us * (3 if burst < 10 else 1) * (window // 4104))
        log.append([t + pages_us, "migration_rate_limit_pre", "80 ms"])
        t += pages_us + 80_000 + oversleep_us
        log.append([t, "migration_rate_limit_post", ""])
        log.append([t, "migrate_transferred", f"transferred {window} time_spent 100"])
    return {"parameters": {"max-bandwidth": 60_000_000}, "trace_events_src": log, "capabilities_on": []}


def write_cases(folder: Path, figures) -> list[Path]:
    paths = []
    for number, (page_us, oversleep_us) in enumerate(figures):
        path = folder / f"case{number}"
        path.mkdir()
        (path / "case.json").write_text(json.dumps(log_of_a_case(page_us, oversleep_us)))
        paths.append(path)
    return paths


def test_a_fit_finds_what_was_put_in(tmp_path):
    base = costs.load("tcg-2core")
    paths = write_cases(tmp_path, [(4.0, 100), (5.0, 120), (30.0, 140)])
    fitted = calibration.fit(paths, base)
    assert fitted.table.prices_ps["normal_pages"] == pytest.approx(5_000_000, rel=0.01)
    assert fitted.table.fixed_ps["first_copy"] == pytest.approx(10_000_000, rel=0.01)
    assert fitted.table.fixed_ps["oversleep"] == 120_000_000
    assert fitted.table.prices_ps["zero_pages"] == base.prices_ps["zero_pages"]
    worst = {row["figure"]: row["worst_case"] for row in fitted.rows()}
    assert worst["normal_pages"] == "case2"
    with pytest.raises(UsageError, match="at least 3 usable cases, not 2"):
        calibration.fit(paths[:2], base)


def test_a_table_survives_its_file(tmp_path):
    base = costs.load("tcg-2core")
    table_file.write(base, {"sync": "measured: here"}, tmp_path / "mine.toml")
    again = costs.load(str(tmp_path / "mine.toml"))
    assert (again.prices_ps, again.fixed_ps, again.fixed_bytes) == (base.prices_ps, base.fixed_ps, base.fixed_bytes)
    assert "measured: here" in (tmp_path / "mine.toml").read_text()
    with pytest.raises(UsageError, match="ends in .toml"):
        table_file.write(base, {}, tmp_path / "mine.txt")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("7.2.22", "7.2"),
        ("8.2", "7.2"),
        ("9.0", "9.x"),
        ("9.2.4", "9.x"),
        ("10.0.2", "10.0"),
        ("10.2.2", "10.2"),
        ("11", "10.2"),
    ],
)
def test_the_nearest_version(text, version):
    assert nearest(text) == version


def test_an_unknown_version():
    with pytest.raises(UsageError, match="no QEMU version 'ten'"):
        nearest("ten")


def strikes(text: str, periods) -> list[int | None]:
    """What auto-converge answers to (dirty, sent) bytes of consecutive periods; the throttle is carried along."""
    plugin = parse("policy", text)
    policy, pct, answers = plugin.module.build(plugin.config), 0, []
    for number, (dirty, sent, over) in enumerate(periods):
        answer = policy.at_sync(
            SyncRecord(
                sync=number,
                now_ms=0,
                dirty_pages=0,
                pending_bytes=0,
                threshold_bytes=0,
                period_over=over,
                period_dirty_bytes=dirty,
                period_sent_bytes=sent,
                throttle_pct=pct,
            )
        )
        answers.append(answer)
        pct = pct if answer is None else answer
    return answers


def test_auto_converge_strikes_need_not_follow_one_another():
    bad, good, unfinished = (60, 100, True), (50, 100, True), (60, 100, False)
    assert strikes("auto-converge", [bad, good, good, bad, unfinished, bad, bad]) == [
        None,
        None,
        None,
        20,
        None,
        None,
        30,
    ]


def test_auto_converge_stops_at_the_maximum_and_slows_at_the_tail():
    bad = (100, 100, True)
    assert strikes("auto-converge:70,increment=20,maximum=95", [bad] * 6)[1::2] == [70, 90, 95]
    nearly = (52, 100, True)  # 80 % run, 76.9 % would do
    assert strikes("auto-converge:tailslow=on", [nearly] * 4)[1::2] == [20, 24]
