"""table: any CSV, TSV, Parquet or Arrow file with named columns.

What: --columns says which columns, or which sums of them, are time, page, vCPU and source: t=time,page=addr>>12. How: a
batch of rows at a time; text columns hold decimal or 0x numbers, times may have decimals; a row whose values cannot be
read, or that has another number of columns, is dropped and counted. Rows need not be sorted beyond --reorder. Cost:
O(rows), a batch in memory. Bad for: times in floating-point columns, which hold about 16 digits: nanoseconds since 1970
do not fit.

Models: nothing; for whatever tool wrote the table.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from replay.errors import TraceError, UsageError
from replay.importing import expressions
from replay.importing.places import Extent
from replay.importing.report import Report, records
from replay.importing.streams import BLOCK_BYTES, STDIN, Sources, Utf8
from replay.importing.tally import Tally
from replay.plugins import param
from replay.trace.schema import SOURCE_CODES

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
RANGES = {"t": (0, 1 << 61), "page": (0, (1 << 32) - 1), "vcpu": (0, 8190), "source": (0, 4)}
UNREADABLE = "is not a whole number, or no known word"
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

    from replay.trace.parquet import explaining

    kind = _format(name, config)
    with explaining(name, kind):
        try:
            if kind == "parquet":
                yield from (pl.DataFrame(batch) for batch in _parquet(name, config, sources))
            else:
                with sources.open(name) as stream:
                    opened = _arrow(stream) if kind == "arrow" else _text(stream, kind, name, report)
                    yield from (pl.DataFrame(batch) for batch in opened)
        except pl.exceptions.PolarsError as error:
            raise ValueError(str(error)) from None


def _parquet(name: str, config: Config, sources: Sources) -> Iterator[Any]:
    import pyarrow.parquet as pq

    if name == STDIN:
        raise UsageError("table: Parquet cannot be read from standard input; give the file's name")
    for _ in sources.blocks(name):  # for the digest, before the file is read where its parts lie
        pass
    texts = expressions.parse_columns(config.columns, COLUMNS).values()
    wanted = set().union(*(expressions.parse(text).names() for text in texts))
    with pq.ParquetFile(name, pre_buffer=False) as file:
        known = file.schema_arrow.names
        few = [column for column in known if column in wanted]
        yield from file.iter_batches(
            BATCH_ROWS, columns=few if wanted <= {*few, *SOURCE_CODES} else known, use_threads=False
        )


def _arrow(stream: IO[bytes]) -> Iterator[Any]:
    import pyarrow as pa

    head = stream.peek(8)[:6] if hasattr(stream, "peek") else b""
    if head == b"ARROW1":
        stream.read(8)  # the file format is the stream format after its magic; the footer repeats what was said
    with pa.ipc.open_stream(pa.PythonFile(stream, "r")) as reader:
        yield from reader


def _text(stream: IO[bytes], kind: str, name: str, report: Report) -> Iterator[Any]:
    """CSV or TSV, every column as text: what a number is, is decided by row.

    The CSV reader forgets rows of a wrong width that are not UTF-8, without a word, so it is given UTF-8.
    """
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
        pa.PythonFile(io.BufferedReader(Utf8(stream), BLOCK_BYTES), "r"),
        csv.ReadOptions(column_names=names, use_threads=False, block_size=1 << 20),
        csv.ParseOptions(delimiter=delimiter, invalid_row_handler=wrong, ignore_empty_lines=True),
        csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
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

        self.report.tally.read += frame.height
        values = self._values(frame, name)
        keep = np.ones(frame.height, bool)
        columns = {}
        for column, (low, high) in RANGES.items():
            series = values.get_column(column)
            least, most = (pl.lit(bound, pl.Int128) for bound in (low, high))
            fits = values.select((pl.col(column) >= least) & (pl.col(column) <= most)).to_series().fill_null(False)
            null, inside = series.is_null().to_numpy(), fits.to_numpy()
            columns[column] = series.zip_with(fits, pl.Series([low], dtype=pl.Int128)).cast(pl.Int64).to_numpy()
            for reason, rows in ((f"{column} {UNREADABLE}", null), (f"{column} is out of range", ~inside & ~null)):
                if (rows & keep).any():
                    self._drop(reason, int((rows & keep).sum()), name, first + int(np.argmax(rows & keep)))
                    keep &= ~rows
        self._drop_late(columns["t"], keep, name, first)
        return records(columns["t"], self.extent, columns["page"], columns["vcpu"], columns["source"])[keep]

    def _drop(self, reason: str, count: int, name: str, row: int) -> None:
        self.report.tally.drop(reason, f"{name}, row {row:,}", count=count)

    def _drop_late(self, t_ns: Any, keep: Any, name: str, first: int) -> None:
        """Times out of order: row by row, because what is late depends on the rows before."""
        late = self.report.late
        for row, at_ns in zip(keep.nonzero()[0].tolist(), t_ns[keep].tolist(), strict=True):
            if reason := late(at_ns):
                keep[row] = False
                self._drop(reason, 1, name, first + row)

    def _values(self, frame: pl.DataFrame, name: str) -> pl.DataFrame:
        """The columns of the trace as Int128, null where a row has none."""
        import polars as pl

        from replay.importing import cells

        used = {known for column, node in self.nodes.items() if column != "source" for known in node.names()}
        if missing := sorted(used - set(frame.columns)):
            known = ", ".join(frame.columns[:12])
            raise UsageError(f"--columns: {name} has no column {missing[0]!r}; it has {known}")
        word = self._source_word(frame, name)
        plain = cells.readable(frame, used | ({word} & set(frame.columns)))
        if not plain.width:
            plain = frame.select(pl.int_range(frame.height).alias("row"))
        whole = plain.with_columns(cells.integers(known, plain.schema[known]).alias(f"= {known}") for known in used)
        values = {"vcpu": cells.number(0), "source": cells.number(SOURCE_CODES.get(word, 0))}
        for column, node in self.nodes.items():
            if column == "source":
                values[column] = cells.sources(word) if word in frame.columns else values[column]
            elif column == "t" and node.kind == "name":
                values[column] = cells.times(str(node.value), plain.schema[str(node.value)], self.scale)
            else:
                value = expressions.compiled(node, "= ")
                values[column] = value * cells.number(self.scale) if column == "t" else value
        return whole.with_columns(value.alias(f"is {column}") for column, value in values.items()).select(
            pl.col(f"is {column}").alias(column) for column in RANGES
        )

    def _source_word(self, frame: pl.DataFrame, name: str) -> str:
        """The column with the sources, or the one word for all."""
        if "source" not in self.nodes:
            return "vcpu"
        word = str(self.nodes["source"].value)
        if word not in frame.columns and word not in SOURCE_CODES:
            raise UsageError(
                f"--columns: source={word}: neither a column of {name} nor one of {', '.join(SOURCE_CODES)}"
            )
        return word
