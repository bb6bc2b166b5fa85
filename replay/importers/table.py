"""table: any CSV, TSV, Parquet or Arrow file with named columns.

What: --columns says which columns, or which sums of them, are time, page, vCPU and source: t=time,page=addr>>12. How: a
batch of rows at a time; text columns hold decimal or 0x numbers, times may have decimals; a row whose values cannot be
read, or that has another number of columns, is dropped and counted. Rows need not be sorted beyond --reorder. Cost:
O(rows), a batch in memory. Bad for: times in floating-point columns, which hold about 16 digits: nanoseconds since 1970
do not fit.

Models: nothing; for whatever tool wrote the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from replay.errors import TraceError, UsageError
from replay.importing import expressions
from replay.importing.places import Extent
from replay.importing.report import Report, records
from replay.importing.streams import STDIN, Sources
from replay.importing.tally import Tally
from replay.plugins import param

if TYPE_CHECKING:
    import polars as pl

HOW = """how to record: with whatever tool you have; a row is a write, or the first of several
  replay import table writes.csv --columns 't=time,page=addr>>12,vcpu=cpu' --time-unit us -o guest.parquet
  bpftrace ... | replay import table - --format tsv --columns 't=ns,page=gfn' --time-unit ns -o guest.parquet
expressions hold column names ("quoted" where they have blanks), whole numbers, >> << + - * // & and parentheses;
source is a column with vcpu, host, dma, vhost or vfio in it, or one of these words for all rows
"""

COLUMNS = ("t", "page", "vcpu", "source")
SCALES = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
BATCH_ROWS = 1 << 16
RAM = Extent("ram")
WRONG_WIDTH = "another number of columns than the heading"


@dataclass(frozen=True, kw_only=True)
class Config:
    columns: str = param("t=t,page=page", "what is what: COLUMN=EXPRESSION,...; columns t, page, vcpu, source")
    time_unit: str = param("ns", "unit of t", choices=("ns", "us", "ms", "s"))
    format: str = param(
        "auto",
        "of the file; auto: by its name (.gz and .zst aside)",
        choices=("auto", "csv", "tsv", "parquet", "arrow"),
    )


def check(config: Config) -> None:
    """Raises UsageError for columns that a trace does not have, or expressions that are none."""
    found = expressions.parse_columns(config.columns, COLUMNS)
    if not {"t", "page"} <= found.keys():
        raise UsageError("--columns: t and page are needed, like t=time,page=addr>>12")
    for text in found.values():
        expressions.parse(text)


def read(config: Config, sources: Sources, report: Report) -> Iterator[Any]:
    """Events of all rows, in batches."""
    report.tally = Tally("row")
    report.clock = (
        f"column {expressions.parse_columns(config.columns, COLUMNS)['t']} of the table, in {config.time_unit}"
    )
    report.capture = "imported from a table: unknown to the importer"
    report.limits.append("what its tool could miss is not known to the importer")
    reader = _Reader(config, report)
    for name in sources.names:
        first = 1
        for frame in _frames(name, config, sources, report):
            yield reader.events(frame, name, first)
            first += frame.height


def _format(name: str, config: Config) -> str:
    if config.format != "auto":
        return config.format
    suffix = next((s for s in reversed(Path(name).suffixes) if s not in (".gz", ".zst")), "").lower()
    kinds = {
        ".csv": "csv",
        ".tsv": "tsv",
        ".parquet": "parquet",
        ".arrow": "arrow",
        ".feather": "arrow",
        ".ipc": "arrow",
    }
    if suffix not in kinds:
        raise UsageError(f"{name}: give --format csv, tsv, parquet or arrow: the name does not say")
    return kinds[suffix]


def _frames(name: str, config: Config, sources: Sources, report: Report) -> Iterator[pl.DataFrame]:
    """Batches of one file. Raises TraceError where it is damaged."""
    import polars as pl
    import pyarrow as pa

    kind = _format(name, config)
    try:
        if kind == "parquet":
            yield from (pl.DataFrame(batch) for batch in _parquet(name, sources))
        else:
            with sources.open(name) as stream:
                opened = _arrow(stream) if kind == "arrow" else _text(stream, kind, name, report)
                yield from (pl.DataFrame(batch) for batch in opened)
    except (pa.ArrowException, OSError, ValueError, pl.exceptions.PolarsError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise TraceError(f"{name}: cannot be read as {kind}: {reason[0]}") from None


def _parquet(name: str, sources: Sources) -> Iterator[Any]:
    import pyarrow.parquet as pq

    if name == STDIN:
        raise UsageError("table: Parquet cannot be read from standard input; give the file's name")
    for _ in sources.blocks(name):  # for the digest, before the file is read where its parts lie
        pass
    with pq.ParquetFile(name, pre_buffer=False) as file:
        yield from file.iter_batches(BATCH_ROWS, use_threads=False)


def _arrow(stream: IO[bytes]) -> Iterator[Any]:
    import pyarrow as pa

    head = stream.peek(8)[:6] if hasattr(stream, "peek") else b""
    if head == b"ARROW1":
        stream.read(8)  # the file format is the stream format after its magic; the footer repeats what was said
    with pa.ipc.open_stream(pa.PythonFile(stream, "r")) as reader:
        yield from reader


def _text(stream: IO[bytes], kind: str, name: str, report: Report) -> Iterator[Any]:
    """CSV or TSV, every column as bytes: what a number is, is decided by row."""
    import pyarrow as pa
    from pyarrow import csv

    def wrong(row: Any) -> str:
        report.tally.read += 1
        report.tally.drop(WRONG_WIDTH, f"{name}, a row of {row.actual_columns} columns", str(row.text or "")[:80])
        return "skip"

    head = stream.readline(1 << 16)
    delimiter = "\t" if kind == "tsv" else ","
    names = [
        part.strip().strip('"').strip() for part in head.decode("utf-8", "replace").rstrip("\r\n").split(delimiter)
    ]
    if len(set(names)) != len(names):
        raise TraceError(f"{name}: columns with one name in the heading: {', '.join(names[:8])}")
    with csv.open_csv(
        pa.PythonFile(stream, "r"),
        csv.ReadOptions(column_names=names, use_threads=False, block_size=1 << 20),
        csv.ParseOptions(delimiter=delimiter, invalid_row_handler=wrong, ignore_empty_lines=True),
        csv.ConvertOptions(column_types=dict.fromkeys(names, pa.binary()), strings_can_be_null=False),
    ) as reader:
        yield from reader


class _Reader:
    """From frames of a table to events."""

    def __init__(self, config: Config, report: Report) -> None:
        self.report = report
        self.scale = SCALES[config.time_unit]
        self.texts = expressions.parse_columns(config.columns, COLUMNS)
        self.nodes = {name: expressions.parse(text) for name, text in self.texts.items()}
        self.extent = report.places.number(RAM)
        report.sources = "source" in self.texts

    def events(self, frame: pl.DataFrame, name: str, first: int) -> Any:
        """The rows as an array of EVENT; rows that are none are counted."""
        import numpy as np
        import polars as pl

        tally = self.report.tally
        tally.read += frame.height
        columns = {column: self._column(frame, column, name) for column in self.texts}
        bad: dict[str, Any] = {}
        values: dict[str, Any] = {}
        for column, (low, high) in {
            "t": (0, 1 << 62),
            "page": (0, (1 << 32) - 1),
            "vcpu": (0, 8190),
            "source": (0, 4),
        }.items():
            series = columns.get(column, pl.zeros(frame.height, pl.Int128, eager=True))
            bad[f"{column} is not a whole number, or no known word"] = series.is_null().to_numpy()
            clipped = series.clip(low, high).fill_null(low)
            bad[f"{column} is out of range"] = ((series < low) | (series > high)).fill_null(False).to_numpy()
            values[column] = clipped.cast(pl.Int64).to_numpy()
        keep = np.ones(frame.height, bool)
        for reason, rows in bad.items():
            rows = rows & keep
            if rows.any():
                self._drop(reason, int(rows.sum()), name, first + int(np.argmax(rows)))
                keep &= ~rows
        self._drop_late(values["t"], keep, name, first)
        found = records(values["t"], self.extent, values["page"], values["vcpu"], values["source"])
        return found[keep]

    def _drop(self, reason: str, count: int, name: str, row: int) -> None:
        self.report.tally.drop(reason, f"{name}, row {row:,}", count=count)

    def _drop_late(self, t_ns: Any, keep: Any, name: str, first: int) -> None:
        """Times out of order: row by row, because what is late depends on the rows before."""
        late = self.report.late
        for row in keep.nonzero()[0].tolist():
            if reason := late(int(t_ns[row])):
                keep[row] = False
                self._drop(reason, 1, name, first + row)

    def _column(self, frame: pl.DataFrame, column: str, name: str) -> pl.Series:
        """A column of the trace as Int128, null where a row has none."""
        import polars as pl

        node, text = self.nodes[column], self.texts[column]
        if column == "source":
            return self._source(frame, str(node.value), name)
        missing = sorted(node.names() - set(frame.columns))
        if missing:
            known = ", ".join(frame.columns[:12])
            raise UsageError(f"--columns: {column}={text}: {name} has no column {missing[0]!r}; it has {known}")
        if column == "t" and node.kind == "name":
            return _times(frame[str(node.value)], self.scale)
        whole = pl.DataFrame([_integers(frame[known]) for known in sorted(node.names())])
        if not whole.width:
            whole = pl.DataFrame({"row": pl.zeros(frame.height, pl.Int128, eager=True)})
        value = expressions.compiled(node) * (self.scale if column == "t" else 1)
        return whole.with_columns(value.alias("= value")).get_column("= value")

    def _source(self, frame: pl.DataFrame, word: str, name: str) -> pl.Series:
        import polars as pl

        from replay.trace.schema import SOURCE_CODES

        if word not in frame.columns:
            if word not in SOURCE_CODES:
                raise UsageError(
                    f"--columns: source={word}: neither a column of {name} nor one of {', '.join(SOURCE_CODES)}"
                )
            return pl.Series([SOURCE_CODES[word]], dtype=pl.Int128).new_from_index(0, frame.height)
        texts = frame[word]
        if texts.dtype == pl.Binary:
            texts = _decoded(texts)
        texts = texts.cast(pl.String, strict=False).str.strip_chars().str.to_lowercase()
        return texts.replace_strict(SOURCE_CODES, default=None, return_dtype=pl.Int64).cast(pl.Int128)


def _decoded(column: pl.Series) -> pl.Series:
    """Text of bytes; null where they are not UTF-8."""
    import polars as pl

    try:
        return column.cast(pl.String)
    except pl.exceptions.PolarsError:
        texts = [None if item is None else item.decode("utf-8", "replace") for item in column.to_list()]
        return pl.Series(column.name, texts, pl.String)


def _integers(column: pl.Series) -> pl.Series:
    """Whole numbers as Int128; null for what is none."""
    import polars as pl

    if column.dtype == pl.Binary:
        column = _decoded(column)
    if column.dtype in (pl.String, pl.Categorical):
        text = column.cast(pl.String).str.strip_chars().str.strip_chars('"').str.strip_chars()
        digits = text.str.extract(r"^(-?[0-9]{1,20})$", 1).cast(pl.Int128, strict=False)
        hexes = text.str.extract(r"^0[xX]([0-9a-fA-F]{1,16})$", 1).str.to_integer(
            base=16, dtype=pl.UInt64, strict=False
        )
        return digits.zip_with(digits.is_not_null(), hexes.cast(pl.Int128)).rename(column.name)
    if column.dtype.is_float():
        whole = (column == column.floor()) & (column.abs() < 2**63)
        return column.zip_with(whole.fill_null(False), pl.Series([None], dtype=column.dtype)).cast(
            pl.Int128, strict=False
        )
    if column.dtype.is_integer():
        return column.cast(pl.Int128)
    return pl.Series(column.name, [None] * len(column), pl.Int128)


def _times(column: pl.Series, scale: int) -> pl.Series:
    """Nanoseconds as Int128 from numbers in units of `scale` ns, with decimals, or from a column of times."""
    import polars as pl

    if column.dtype.is_temporal():
        unit = {"ns": 1, "us": 1_000, "ms": 1_000_000}.get(getattr(column.dtype, "time_unit", None) or "ns", 1)
        return column.to_physical().cast(pl.Int128) * unit
    if column.dtype == pl.Binary:
        column = _decoded(column)
    if column.dtype.is_float():
        scaled = (column * scale).round()
        return scaled.zip_with((scaled.abs() < 2**63).fill_null(False), pl.Series([None], dtype=scaled.dtype)).cast(
            pl.Int128, strict=False
        )
    if column.dtype not in (pl.String, pl.Categorical):
        return _integers(column) * scale
    digits = len(str(scale)) - 1
    text = column.cast(pl.String).str.strip_chars().str.strip_chars('"').str.strip_chars()
    whole = text.str.extract(r"^([0-9]{1,19})(?:\.[0-9]*)?$", 1).cast(pl.Int128, strict=False)
    part = text.str.extract(r"^[0-9]+\.([0-9]*)$", 1).fill_null("").str.slice(0, digits).str.pad_end(digits, "0")
    fraction = part.cast(pl.Int128, strict=False).fill_null(0) if digits else pl.zeros(len(text), pl.Int128, eager=True)
    return whole * scale + fraction
