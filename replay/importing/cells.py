"""Cells of a table as whole numbers: polars expressions that give Int128, and null for what is none.

Text may be decimal or 0x hexadecimal, quoted or padded; times may have decimals, which are kept to the nanosecond.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from replay.trace.schema import SOURCE_CODES

INT = pl.Int128
_TEXTS = (pl.String, pl.Categorical, pl.Enum)
_TIME_UNITS_NS = {"ns": 1, "us": 1_000, "ms": 1_000_000}


def number(value: int) -> pl.Expr:
    """A constant."""
    return pl.lit(value, INT)


def readable(frame: pl.DataFrame, names: set[str]) -> pl.DataFrame:
    """These columns of a frame, bytes as text; what is not UTF-8 becomes U+FFFD."""
    columns = []
    for name in sorted(names):
        column = frame.get_column(name)
        if column.dtype == pl.Binary:
            try:
                column = column.cast(pl.String)
            except pl.exceptions.PolarsError:
                texts = [None if item is None else item.decode("utf-8", "replace") for item in column.to_list()]
                column = pl.Series(name, texts, pl.String)
        columns.append(column)
    return pl.DataFrame(columns)


def integers(name: str, dtype: Any) -> pl.Expr:
    """A column of whole numbers."""
    column = pl.col(name)
    if dtype in _TEXTS:
        text = _bare(column)
        digits = text.str.extract(r"^([+-]?[0-9]{1,20})$", 1).cast(INT, strict=False)
        hexes = text.str.extract(r"^0[xX]([0-9a-fA-F]{1,16})$", 1).str.to_integer(
            base=16, dtype=pl.UInt64, strict=False
        )
        return pl.coalesce(digits, hexes.cast(INT))
    if dtype.is_float():
        return (
            pl.when(column.is_finite() & (column == column.floor()) & (column.abs() < 2.0**63))
            .then(column)
            .cast(INT, strict=False)
        )
    return column.cast(INT) if dtype.is_integer() else pl.lit(None, INT)


def times(name: str, dtype: Any, scale: int) -> pl.Expr:
    """Nanoseconds from numbers of `scale` ns, with decimals, or from a column of times."""
    column = pl.col(name)
    if dtype.is_temporal():
        unit = _TIME_UNITS_NS.get(getattr(dtype, "time_unit", None) or "", 0)
        if isinstance(dtype, pl.Time) or dtype == pl.Time:
            unit = 1
        return column.to_physical().cast(INT) * number(unit) if unit else pl.lit(None, INT)
    if dtype in _TEXTS:
        digits = len(str(scale)) - 1
        text = _bare(column)
        whole = text.str.extract(r"^([0-9]{1,19})(?:\.[0-9]{0,30})?$", 1).cast(INT, strict=False)
        part = text.str.extract(r"^[0-9]+\.([0-9]+)$", 1).fill_null("").str.slice(0, digits).str.pad_end(digits, "0")
        fraction = part.cast(INT, strict=False).fill_null(number(0)) if digits else number(0)
        return whole * number(scale) + fraction
    if dtype.is_float():
        scaled = (column.cast(pl.Float64) * scale).round()
        return pl.when(scaled.is_finite() & (scaled.abs() < 2.0**63)).then(scaled).cast(INT, strict=False)
    return integers(name, dtype) * number(scale)


def sources(name: str) -> pl.Expr:
    """Codes of source words."""
    text = pl.col(name).cast(pl.String, strict=False).str.strip_chars().str.strip_chars('"').str.to_lowercase()
    return text.replace_strict(SOURCE_CODES, default=None, return_dtype=pl.Int64).cast(INT)


def _bare(column: pl.Expr) -> pl.Expr:
    return column.cast(pl.String).str.strip_chars().str.strip_chars('"').str.strip_chars()
