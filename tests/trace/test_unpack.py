"""What is decoded without pyarrow is what pyarrow decodes; what is damaged fails as pyarrow fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import replay.jit as jit
from replay.errors import TraceError
from replay.trace import reader, unpack
from replay.trace.events import Events
from replay.trace.reader import TraceReader
from replay.trace.schema import whole_memory
from replay.trace.writer import TraceWriter

pytestmark = pytest.mark.skipif(jit.DISABLED, reason="decoding without pyarrow is compiled")
SMALL, LARGE = 100_000, 1 << 62


def _read(path: Path, unpacked: bool, monkeypatch: pytest.MonkeyPatch, max_events: int = 4096) -> Events:
    monkeypatch.setattr(reader, "UNPACKED_EVENTS", 1 if unpacked else 1 << 62)
    return Events(*(np.concatenate(arrays) for arrays in zip(*TraceReader(path).batches(max_events), strict=True)))


def _both(path: Path, monkeypatch: pytest.MonkeyPatch, max_events: int = 4096) -> bool:
    """Whether both decode to the same, without pyarrow having been asked by the first."""
    ours = _read(path, True, monkeypatch, max_events)
    theirs = _read(path, False, monkeypatch, max_events)
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(ours, theirs, strict=True))


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What had to be left to pyarrow."""
    left = []

    class Counted(unpack.Unknown):
        def __init__(self, why: str) -> None:
            left.append(why)
            super().__init__(why)

    monkeypatch.setattr(unpack, "Unknown", Counted)
    return left


def _write(path: Path, make_metadata: Any, n: int, *, span: int = 1000, pages: int = 1000, vcpus: int = 4,
           rows: int = 1 << 20, sources: bool = False) -> Path:  # fmt: skip
    rng = np.random.default_rng(n)
    t_ns = np.sort(rng.integers(0, span, n))
    metadata = make_metadata(
        duration_ns=span, n_vcpus=vcpus, memory_bytes=pages * 4096, ram_blocks=whole_memory(pages * 4096)
    )
    with TraceWriter(path, metadata, row_group_rows=rows, sources=sources) as writer:
        writer.append(t_ns, rng.integers(0, pages, n), rng.integers(0, vcpus, n), "dma" if sources else None)
    return path


@pytest.mark.parametrize(
    "n", [1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 130, 4095, 4096, 4097, 20_000, 20_001, 50_000]
)
@pytest.mark.parametrize("vcpus", [1, 4, 300])
def test_every_length(tmp_path: Path, make_metadata: Any, monkeypatch: Any, alone: Any, n: int, vcpus: int) -> None:
    path = _write(tmp_path / "t.parquet", make_metadata, n, vcpus=vcpus)
    assert _both(path, monkeypatch)
    assert not alone


