"""How sure a share is: the interval of Clopper and Pearson for k of n.

It is the exact one (Biometrika 26, 1934): whatever the true share is, it lies within the interval at least as often as
the confidence says. Its ends are quantiles of beta distributions.
"""

from __future__ import annotations

from replay.analysis.rank import CONFIDENCE, incomplete_beta

NAME = "Clopper-Pearson"


def interval(k: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of a share of which k of n trials were seen; (0, 1) of none. 0 <= k <= n."""
    if not n:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if k == 0 else _quantile(tail, k, n - k + 1)
    high = 1.0 if k == n else _quantile(1 - tail, k + 1, n - k)
    return low, high


def _quantile(probability: float, a: float, b: float) -> float:
    """The x up to which a beta distribution has that probability, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if incomplete_beta(middle, a, b) < probability else (low, middle)
    return (low + high) / 2
