"""Did results change? Every shipped trace through every log and design, at its own size and at 96G.

A change that is meant is recorded by `python tools/update_golden.py`, which prints it.
"""

from __future__ import annotations

import importlib.util
import json
from functools import lru_cache
from pathlib import Path

import pytest

import replay

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("update_golden", ROOT / "tools" / "update_golden.py")
tool = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tool)
GOLDEN = json.loads(tool.GOLDEN.read_text())
CASES = list(tool.all_cases())


@lru_cache(maxsize=1)
def opened(trace: str):
    return replay.open_trace(trace)


def test_the_golden_file_has_every_case_and_no_other():
    assert set(GOLDEN) == {" | ".join(case) for case in CASES}
    assert all(entry["lost_pages"] == 0 for entry in GOLDEN.values())


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case))
def test_nothing_moved(case):
    trace, *rest = case
    assert tool.run_case(opened(trace), *rest) == GOLDEN[" | ".join(case)]
