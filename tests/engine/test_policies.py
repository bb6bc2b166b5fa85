"""Policies in a migration: steps, naps, waiting syncs, a policy of one's own, and recordings that were throttled."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import replay
from replay.cli.main import main
from replay.errors import UsageError
from replay.jit import DISABLED
from tests.engine.harness import make_case, run_engine

FAST: dict = {
    "n_pages": 4000,
    "events": [(1_000 * i, (i * 7) % 4000, i % 2) for i in range(100_000)],
    "duration_ns": 100_000_000,
    "max_bandwidth": 20_000_000,
    "give_up_ns": 16_000_000_000,
}
MINE = '''"""half: half speed from the second sync on."""

from dataclasses import dataclass

from replay.plugins import param


@dataclass(frozen=True, kw_only=True)
class Config:
    pct: int = param(50, "the throttle", unit="%", low=1, high=99)


class Half:
    background_sync = False

    def __init__(self, config):
        self.config = config

    def at_sync(self, record):
        return self.config.pct if record.sync == 2 else None


def build(config):
    return Half(config)
'''


def test_a_throttled_guest_runs_less_and_syncs_wait():
    free = run_engine(make_case(**FAST))
    slow = run_engine(make_case(**FAST, auto_converge=(99, 10, 99, False, 50)))
    assert free.throttle_steps == []
    assert slow.throttle_steps[0][1] == 99
    assert slow.summary["cpu-throttle-percentage"] == 99
    late = [row for row in slow.rounds if row["throttle_pct"] == 99 and row["cause"] != "final"]
    assert late
    assert sum(row["guest_ns"] for row in late) < 0.1 * sum(row["end_ns"] - row["sync_begin_ns"] for row in late)
    assert max(row["sync_end_ns"] - row["sync_begin_ns"] for row in late) > 100_000_000


def test_a_throttled_recording_is_not_throttled_again():
    twice = run_engine(make_case(**FAST, auto_converge=(90, 9, 99, False, 50), recorded_throttled=True))
    assert twice.throttle_steps
    assert sum(row["guest_ns"] for row in twice.rounds) == twice.rounds[-1]["end_ns"]
    once = run_engine(make_case(**FAST, auto_converge=(90, 9, 99, False, 50)))
    assert sum(row["guest_ns"] for row in once.rounds) < sum(row["guest_ns"] for row in twice.rounds)


def test_the_background_sync_divides_a_long_round():
    """Every page is written all the time, so that the second round is as long as the first: 12 s at 1.3 MB/s."""
    case = make_case(
        **(FAST | {"max_bandwidth": 1_300_000, "give_up_ns": 22_000_000_000}), auto_converge=(1, 1, 1, False, 100)
    )
    causes = {}
    for version in ("9.x", "10.0"):
        outcome = run_engine(dataclasses.replace(case, version=version))
        causes[version] = [(row["cause"], row["sync_begin_ns"] // 1_000_000_000) for row in outcome.rounds]
    assert [cause for cause, _ in causes["9.x"]] == ["setup", "estimate"]
    assert ("background", 20) in causes["10.0"]
    assert causes["10.0"][:2] == causes["9.x"][:2]


@pytest.mark.parametrize("version", ["7.2", "10.0"])
def test_what_a_window_carries(version):
    """6,000,066 and 6,041,106 bytes at 60 MB/s were measured."""
    case = make_case(n_pages=8000, max_bandwidth=60_000_000, loop=False, version=version, give_up_ns=400_000_000)
    prices = case.prices | {"normal_pages": 1_000_000}
    outcome = run_engine(dataclasses.replace(case, prices=prices))
    pages = {"7.2": 1462, "10.0": 1472}[version]
    assert outcome.summary["ram"]["normal"] % pages == 0
    assert outcome.summary["ram"]["normal"] >= 4 * pages


@pytest.mark.skipif(DISABLED, reason="guests of a real size would take hours as plain Python")
def test_a_policy_of_ones_own(tmp_path: Path):
    path = tmp_path / "half.py"
    path.write_text(MINE)
    options = {"log": "tcg", "max_bandwidth": "60MB/s", "downtime_limit": "10ms", "give_up": "9s", "check": False}
    result = replay.run("rand-1g", policy=f"{path}:75", **options)
    assert result.config["policy"] == "half:75"
    assert result.summary["cpu-throttle-percentage"] == 75
    assert [row["throttle_pct"] for row in result.rows[:4]] == [0, 0, 75, 75]
    assert main(["run", "rand-1g", "--policy", str(tmp_path / "none.py")]) == 2
    with pytest.raises(UsageError, match="no policy 'auto-convergence'.*Did you mean 'auto-converge'"):
        replay.run("rand-1g", policy="auto-convergence")
    path.write_text("Config = None")
    with pytest.raises(UsageError, match="must define build"):
        replay.run("rand-1g", policy=str(path))
