"""What is written is what is read: whole, in windows, from arrays, from several threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.errors import TraceError
from replay.trace.arrays import minimal_metadata
from replay.trace.events import Events
from replay.trace.reader import Trace, TraceReader, open_trace
from replay.trace.schema import SOURCE_NAMES, PageRun
from replay.trace.writer import TraceWriter, write_trace

EVENTS = st.lists(
    st.tuples(
        st.integers(0, 1_000_000), st.integers(0, 999), st.integers(0, 3), st.sampled_from(SOURCE_NAMES)
    ),
    min_size=1,
    max_size=200,
)


def joined(parts: Any) -> Events:
    return Events(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def same(one: Events, other: Events) -> bool:
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


@settings(max_examples=40, deadline=None)
@given(events=EVENTS, rows=st.integers(1, 64), window=st.integers(1, 80), cut=st.integers(0, 200))
def test_write_and_read_back(
    tmp_path_factory: Any, make_metadata: Any, events: Any, rows: int, window: int, cut: int
) -> None:
    path = tmp_path_factory.mktemp("trace") / "t.parquet"
    t_ns, page, vcpu, source = (list(column) for column in zip(*events, strict=True))
    with TraceWriter(
        path, make_metadata(), reorder_ns=1_000_000, sources=True, row_group_rows=rows
    ) as writer:
        for part in (slice(0, cut), slice(cut, None)):
            writer.append(
                np.array(t_ns[part], int), np.array(page[part], int), vcpu[part] or 0, source[part] or None
            )
    ordered = sorted(events, key=lambda event: event[0])
    trace = open_trace(path)
    decoded = trace.decode()
    assert decoded.t_ns.tolist() == [event[0] for event in ordered]
    assert decoded.page.tolist() == [event[1] for event in ordered]
    assert decoded.origin.tolist() == [event[2] | SOURCE_NAMES.index(event[3]) << 13 for event in ordered]
    streamed = list(open_trace(path).windows(window))
    assert max(len(part.t_ns) for part in streamed) <= window
    assert same(joined(streamed), decoded)
    assert same(joined(trace.windows(window)), decoded)
    assert [group.n_rows for group in trace.row_groups()][:-1] == [rows] * (len(trace.row_groups()) - 1)


@pytest.fixture(scope="module")
def long_trace(tmp_path_factory: Any, make_metadata: Any) -> Path:
    rng = np.random.default_rng(3)
    n = 60_000
    path = tmp_path_factory.mktemp("trace") / "long.parquet"
    with TraceWriter(path, make_metadata(), row_group_rows=7_001) as writer:
        writer.append(np.sort(rng.integers(0, 10**6, n)), rng.integers(0, 1000, n), rng.integers(0, 4, n))
    return path


@pytest.mark.parametrize("window", [1 << 20, 60_000, 7_001, 7_000, 4_096, 64, 63, 65])
def test_windows_equal_decode(long_trace: Path, window: int) -> None:
    assert same(joined(open_trace(long_trace).windows(window)), open_trace(long_trace).decode())


@pytest.mark.parametrize("start_ns", [-5, 0, 1, 499_999, 999_990, 10**6, 10**9])
def test_windows_from_a_time_on(long_trace: Path, start_ns: int) -> None:
    decoded = open_trace(long_trace).decode()
    first = int(np.searchsorted(decoded.t_ns, max(start_ns, 0)))
    fresh, cached = open_trace(long_trace), open_trace(long_trace)
    cached.decode()
    for trace in (fresh, cached):
        parts = list(trace.windows(1000, start_ns))
        assert sum(len(part.t_ns) for part in parts) == len(decoded.t_ns) - first
        if parts:
            assert same(joined(parts), Events(*(array[first:] for array in decoded)))


def test_windows_refuse_an_empty_window(long_trace: Path) -> None:
    with pytest.raises(TraceError, match="max_events"):
        next(open_trace(long_trace).windows(0))


def test_arrays_are_read_only_contiguous_and_shared(long_trace: Path) -> None:
    trace = open_trace(long_trace)
    decoded = trace.decode()
    assert trace.decode() is decoded
    for events in (decoded, *trace.windows(5000), *open_trace(long_trace).windows(5000)):
        assert [array.dtype for array in events] == [np.uint64, np.uint32, np.uint16]
        for array in events:
            assert array.flags.c_contiguous
            assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        decoded.page[0] = 1


def test_threads_decode_once(long_trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    read = TraceReader.batches
    monkeypatch.setattr(
        TraceReader, "batches", lambda self, *arguments: reads.append(1) or read(self, *arguments)
    )
    trace = open_trace(long_trace)
    found: list[Events] = []
    threads = [threading.Thread(target=lambda: found.append(trace.decode())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1
    assert all(events is found[0] for events in found)


def test_from_arrays_equals_the_file(tmp_path: Path, make_metadata: Any) -> None:
    t_ns, page, vcpu, source = [0, 5, 5], [1, 2, 3], [0, 1, 2], ["vcpu", "dma", "host"]
    write_trace(tmp_path / "t.parquet", make_metadata(), t_ns, page, vcpu, source)
    trace = Trace.from_arrays(t_ns, page, vcpu, source, metadata=make_metadata())
    assert same(trace.decode(), open_trace(tmp_path / "t.parquet").decode())
    assert same(joined(trace.windows(2)), trace.decode())
    assert trace.row_groups()[0].n_rows == trace.n_events == 3


def test_from_arrays_makes_metadata() -> None:
    zero = np.zeros(130, bool)
    zero[[0, 64, 65, 129]] = True
    trace = Trace.from_arrays([3, 9], [0, 129], [0, 2], memory_bytes=130 * 4096, zero=zero)
    assert (trace.metadata.n_vcpus, trace.metadata.duration_ns, trace.metadata.n_pages) == (3, 10, 130)
    assert trace.zero_pages().tolist() == [1, 3, 2]
    given = Trace.from_arrays([3, 9], [0, 129], memory_bytes=130 * 4096, n_vcpus=2, duration_ns=50)
    assert (given.metadata.n_vcpus, given.metadata.duration_ns) == (2, 50)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([], []), "holds no events"),
        (([1, 2], [1]), "of one length"),
        (([1, 2], [1, 2], [1]), "vcpu must be one value or as many"),
        (([1.5], [1]), "t_ns: expected integers"),
        (([1], [1 << 32]), "event 0: page 4294967296 does not fit"),
        (([2, 1], [1, 1]), "row 1: t_ns goes back by 1 ns"),
        (([1], [1000]), "page 1000 is beyond memory"),
        (([-1], [1]), "t_ns is negative"),
        (([1], [1], 0, "disk"), "row 0: source is none of"),
    ],
)
def test_from_arrays_checks(arguments: Any, says: str) -> None:
    with pytest.raises(TraceError, match=says):
        Trace.from_arrays(*arguments, memory_bytes=1000 * 4096)


def test_from_arrays_copies_what_it_is_given() -> None:
    t_ns = np.array([1, 2, 3])
    trace = Trace.from_arrays(t_ns, np.array([1, 2, 3], np.uint32), memory_bytes=1000 * 4096)
    t_ns[0] = 99
    assert trace.decode().t_ns.tolist() == [1, 2, 3]


def test_digests(tmp_path: Path, make_metadata: Any) -> None:
    import hashlib

    path = tmp_path / "t.parquet"
    write_trace(path, make_metadata(), [1], [2], [3])
    trace = open_trace(path)
    assert trace.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()
    assert len(trace.digest) == 64  # kept
    one, two, other = (Trace.from_arrays([1], [page], memory_bytes=8192) for page in (0, 0, 1))
    assert one.digest == two.digest != other.digest


@settings(max_examples=60, deadline=None)
@given(flags=st.lists(st.booleans(), min_size=1, max_size=300))
def test_zero_pages_against_a_naive_bitmap(flags: list[bool]) -> None:
    trace = Trace.from_arrays([0], [0], memory_bytes=len(flags) * 4096, zero=flags)
    words = [0] * ((len(flags) + 63) // 64)
    for page, flag in enumerate(flags):
        words[page // 64] |= flag << page % 64
    assert trace.zero_pages().tolist() == words
    assert trace.zero_pages().dtype == np.uint64


def test_unknown_page_classes_are_data(make_metadata: Any) -> None:
    trace = Trace.from_arrays([0], [0], metadata=make_metadata())
    assert not trace.zero_pages().any()
    assert len(trace.zero_pages()) == 16
    all_zero = make_metadata(page_classes=(PageRun(0, 1000, "zero"),))
    assert int(Trace.from_arrays([0], [0], metadata=all_zero).zero_pages()[-1]) == (1 << 40) - 1


def test_a_trace_of_16_tib() -> None:
    trace = Trace.from_arrays([0, 1], [0, (1 << 32) - 1], memory_bytes=1 << 44)
    assert trace.decode().page.tolist() == [0, (1 << 32) - 1]


@pytest.mark.parametrize("rows", [1 << 18, 1 << 22], ids=["row groups of 256Ki", "one row group"])
def test_streaming_memory_does_not_grow_with_the_file(tmp_path: Path, rows: int) -> None:
    """4 M events are 50 MiB of columns; streaming them in windows of 256Ki needs a few MiB at any time."""
    n = 1 << 22
    path = tmp_path / "t.parquet"
    with TraceWriter(path, minimal_metadata(1 << 34, 1, n), row_group_rows=rows) as writer:
        writer.append(np.arange(n), np.arange(n) * 7919 % (1 << 22))
    code = (
        "import sys, pyarrow; from replay.trace.reader import open_trace\n"
        "seen = sum(len(part.t_ns) for part in open_trace(sys.argv[1]).windows(1 << 18))\n"
        "print(seen, pyarrow.default_memory_pool().max_memory())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True, env=environment
    )
    seen, peak_bytes = map(int, run.stdout.split())
    assert seen == n
    assert peak_bytes < 16 << 20