@pytest.mark.parametrize("bits", range(0, 55, 3))
def test_every_width(tmp_path: Path, make_metadata: Any, monkeypatch: Any, alone: Any, bits: int) -> None:
    path = _write(tmp_path / "t.parquet", make_metadata, 3000, span=1 << bits, pages=1 << min(bits // 2 + 1, 31))
    assert _both(path, monkeypatch, 777)
    assert not alone


@pytest.mark.parametrize("max_events", [1, 7, 64, 1000, 1 << 20])
def test_any_batch_over_row_groups(
    tmp_path: Path, make_metadata: Any, monkeypatch: Any, alone: Any, max_events: int
) -> None:
    path = _write(tmp_path / "t.parquet", make_metadata, 1500, rows=401)
    assert _both(path, monkeypatch, max_events)
    assert not alone


def test_harvested_times_and_descending_pages(tmp_path: Path, make_metadata: Any, monkeypatch: Any, alone: Any) -> None:
    path, n = tmp_path / "t.parquet", 60_000
    with TraceWriter(path, make_metadata()) as writer:
        writer.append(np.repeat(np.arange(n // 2000), 2000), np.tile(np.arange(999, -1, -1), n // 1000), 0)
    assert _both(path, monkeypatch)
    assert not alone


def test_deltas_wider_than_a_word_allows_are_left_to_pyarrow(
    tmp_path: Path, make_metadata: Any, monkeypatch: Any, alone: Any
) -> None:
    path = tmp_path / "t.parquet"
    times = np.array([0, 1, 1 << 60, (1 << 60) + 1, LARGE - 1])
    with TraceWriter(path, make_metadata(duration_ns=LARGE)) as writer:
        writer.append(times, np.arange(5))
    assert _both(path, monkeypatch)
    assert alone


@pytest.mark.parametrize("how", [{"compression": "zstd"}, {"use_dictionary": True}, {"data_page_version": "2.0"}, {}])
def test_files_of_others_are_left_to_pyarrow(make_file: Any, monkeypatch: Any, alone: Any, how: Any) -> None:
    path = make_file()
    table = pq.read_table(path)
    if how:
        table = table.cast(
            pa.schema([field.with_nullable(False) for field in table.schema], metadata=table.schema.metadata)
        )
    pq.write_table(table, path, **how)
    assert _both(path, monkeypatch)
    assert alone


def test_sources_are_left_to_pyarrow(tmp_path: Path, make_metadata: Any, monkeypatch: Any, alone: Any) -> None:
    assert _both(_write(tmp_path / "t.parquet", make_metadata, 100, sources=True), monkeypatch)
    assert alone


def test_damage_is_what_pyarrow_makes_of_it(tmp_path: Path, make_metadata: Any, monkeypatch: Any) -> None:
    """After any flipped byte: the same events or the same error; where only pyarrow minds, the events are as written."""
    path = _write(tmp_path / "t.parquet", make_metadata, 3000, rows=1100)
    whole = bytearray(path.read_bytes())
    written = _read(path, False, monkeypatch)
    rng = np.random.default_rng(3)

    def outcome(unpacked: bool) -> Any:
        try:
            return _read(path, unpacked, monkeypatch, 500)
        except TraceError as error:
            return str(error)

    differed = 0
    begin = rng.integers(4, len(whole) - 4, 400).tolist() + list(range(4, 60))
    for at in begin:
        broken = whole.copy()
        broken[at] ^= int(rng.integers(1, 256))
        path.write_bytes(broken)
        ours, theirs = outcome(True), outcome(False)
        if isinstance(ours, Events) and isinstance(theirs, str):
            assert all(map(np.array_equal, ours, written))
        elif isinstance(theirs, str):
            assert ours == theirs
        else:
            assert all(map(np.array_equal, ours, theirs))
            differed += not all(map(np.array_equal, ours, written))
    assert differed > 20


@pytest.mark.parametrize("at", [1, 999, 1000, 1499, 2999])
@pytest.mark.parametrize(("what", "value"), [("t_ns", 0), ("t_ns", 2_000_000), ("page", 1000), ("vcpu", 4)])
def test_faults_are_named_with_their_rows(
    tmp_path: Path, make_metadata: Any, monkeypatch: Any, alone: Any, what: str, value: int, at: int
) -> None:
    path = tmp_path / "t.parquet"
    columns = {"t_ns": np.arange(10, 3010), "page": np.zeros(3000, np.uint32), "vcpu": np.zeros(3000, np.uint16)}
    columns[what][at] = value
    schema = pa.schema(
        [pa.field(name, pa.from_numpy_dtype(array.dtype), nullable=False) for name, array in columns.items()],
        metadata={"replay.trace": make_metadata().to_json()},
    )
    delta = {"t_ns": "DELTA_BINARY_PACKED", "page": "DELTA_BINARY_PACKED"}
    pq.write_table(
        pa.table(columns, schema=schema), path, row_group_size=1000, compression="NONE", use_dictionary=["vcpu"],
        column_encoding=delta, write_statistics=False,
    )  # fmt: skip
    told = []
    for unpacked in (True, False):
        with pytest.raises(TraceError) as caught:
            _read(path, unpacked, monkeypatch, 256)
        told.append(str(caught.value))
    assert told[0] == told[1]
    assert f"row group {at // 1000}, row {at % 1000}: " in told[0]
    assert not alone


def test_a_file_that_stops_being_readable_half_way(tmp_path: Path, make_metadata: Any, monkeypatch: Any) -> None:
    """What was decoded before is not given twice."""
    path = _write(tmp_path / "t.parquet", make_metadata, 3000)
    monkeypatch.setattr(reader, "UNPACKED_EVENTS", 1)
    take = unpack._Column.take
    calls = []

    def failing(self: Any, out: Any) -> None:
        calls.append(1)
        if len(calls) > 5:
            raise unpack.Unknown("made up")
        take(self, out)

    monkeypatch.setattr(unpack._Column, "take", failing)
    read = Events(*map(np.concatenate, zip(*TraceReader(path).batches(700), strict=True)))
    assert all(map(np.array_equal, read, _read(path, False, monkeypatch)))
