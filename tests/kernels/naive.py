"""The obvious implementation of every kernel, on Python sets and integers."""

from __future__ import annotations

import numpy as np

SIZES = (1, 63, 64, 65, 4095, 4096, 4097, 10_007)
DENSITIES = (0.0, 0.001, 0.03, 0.5, 1.0)


def padded_words(n_pages: int) -> int:
    return max(8, -(-n_pages // 512) * 8)


def random_pages(n_pages: int, density: float, seed: int = 0) -> set[int]:
    generator = np.random.default_rng([n_pages, int(density * 1000), seed])
    return set(np.flatnonzero(generator.random(n_pages) < density).tolist())


def to_words(pages: set[int], n_pages: int) -> np.ndarray:
    words = np.zeros(padded_words(n_pages), dtype=np.uint64)
    for page in pages:
        words[page // 64] |= np.uint64(1 << (page % 64))
    return words


def to_pages(words: np.ndarray) -> set[int]:
    return {64 * index + bit for index, word in enumerate(words.tolist()) for bit in range(64) if word >> bit & 1}
