"""RAM blocks of a QEMU: where they lie in ram_addr space (`info ramblock`), and the dense pages they become."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Block:
    """A RAM block: its first page in ram_addr space, as a dense page, and in QEMU's own memory (-1: not told)."""

    name: str
    ram_page: int
    first_page: int
    n_pages: int
    host_page: int = -1


def numbered(found: Iterable[tuple[str, int, int, int]]) -> tuple[Block, ...]:
    """Blocks from (name, ram_page, n_pages, host_page), in the order of ram_addr, without the holes between them."""
    blocks, first = [], 0
    for name, ram_page, n_pages, host_page in sorted(found, key=itemgetter(1, 2, 0)):
        blocks.append(Block(name=name, ram_page=ram_page, first_page=first, n_pages=n_pages, host_page=host_page))
        first += n_pages
    return tuple(blocks)


def to_dense(ram_page: np.ndarray, blocks: tuple[Block, ...]) -> np.ndarray:
    """Dense page of each ram_addr page (int64), -1 where it lies outside of every block."""
    dense = np.full(ram_page.size, -1, np.int64)
    for block in blocks:
        inside = (ram_page >= block.ram_page) & (ram_page < block.ram_page + block.n_pages)
        dense[inside] = ram_page[inside].astype(np.int64) - block.ram_page + block.first_page
    return dense
