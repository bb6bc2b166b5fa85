"""Every kind of broken file gives one clear error, wherever it is read, and validate names it."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from replay.cli import trace as command
from replay.errors import TraceError
from replay.trace.operations import validate
from replay.trace.reader import open_trace
from replay.trace.schema import SOURCE_CODES


def _run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.main(parser.parse_args([str(word) for word in words]))


def _expect(path: Path, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Decode, windows, info and validate all refuse the file, with the path and the words."""
    for read in (lambda: open_trace(path).decode(), lambda: list(open_trace(path).windows(2))):
        with pytest.raises(TraceError, match=says) as caught:
            read()
        assert str(path) in str(caught.value)
        assert caught.value.exit_code == 4
    with pytest.raises(TraceError, match=says):
        _run("info", path)
    faults = validate(path)
    assert faults
    assert any(re.search(says, f"{path}: {fault}") for fault in faults), faults
    assert _run("validate", path) == 4
    assert str(path) in capsys.readouterr().out


def i64(*values: Any) -> pa.Array:
    return pa.array(values, pa.int64())


def u32(*values: Any) -> pa.Array:
    return pa.array(values, pa.uint32())


def u16(*values: Any) -> pa.Array:
    return pa.array(values, pa.uint16())


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"t_ns": None}, "column 't_ns' is missing"),
        ({"page": None}, "column 'page' is missing"),
        ({"vcpu": None}, "column 'vcpu' is missing"),
        ({"t_ns": u32(0, 1, 2, 3, 4)}, "column 't_ns' has type uint32, expected int64"),
        ({"t_ns": pa.array([0.0, 1, 2, 3, 4])}, "column 't_ns' has type double"),
        ({"page": i64(0, 1, 2, 3, 4)}, "column 'page' has type int64, expected uint32"),
        ({"vcpu": pa.array(["0"] * 5)}, "column 'vcpu' has type string"),
        ({"source": u16(0, 0, 0, 0, 0)}, "column 'source' has type uint16"),
        ({"t_ns": i64(0, 10, 20, 8, 30)}, "row group 1, row 1: t_ns goes back by 12 ns"),
        ({"t_ns": i64(0, 10, 9, 20, 30)}, "row group 1, row 0: t_ns goes back by 1 ns"),
        ({"t_ns": i64(-1, 10, 10, 20, 30)}, "row group 0, row 0: t_ns is negative"),
        ({"t_ns": i64(0, 10, 10, 20, 1_000_001)}, "row group 2, row 0: t_ns 1000001 is after the end"),
        (
            {"page": u32(1, 2, 3, 1000, 4)},
            "row group 1, row 1: page 1000 is beyond memory, which has 1000 pages",
        ),
        ({"vcpu": u16(0, 4, 0, 0, 0)}, "row group 0, row 1: vcpu 4 is beyond the guest's 4 vCPUs"),
        ({"t_ns": i64(0, None, 10, 20, 30)}, "row group 0, row 1: t_ns is null"),
        ({"page": u32(0, 1, None, 3, 4)}, "row group 1, row 0: page is null"),
        ({"vcpu": u16(0, 0, 0, None, 0)}, "row group 1, row 1: vcpu is null"),
        (
            {"source": pa.array(["vcpu", "dma", "disk", "vfio", "host"])},
            "row group 1, row 0: source is none of",
        ),
        ({"source": pa.array([None] * 5, pa.string())}, "row group 0, row 0: source is null"),
    ],
)
def test_faulty_columns(make_file: Any, capsys: Any, columns: dict[str, Any], says: str) -> None:
    _expect(make_file(columns, rows=2), says, capsys)


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"format_version": 2}, "format version 2 is unknown; this program reads version 1"),
        ({"memory_bytes": ...}, "field 'memory_bytes' is missing"),
        ({"memory_bytes": 1 << 70}, "memory_bytes: "),
        ({"n_vcpus": -1}, "n_vcpus: "),
    ],
)
def test_faulty_metadata(make_file: Any, capsys: Any, metadata: dict[str, Any], says: str) -> None:
    _expect(make_file(metadata=metadata), says, capsys)


