"""Rounds out of Cloud Hypervisor's log, beside what a trace gives; and what cannot be compared."""

from __future__ import annotations

import json

import pytest

import replay
from replay.cli.main import main
from replay.errors import TraceError, UsageError
from replay.jit import DISABLED

pytestmark = pytest.mark.skipif(DISABLED, reason="guests of a real size would take hours as plain Python")

LINE = "cloud-hypervisor: {t:11.6f}s: <vmm> DEBUG:vmm/src/lib.rs:1313 -- {text}\n"
MIB = 1 << 20
MEMORY, RATE = 64 * MIB, 40 * MIB
GOAL_NS = 100_000_000


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "guest.parquet"
    replay.generate("hot-cold:rate=9000,hot=10%", path, memory="64M", duration="8s")
    return path


def twin(trace):
    """(passes of (begin, end, bytes), rest in bytes): the same loop with a set, a page at a time."""
    events = list(zip(*(column.tolist() for column in replay.open_trace(trace).decode()[:2]), strict=True))
    passes, now, pending = [], 0, MEMORY
    while True:
        end = now + -(-pending * 10**9 // RATE)
        passes.append((now, end, pending))
        assert end < 8 * 10**9
        pending = 4096 * len({page for t, page in events if now <= t < end})
        now = end
        if pending / RATE * 1e9 <= GOAL_NS:
            return passes, pending


def log_of(passes, rest, goal=" (goal was 100ms)"):
    lines, sent = [], 0
    for number, (begin, end, size) in enumerate(passes):
        sent += size
        text = (
            f"Precopy: iter={number} curr={-(-size // MIB)}MiB total={-(-sent // MIB)}MiB bw={RATE / MIB:.2f}MiB/s "
            f"transfer={(end - begin) / 1e9:.2f}s overhead=0ms est_downtime=0ms elapsed={end / 1e9:.2f}s avg_bw=40.00MiB/s"
        )
        lines.append(LINE.format(t=20 + end / 1e9, text=text))
    number, end = len(passes), passes[-1][1]
    left = f"Precopy converged: iter={number} curr={-(-rest // MIB)}MiB total={-(-sent // MIB)}MiB est_downtime=9ms"
    lines.append(LINE.format(t=20 + end / 1e9, text=left))
    done = f"Migration completed after {end / 1e9 + 0.08:.2f}s with a downtime of 80ms{goal}"
    lines.append(LINE.format(t=20.1 + end / 1e9, text=done))
    parts = "Downtime breakdown: 80ms (final_iter:60ms state:7ms send_state:12ms complete:1ms)"
    return "".join([*lines, LINE.format(t=20.1 + end / 1e9, text=parts)])


def imported(folder, text):
    (folder / "source.log").write_text(text)
    replay.import_trace("cloud-hypervisor", folder / "source.log", folder / "rounds.json")
    return folder / "rounds.json"


def test_full_passes_are_those_of_a_loop_over_sets(trace, tmp_path):
    passes, rest = twin(trace)
    assert len(passes) >= 3
    report = replay.validate([imported(tmp_path, log_of(passes, rest))], trace=trace, members=1)
    (one,) = report["migrations"]
    assert report["skipped"] == []
    assert (one["memory_bytes"], one["bandwidth_bytes_per_s"], one["downtime_limit_ns"]) == (MEMORY, RATE, GOAL_NS)
    start = int(replay.open_trace(trace).decode().t_ns[0])
    for row, (begin, _, size) in zip(one["rounds"], passes, strict=True):
        assert row["actual_bytes"] == -(-size // MIB) * MIB
        assert abs(row["actual_begin_ns"] - begin) < 10**7
        # The replay starts at the first event; the twin at 0, a moment earlier.
        assert abs(row["predicted_bytes"] - size) <= 4096 * (2 + start // 10**5)
        assert abs(row["predicted_begin_ns"] - begin) < 10**7
        assert abs(row["error_pct"]) < 100 * MIB / size + 1
        assert row["predicted_in"] == 1
    summary = one["summary"]
    assert summary["passes"] == {"actual": len(passes), "predicted": len(passes)}
    assert summary["p_converged"] == 1
    assert abs(summary["rest_bytes"]["predicted"] - rest) <= 4096 * (2 + start // 10**5)
    assert summary["rest_bytes"]["actual"] == -(-rest // MIB) * MIB
    assert summary["rest_ns"]["actual"] == 60_000_000
    assert summary["downtime_ns"]["actual"] == 80_000_000
    assert summary["qemu"]["p_converged"] == 1
    assert one["rounds"][0]["qemu_bytes"] == MEMORY


def test_what_is_shown(trace, tmp_path, capsys):
    path = imported(tmp_path, log_of(*twin(trace)))
    assert main(["validate", str(path), "--trace", str(trace), "--members", "3"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    for said in ("full passes, Cloud Hypervisor's loop", "no prediction of this pass", "P(converged) 1.00", "QEMU's loop:"):
        assert said in " ".join(out.split())
    assert main(["validate", str(path), "--trace", str(trace), "--members", "3", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == replay.validate([path], trace=trace, members=3)


def test_a_log_without_a_limit_has_passes_and_no_verdict(trace, tmp_path):
    passes, rest = twin(trace)
    report = replay.validate([imported(tmp_path, log_of(passes, rest, goal=""))], trace=trace, members=2)
    summary = report["migrations"][0]["summary"]
    assert summary["passes"] == {"actual": len(passes), "predicted": len(passes)}
    assert summary["p_converged"] is None
    assert summary["qemu"] is None
    assert any("does not say the downtime limit" in note for note in report["notes"])


def test_what_is_missing_is_said(trace, tmp_path, capsys):
    text = log_of(*twin(trace))
    path = imported(tmp_path, text)
    with pytest.raises(UsageError, match="64 MiB, 40 MiB/s.*Missing: a trace of that guest"):
        replay.validate([path])
    with pytest.raises(UsageError, match="replay trace scale idle-1g --memory 64M"):
        replay.validate([path], trace="idle-1g")
    with pytest.raises(UsageError, match="compared alone"):
        replay.validate([path, tmp_path], trace=trace)
    with pytest.raises(UsageError, match="no --trace-kind"):
        replay.validate([path], trace=trace, trace_kind="store")
    with pytest.raises(UsageError, match="not with a case's folder"):
        replay.validate([path], trace=tmp_path)
    late = imported(tmp_path, "".join(text.splitlines(keepends=True)[1:]))
    assert main(["validate", str(late), "--trace", str(trace)]) == 4
    assert "the log begins with pass 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Precopy: iter=0", "not JSON"),
        ("[]", "no summary of rounds"),
        ('{"kind": "qemu-log"}', "no summary of rounds"),
        ('{"kind": "cloud-hypervisor"}', "has no 'rounds'"),
        ('{"kind": "cloud-hypervisor", "rounds": []}', "holds no round"),
        ('{"kind": "cloud-hypervisor", "rounds": [{"migration": 1}]}', "has no 'this_round_bytes'"),
        ('{"kind": "cloud-hypervisor", "rounds": [7]}', "not of the expected kind"),
        (
            '{"kind": "cloud-hypervisor", "rounds": [{"migration": 1, "round": 0, "t_ns": 5, "this_round_bytes": "a"}]}',
            "no whole number",
        ),
        (
            '{"kind": "cloud-hypervisor", "rounds": [{"migration": 1, "round": 0, "t_ns": 5, "this_round_bytes": -4}]}',
            "no whole number",
        ),
    ],
)
def test_a_bad_file(text, said, trace, tmp_path, capsys):
    path = tmp_path / "rounds.json"
    path.write_text(text)
    with pytest.raises(TraceError, match=said):
        replay.validate([path], trace=trace)
    assert main(["validate", str(path), "--trace", str(trace)]) == 4
    assert str(path) in capsys.readouterr().err
    with pytest.raises(TraceError, match="cannot be read"):
        replay.validate([tmp_path / "nothing.json"], trace=trace)
