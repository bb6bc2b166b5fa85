"""Generated guests in files: the same as spelled, and every mistake named."""

from __future__ import annotations

from pathlib import Path

import pytest

import replay
from replay.errors import UsageError
from replay.synthesis import config_file

FILE = """
[guest]
memory = "256M"
vcpus = 2
duration = "2s"
seed = 7

[[part]]
workload = "zipf"
rate = 2000
skew = 0.9
scatter = false
within = "0-64M"

[[part]]
workload = "idle"
on = 1

[fit]
score = 0.5
"""


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "guest.toml"
    path.write_text(text)
    return str(path)


def test_a_file_is_the_guest_that_a_spelling_is(tmp_path: Path) -> None:
    made = replay.generate(written(tmp_path, FILE))
    spelled = "zipf:rate=2000,skew=0.9,scatter=off,within=0-64M+idle:on=1"
    same = replay.generate(spelled, memory="256M", vcpus=2, duration="2s", seed=7)
    assert made.digest == same.digest
    assert replay.generate(written(tmp_path, FILE), seed=8).digest != same.digest
    larger = replay.generate(written(tmp_path, FILE), memory="1G", duration="1s")
    assert (larger.metadata.memory_bytes, larger.metadata.duration_ns) == (1 << 30, 10**9)
    assert replay.open_trace(written(tmp_path, FILE)).digest == same.digest


def test_what_is_written_is_read(tmp_path: Path) -> None:
    parts = [{"workload": "idle", "rate": 5}, {"workload": "hot-cold", "hot": 0.1, "scatter": False}]
    text = config_file.toml({"memory": "64M", "seed": 3}, parts, {"title": 'a "quoted"\\ line\n'}, "two\nlines")
    told = config_file.read(written(tmp_path, text))
    assert told == ("idle:rate=5,memory=64M+hot-cold:hot=0.1,scatter=off", 3)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "a table \\[\\[part\\]\\] for each part"),
        ("part = 5", "a table \\[\\[part\\]\\] for each part"),
        ("guest = 5\n[[part]]\nworkload='idle'", "must be a table \\[guest\\]"),
        ("[[part]]\nrate = 5", "part 1 must have either workload"),
        ("[[part]]\nworkload='idle'\ntrace='redis-1g'", "either workload"),
        ("[[part]]\nworkload='idel'", "Did you mean 'idle'"),
        ("[[part]]\nworkload='idle:5'", "keys of their own"),
        ("[[part]]\nworkload='idle'\nrate='a,b'", "holds a plus or comma"),
        ("[[part]]\nworkload='idle'\nrate=[5]", "part 1, rate must be a text or a number"),
        ("[[part]]\nworkload='idle'\nspeed=5", "no parameter"),
        ("[[part]]\ntrace='redis-1g'\nrate=5", "no parameter 'rate=5'"),
        ("[guest]\nmemroy='1G'\n[[part]]\nworkload='idle'", "Did you mean 'memory'"),
        ("[guest]\nseed='x'\n[[part]]\nworkload='idle'", "seed must be a whole number"),
        ("[guests]\n[[part]]\nworkload='idle'", "Did you mean 'guest'"),
        ("[guest\n", "not TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        replay.generate(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no-such.toml: cannot be read"):
        replay.generate(str(tmp_path / "no-such.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not TOML"):
        replay.generate(str(tmp_path / "binary.toml"))
