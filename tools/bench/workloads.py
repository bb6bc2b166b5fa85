"""Guests, bitmaps and page streams that the benchmarks work on. Everything random has a fixed seed."""

from __future__ import annotations

import numpy as np

SEED = 20240620
PAGES = {"1G": 1 << 18, "8G": 1 << 21, "96G": 96 << 18, "1T": 1 << 28, "12T": 12 << 28}


def sizes(quick: bool, wanted: tuple[str, ...] = ("8G", "96G")) -> dict[str, int]:
    """Guest sizes in pages: those wanted, or a small one."""
    return {name: PAGES[name] for name in (("1G",) if quick else wanted)}


def bitmap(n_pages: int, density: float, seed: int = SEED) -> np.ndarray:
    """A bitmap (uint64 words, padded to 8) in which each page is set with this probability."""
    words = np.zeros(max(8, -(-n_pages // 512) * 8), dtype=np.uint64)
    if density > 0:
        chosen = np.random.default_rng(seed).random(n_pages) < density
        packed = np.packbits(chosen, bitorder="little")
        words.view(np.uint8)[: packed.size] = packed
    return words


def large_bitmap(n_pages: int, density: float) -> np.ndarray:
    """A bitmap of more than 96G, which repeats one of 96G: drawing a number a page would take minutes."""
    part = bitmap(min(n_pages, PAGES["96G"]), density)
    words = np.zeros(-(-n_pages // 512) * 8, dtype=np.uint64)
    for first in range(0, words.size, part.size):
        words[first : first + part.size] = part[: words.size - first]
    return words


def stream(pattern: str, n_pages: int, count: int) -> np.ndarray:
    """Pages written one after the other (uint32): uniform, sequential, or hot (90 % to 200,000 pages)."""
    generator = np.random.default_rng(SEED)
    if pattern == "sequential":
        return (np.arange(count) % n_pages).astype(np.uint32)
    uniform = generator.integers(0, n_pages, count, dtype=np.uint32)
    if pattern == "uniform":
        return uniform
    hot = generator.integers(0, n_pages, min(200_000, n_pages // 10), dtype=np.uint32)
    return np.where(generator.random(count) < 0.9, hot[generator.integers(0, hot.size, count)], uniform)
