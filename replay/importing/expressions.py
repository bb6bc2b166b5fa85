"""The little language of `--columns`: "t=time,page=addr>>12,vcpu=cpu & 7", as polars expressions; nothing is evaluated.

    sum    = shift (("+" | "-") shift)*          as in C: & binds least, then shifts, then sums, then products
    atom   = name | "quoted name" | integer | hex integer | "(" expression ")"

Shifts are by a written number below 64. Values are whole numbers of up to 64 bits, computed in 128: one that does not
fit, at any step, and a division by zero give null, which the importer counts as a dropped row.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replay.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

_TOKEN = re.compile(r'\s*(?:(0[xX][0-9a-fA-F]{1,16}|\d{1,20})|([A-Za-z_][\w.]*)|"([^"]+)"|(>>|<<|//|[-+*&()]))')
_LEVELS = (("&",), (">>", "<<"), ("+", "-"), ("*", "//"))  # from what binds least
MAX_DEPTH = 50
LOWEST, HIGHEST = -(1 << 63), (1 << 64) - 1


@dataclass(frozen=True)
class Node:
    """`kind`: "name" or "number" (`value`), or an operator with its two sides."""

    kind: str
    value: str | int = 0
    left: Node | None = None
    right: Node | None = None

    def names(self) -> set[str]:
        """Columns that are asked for."""
        own = {str(self.value)} if self.kind == "name" else set()
        return own.union(*(side.names() for side in (self.left, self.right) if side is not None))


def parse(text: str) -> Node:
    """An expression. Raises UsageError saying what was not understood, and where."""
    tokens, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise UsageError(f"--columns: {text!r}: {text[at:].strip()[:20]!r} is not understood; {_GRAMMAR}")
        number, name, quoted, operator = match.groups()
        if number is not None:
            tokens.append(("number", number))
        elif operator is None:
            tokens.append(("name", name or quoted))
        else:
            tokens.append((operator, operator))
        at = match.end()
    parser = _Parser(text, tokens)
    node = parser.level(0, 0)
    if parser.tokens:
        raise UsageError(f"--columns: {text!r}: {parser.tokens[0][1]!r} was not expected there; {_GRAMMAR}")
    return node


_GRAMMAR = "an expression is made of column names, whole numbers, >> << + - * // & and parentheses"


class _Parser:
    def __init__(self, text: str, tokens: list[tuple[str, str]]) -> None:
        self.text = text
        self.tokens = tokens

    def level(self, level: int, depth: int) -> Node:
        """An expression whose operators bind at least as much as those of the level."""
        if level == len(_LEVELS):
            return self._atom(depth)
        node = self.level(level + 1, depth)
        steps = 0
        while self.tokens and self.tokens[0][0] in _LEVELS[level]:
            operator, _ = self.tokens.pop(0)
            right = self.level(level + 1, depth)
            if operator in (">>", "<<") and not (right.kind == "number" and 0 <= int(right.value) < 64):
                raise UsageError(f"--columns: {self.text!r}: {operator} takes a number from 0 to 63 on its right")
            node = Node(operator, left=node, right=right)
            steps += 1
            if steps > MAX_DEPTH:
                raise UsageError(f"--columns: {self.text[:40]!r}...: too long")
        return node

    def _atom(self, depth: int) -> Node:
        if not self.tokens:
            raise UsageError(f"--columns: {self.text!r} ends too early; {_GRAMMAR}")
        kind, text = self.tokens.pop(0)
        if kind == "name":
            return Node("name", text)
        if kind == "number":
            value = int(text, 0) if text[:2] in ("0x", "0X") else int(text)
            if value > HIGHEST:
                raise UsageError(f"--columns: {text} has more than 64 bits")
            return Node("number", value)
        if kind == "(" and depth < MAX_DEPTH:
            node = self.level(0, depth + 1)
            if self.tokens and self.tokens.pop(0)[0] == ")":
                return node
            raise UsageError(f"--columns: {self.text!r}: a parenthesis is not closed")
        raise UsageError(f"--columns: {self.text!r}: {text!r} was not expected there; {_GRAMMAR}")


def compiled(node: Node, prefix: str = "") -> pl.Expr:
    """A polars expression over integer columns (names after `prefix`), Int128; null where a value does not fit."""
    import polars as pl

    if node.kind == "name":
        return _fitting(pl.col(f"{prefix}{node.value}").cast(pl.Int128))
    if node.kind == "number":
        return pl.lit(node.value, pl.Int128)
    assert node.left is not None
    assert node.right is not None
    left = compiled(node.left, prefix)
    if node.kind in (">>", "<<"):
        scale = pl.lit(1 << int(node.right.value), pl.Int128)
        return _fitting(left // scale if node.kind == ">>" else _small(left) * scale)
    right = compiled(node.right, prefix)
    if node.kind == "//":
        return _fitting(left // pl.when(right != 0).then(right))
    if node.kind == "*":
        return _fitting(_small(left) * _small(right))
    if node.kind == "&":
        return left & right
    return _fitting(left + right if node.kind == "+" else left - right)


def _fitting(value: pl.Expr) -> pl.Expr:
    import polars as pl

    return pl.when(value.is_between(pl.lit(LOWEST, pl.Int128), pl.lit(HIGHEST, pl.Int128))).then(value)


def _small(value: pl.Expr) -> pl.Expr:
    """Null for a factor whose product might not fit into 128 bits."""
    import polars as pl

    return pl.when(value.is_between(pl.lit(LOWEST, pl.Int128), pl.lit(-LOWEST - 1, pl.Int128))).then(value)


def parse_columns(text: str, known: tuple[str, ...]) -> dict[str, str]:
    """ "t=time,page=addr>>12" taken apart. Raises UsageError for a column that a trace does not have."""
    found: dict[str, str] = {}
    for item in (part for part in text.split(",") if part.strip()):
        name, equals, expression = item.partition("=")
        name = name.strip()
        if not equals or name not in known or name in found or not expression.strip():
            raise UsageError(
                f"--columns: {item!r} is not of the form COLUMN=EXPRESSION, COLUMN one of {', '.join(known)}, each once"
            )
        found[name] = expression.strip()
    return found
