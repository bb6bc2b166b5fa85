"""TraceWriter: sorts within its bound, checks, stamps, and never leaves half a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from replay.errors import TraceError, UsageError
from replay.trace.documentation import synthetic_streams
from replay.trace.events import origin_vcpu
from replay.trace.operations import validate
from replay.trace.reader import open_trace
from replay.trace.writer import TraceWriter, write_trace

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "t.parquet"


@pytest.mark.parametrize("batch", [1, 3, 7, 1000])
@pytest.mark.parametrize("rows", [4, 1000])
def test_sorts_within_the_bound(target: Path, make_metadata: Any, batch: int, rows: int) -> None:
    rng = np.random.default_rng(batch)
    true = np.sort(rng.integers(0, 900, 500))
    t_ns = true + rng.integers(0, 50, 500)  # each event may be 49 ns late against one before it
    page = np.arange(500)
    with TraceWriter(target, make_metadata(), reorder_ns=49, row_group_rows=rows) as writer:
        for row in range(0, 500, batch):
            writer.append(t_ns[row : row + batch], page[row : row + batch])
    events = open_trace(target).decode()
    order = np.argsort(t_ns, kind="stable")
    assert np.array_equal(events.t_ns, t_ns[order])
    assert np.array_equal(events.page, page[order])
    assert validate(target) == []


def test_an_event_beyond_the_bound_is_named(target: Path, make_metadata: Any) -> None:
    says = r"event 4: t_ns 89 is 11 ns earlier than an event before it; reorder_ns allows 10"
    with pytest.raises(TraceError, match=says), TraceWriter(target, make_metadata(), reorder_ns=10) as writer:  # noqa: PT012
        writer.append([0, 100, 90], [1, 2, 3])
        writer.append([100, 89], [1, 2])
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (([0], [1000]), "event 2: page 1000 is beyond memory"),
        (([5, 6], [1, 2], [0, 4]), "event 3: vcpu 4 is beyond"),
        (([5], [-1]), "event 0: page -1 does not fit"),
        (([5], [1], 0, "dma"), "sources=True"),
        (([1_000_001], [1]), "after the end of the recording"),
        (([5, 6], [1]), "of one length"),
    ],
)
def test_bad_batches_leave_no_file(target: Path, make_metadata: Any, batch: Any, says: str) -> None:
    with pytest.raises(TraceError, match=says), TraceWriter(target, make_metadata()) as writer:  # noqa: PT012
        writer.append([0, 0], [1, 1])
        writer.append(*batch)
    assert list(target.parent.iterdir()) == []


def test_negative_time_and_no_events(target: Path, make_metadata: Any) -> None:
    with pytest.raises(TraceError, match="event 0: t_ns is negative"):
        write_trace(target, make_metadata(), [-1, 5], [1, 1])
    with (
        pytest.raises(TraceError, match="no events were written"),
        TraceWriter(target, make_metadata()) as writer,
    ):
        writer.append([], [])
    assert list(target.parent.iterdir()) == []


def test_an_error_keeps_the_old_file(target: Path, make_metadata: Any) -> None:
    write_trace(target, make_metadata(), [1], [1])
    before = target.read_bytes()
    with pytest.raises(KeyboardInterrupt), TraceWriter(target, make_metadata()) as writer:  # noqa: PT012
        writer.append([1, 2], [3, 4])
        raise KeyboardInterrupt
    assert target.read_bytes() == before
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_killed_writer_leaves_no_file(target: Path) -> None:
    code = (
        "import sys, time, numpy as np\n"
        "from replay.trace.arrays import minimal_metadata\n"
        "from replay.trace.writer import TraceWriter\n"
        "writer = TraceWriter(sys.argv[1], minimal_metadata(1 << 30, 1, 10**9), row_group_rows=1000)\n"
        "writer.append(np.arange(50_000), np.arange(50_000))\n"
        "print('written', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(target)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not target.exists()
    assert not list(target.parent.glob("*.parquet"))


def test_unwritable_places_are_errors(tmp_path: Path, make_metadata: Any) -> None:
    with pytest.raises(TraceError, match="cannot be written"):
        TraceWriter(tmp_path / "no" / "t.parquet", make_metadata())
    with pytest.raises(UsageError, match="reorder_ns"):
        TraceWriter(tmp_path / "t.parquet", make_metadata(), reorder_ns=-1)


def test_same_input_same_bytes_however_it_was_batched(tmp_path: Path, make_metadata: Any) -> None:
    t_ns, page = np.arange(5000), np.arange(5000) % 1000
    files = []
    for batch in (5000, 4096, 17):
        path = tmp_path / f"{batch}.parquet"
        with TraceWriter(path, make_metadata(), row_group_rows=1024) as writer:
            for row in range(0, 5000, batch):
                writer.append(t_ns[row : row + batch], page[row : row + batch], 1)
        files.append(path.read_bytes())
    assert files[0] == files[1] == files[2]


def test_stamps_what_the_provenance_lacks(target: Path, make_metadata: Any) -> None:
    metadata = make_metadata(provenance={"made_by": "me", "made_from": "it"})
    stored = write_trace(target, metadata, [1], [1])
    assert stored == open_trace(target).metadata
    assert stored.provenance["tool"].startswith("dirtyreplay ")
    assert stored.provenance["made_at"][:2] == "20"
    given = {"made_by": "me", "made_from": "it", "made_at": "then", "tool": "mine"}
    assert write_trace(target, make_metadata(provenance=given), [1], [1]).provenance == given


def test_metadata_may_change_until_closed(target: Path, make_metadata: Any) -> None:
    with TraceWriter(target, make_metadata(duration_ns=1), extend=True) as writer:
        writer.append([10, 2_000_000], [1, 1])
        writer.metadata = make_metadata(duration_ns=100, rearm_times_ns=(50,))
    metadata = open_trace(target).metadata
    assert (metadata.duration_ns, metadata.rearm_gap_ns) == (2_000_000, 1_999_950)


def test_layout_of_the_file(target: Path, make_metadata: Any) -> None:
    with TraceWriter(target, make_metadata(), sources=True) as writer:
        writer.append(np.arange(100_000), np.arange(100_000) % 1000, 1, "vhost")
    group = pq.ParquetFile(target).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    for name in ("t_ns", "page"):
        assert "DELTA_BINARY_PACKED" in columns[name].encodings
    for name in ("vcpu", "source"):
        assert any("DICTIONARY" in encoding for encoding in columns[name].encodings)
    assert {column.compression for column in columns.values()} == {"UNCOMPRESSED"}


def test_bytes_per_event(tmp_path: Path) -> None:
    """About 5 bytes an event for Poisson times, 2.6 for harvested ones, over 16 GiB of memory."""
    for name, trace in synthetic_streams(1 << 18).items():
        path = tmp_path / "t.parquet"
        events = trace.decode()
        write_trace(path, trace.metadata, events.t_ns, events.page, origin_vcpu(events.origin))
        assert path.stat().st_size / trace.n_events < (2.7 if name.startswith("harvested") else 5.1)
