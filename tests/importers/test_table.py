"""Tables of any make, and the little language that says what is what in them."""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.errors import TraceError, UsageError
from replay.importing import expressions
from replay.importing.expressions import HIGHEST, LOWEST
from tests.importers.common import do, rows, survives

COLUMNS = "t=time,page=addr>>12,vcpu=cpu & 3,source=who"
TEXT = "time,addr,cpu,who\n1.5,0x1000,0,vcpu\n2.25,8192,5,dma\n2.000001,0x3fff,1,host\n"
ROWS = [(0, 1, 0), (500_001, 3, 1), (750_000, 2, 1)]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz"])
def test_text(suffix, tmp_path):
    data = TEXT.replace(",", "\t" if suffix == ".tsv" else ",").encode()
    if suffix.endswith(".gz"):
        import gzip

        data = gzip.compress(data)
    done = do("table", data, tmp_path, suffix=suffix, columns=COLUMNS, time_unit="ms")
    assert rows(done.path) == ROWS
    assert pq.read_table(done.path).column("source").to_pylist() == ["vcpu", "host", "dma"]


@pytest.mark.parametrize("make", ["parquet", "feather", "stream"])
def test_columnar(make, tmp_path):
    table = pa.table({
        "time": pa.array([1500, 2250, 2000], pa.uint32()), "addr": pa.array([4096, 8192, 0x3FFF], pa.uint64()),
        "cpu": pa.array([0.0, 5.0, 1.0]), "who": pa.array(["vcpu", "dma", "host"]).dictionary_encode(),
    })  # fmt: skip
    path = tmp_path / {"parquet": "t.parquet", "feather": "t.feather", "stream": "t.arrow"}[make]
    if make == "parquet":
        pq.write_table(table, path)
    elif make == "feather":
        pa.feather.write_feather(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    done = do("table", [path], tmp_path, columns=COLUMNS, time_unit="us")
    assert rows(done.path) == [(0, 1, 0), (500_000, 3, 1), (750_000, 2, 1)]


def test_columns_of_times_and_big_numbers(tmp_path):
    when = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    table = pa.table({
        "t": pa.array([when, when + datetime.timedelta(microseconds=3)], pa.timestamp("us", "UTC")),
        "address": pa.array([0xFFFF888003C5E010, 0xFFFF888003C5F010], pa.uint64()),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "t.parquet")
    done = do("table", [tmp_path / "t.parquet"], tmp_path, columns="t=t,page=(address - 0xffff888000000000) // 4096")
    assert rows(done.path) == [(0, 0x3C5E, 0), (3000, 0x3C5F, 0)]


def test_rows_that_are_none_are_counted(tmp_path):
    text = (
        "t,page\n"
        + "".join(f"{k},{k}\n" for k in range(10))
        + "x,1\n11,\n12,1,1\n13,-1\n14,99999999999\n-3,1\n5\n\n16,7\n"
    )
    with pytest.raises(TraceError, match="38.89%"):
        do("table", text, tmp_path, suffix=".csv")
    counts = do("table", text, tmp_path, suffix=".csv", max_dropped=0.5).counts
    assert counts["events"] == 11
    assert counts["dropped"] == {
        "another number of columns than the heading": 2, "t is not a whole number, or no known word": 2,
        "page is not a whole number, or no known word": 1, "page is out of range": 2,
    }  # fmt: skip


def test_one_source_for_all_and_memory(tmp_path):
    done = do(
        "table", TEXT, tmp_path, suffix=".csv", columns="t=time,page=addr>>12,source=vhost", time_unit="s", memory="8M"
    )
    assert set(pq.read_table(done.path).column("source").to_pylist()) == {"vhost"}
    assert done.trace.metadata.n_pages == 2048


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ("t=time", "t and page are needed"), ("t=time,page=addr,gfn=2", "not of the form"), ("t=time,page=adr", "no column .adr."),
        ("t=time,page=addr>>addr", "from 0 to 63"), ("t=time,page=__import__('os')", "not understood"),
        ("t=time,page=addr.real()", "not expected"), ("t=time,page=(addr", "not closed"), ("t=time,page=addr +", "too early"),
        ("t=time,page=addr,page=2", "each once"), ("t=time,page=" + "(" * 80 + "1" + ")" * 80, "not expected"),
        ("t=time,page=addr,source=nobody", "neither a column"), ("t=time,page=99999999999999999999", "64 bits"),
    ],
)  # fmt: skip
def test_columns_that_are_none(columns, why, tmp_path):
    with pytest.raises(UsageError, match=why):
        do("table", TEXT, tmp_path, suffix=".csv", columns=columns, time_unit="s")


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".csv"])
@pytest.mark.parametrize("data", [b"", b"PAR1", b"ARROW1\0\0", b"\xff" * 100, b"a,a\n1,2\n"])
def test_files_that_are_none(suffix, data, tmp_path):
    with pytest.raises((TraceError, UsageError)):
        do("table", data, tmp_path, suffix=suffix)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_columnar_files(suffix, seed):
    table = pa.table({"t": pa.array(range(50), pa.int64()), "page": pa.array(range(50), pa.uint32())})
    sink = pa.BufferOutputStream()
    if suffix == ".parquet":
        pq.write_table(table, sink)
    else:
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    data = bytearray(sink.getvalue().to_pybytes())
    for _ in range(seed.draw(st.integers(1, 4))):
        data[seed.draw(st.integers(0, len(data) - 1))] ^= seed.draw(st.integers(1, 255))
    data = bytes(data)[: seed.draw(st.sampled_from([len(data), len(data) // 2, len(data) - 1]))]
    with tempfile.TemporaryDirectory() as folder:
        survives("table", data, Path(folder), max_dropped=1.0, format=suffix[1:])


def test_the_name_must_say_what_it_is(tmp_path):
    with pytest.raises(UsageError, match="give --format"):
        do("table", TEXT, tmp_path, suffix=".log")


OPERATORS = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "//": lambda a, b: a // b,
    "&": lambda a, b: a & b, ">>": lambda a, b: a >> b, "<<": lambda a, b: a << b,
}  # fmt: skip
LEAVES = st.sampled_from(["a", "b"]) | st.integers(0, HIGHEST).map(str)


@st.composite
def trees(draw, depth=3):
    if depth == 0 or draw(st.booleans()):
        return draw(LEAVES)
    operator = draw(st.sampled_from(sorted(OPERATORS)))
    left = draw(trees(depth=depth - 1))
    return (operator, left, str(draw(st.integers(0, 63))) if operator in (">>", "<<") else draw(trees(depth=depth - 1)))


def spelled(tree) -> str:
    return tree if isinstance(tree, str) else f"({spelled(tree[1])} {tree[0]} {spelled(tree[2])})"


def worked_out(tree, names):
    """The value in Python's integers; None where a step leaves 64 bits, a factor 63, or a divisor is zero."""
    if isinstance(tree, str):
        return names[tree] if tree in names else int(tree)
    a, b = worked_out(tree[1], names), worked_out(tree[2], names)
    factors = {"*": (a, b), "<<": (a,)}.get(tree[0], ())
    if a is None or b is None or (tree[0] == "//" and b == 0) or any(factor >= 1 << 63 for factor in factors):
        return None
    value = OPERATORS[tree[0]](a, b)
    return value if LOWEST <= value <= HIGHEST else None


@settings(deadline=None)
@given(trees(), st.integers(0, HIGHEST), st.integers(-(1 << 40), 1 << 40))
def test_expressions_mean_what_they_say(tree, a, b):
    import polars as pl

    frame = pl.DataFrame({"a": pl.Series([a], dtype=pl.Int128), "b": pl.Series([b], dtype=pl.Int128)})
    got = frame.with_columns(expressions.compiled(expressions.parse(spelled(tree))).alias("x"))["x"][0]
    assert got == worked_out(tree, {"a": a, "b": b})


def test_precedence_is_that_of_c():
    node = expressions.parse("1 + 2 * 3 << 4 & 255")
    assert (node.kind, node.left.kind, node.left.left.kind, node.left.left.right.kind) == ("&", "<<", "+", "*")