def test_metadata_missing_or_not_json(make_file: Any, capsys: Any) -> None:
    _expect(make_file(raw=False), "has no trace metadata", capsys)
    _expect(make_file(raw="{]"), "metadata: not readable as JSON", capsys)


def test_no_rows_and_no_bytes(make_file: Any, capsys: Any, tmp_path: Path) -> None:
    _expect(make_file({"t_ns": i64(), "page": u32(), "vcpu": u16()}), "holds no events", capsys)
    empty = tmp_path / "empty.parquet"
    empty.touch()
    _expect(empty, "is an empty file", capsys)


def test_not_a_readable_parquet_file(make_file: Any, capsys: Any, tmp_path: Path) -> None:
    _expect(tmp_path / "nowhere.parquet", "no such file", capsys)
    _expect(tmp_path, "is a directory", capsys)
    text = tmp_path / "text.parquet"
    text.write_text("t_ns,page,vcpu\n0,1,2\n")
    _expect(text, "not a Parquet file", capsys)
    text.write_bytes(b"PAR1PAR1")
    _expect(text, "truncated", capsys)


def test_every_truncation_is_an_error(make_file: Any) -> None:
    path = make_file()
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(TraceError, match=r"truncated|empty file|not a Parquet"):
            open_trace(path)
        assert validate(path)


def test_flipped_bytes_never_give_a_traceback(make_file: Any) -> None:
    """Damage is a TraceError or goes unnoticed (a changed page is still a page); it is no other error."""
    path = make_file()
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(5)
    noticed = 0
    for at in rng.integers(4, len(whole) - 4, 150).tolist():
        broken = whole.copy()
        broken[at] ^= int(rng.integers(1, 256))
        path.write_bytes(broken)
        found = validate(path)
        try:
            open_trace(path).decode()
        except TraceError:
            noticed += 1
            assert found
        else:
            assert not found
    assert noticed > 10


def test_validate_names_every_fault(make_file: Any) -> None:
    columns = {
        "t_ns": i64(5, 4, 10, 9, None),
        "page": u32(5000, 1, 1000, 2, 3),
        "vcpu": u16(9, None, 0, 0, 0),
    }
    named = {(fault.what, fault.row_group, fault.row) for fault in validate(make_file(columns, rows=2))}
    assert named == {
        ("decreasing time", 0, 1),
        ("decreasing time", 1, 1),
        ("null value", 2, 0),
        ("null value", 0, 1),
        ("page beyond memory", 0, 0),
        ("page beyond memory", 1, 0),
        ("vCPU beyond count", 0, 0),
    }


def test_validate_caps_each_kind_and_gives_the_total(make_file: Any) -> None:
    n = 500
    columns = {"t_ns": i64(*range(n)), "page": u32(*[7000] * n), "vcpu": u16(*[8] * n)}
    faults = validate(make_file(columns, rows=100), listed=30)
    assert len(faults) == 62
    totals = [str(fault) for fault in faults if fault.row is None]
    assert totals == [
        "page beyond memory: 500 rows in all; the first 30 are listed",
        "vCPU beyond count: 500 rows in all; the first 30 are listed",
    ]


def test_rows_are_checked_even_where_the_metadata_are_bad(make_file: Any) -> None:
    path = make_file({"t_ns": i64(3, 2, 10, 20, 30)}, metadata={"n_vcpus": 0})
    assert {fault.what for fault in validate(path)} == {"metadata", "decreasing time"}


def test_sources_are_read_from_strings_and_dictionaries(make_file: Any) -> None:
    names = ["vcpu", "dma", "vhost", "vfio", "host"]
    for column in (pa.array(names), pa.array(names).dictionary_encode(), pa.array(names, pa.large_string())):
        path = make_file({"source": column}, rows=2)
        assert validate(path) == []
        origin = open_trace(path).decode().origin
        assert (origin >> 13).tolist() == [SOURCE_CODES[name] for name in names]
        assert (origin & 8191).tolist() == [0, 1, 2, 3, 0]
