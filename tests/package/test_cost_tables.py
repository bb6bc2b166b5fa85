"""The shipped fit to the reported totals of an idle guest is near there, and within 7 % elsewhere."""

from __future__ import annotations

import pytest

import replay
from replay.jit import DISABLED
from replay.migration import costs

REPORTED_MS = {
    "bitmap": {"8G": 429, "32G": 1714, "96G": 5388},
    "double-ring:65536": {"8G": 416, "32G": 1616, "96G": 5186},
}


@pytest.mark.skipif(DISABLED, reason="guests of a real size would take hours as plain Python")
@pytest.mark.parametrize("design", REPORTED_MS)
@pytest.mark.parametrize(("memory", "within_pct"), [("8G", 4), ("32G", 4), ("96G", 7)])
def test_the_fit_of_2024(design, memory, within_pct):
    options = {"log": "kvm-ring:1024", "max_bandwidth": "1250MiB/s", "costs": "seed-2024", "check": False}
    result = replay.run("idle-1g", design=design, memory=memory, **options)
    assert result.summary["total-time"] == pytest.approx(REPORTED_MS[design][memory], rel=within_pct / 100)


def test_fits_are_labelled():
    for name in ("seed-2024", "tcg-2core"):
        assert "fit" in costs.load(name).description.lower()
