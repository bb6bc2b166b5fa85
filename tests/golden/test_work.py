"""Did the work change, or how often kernels are compiled? Counters in clear, so that the difference can be read.

A change that is meant is recorded by `python tools/update_golden.py`, which prints it.
"""

from __future__ import annotations

import json

import pytest

import replay
from replay import jit
from tools import golden_work as tool

GOLDEN = json.loads(tool.FILE.read_text())


@pytest.fixture(scope="module")
def trace():
    return replay.open_trace(tool.TRACE)


def test_the_golden_file_has_every_case_and_no_other():
    assert set(GOLDEN["work"]) == {f"{log} | {design}" for log, design in tool.pairs()}


@pytest.mark.parametrize("case", list(tool.pairs()), ids=lambda case: "-".join(case))
def test_no_counter_moved(case, trace):
    assert list(tool.moved(GOLDEN["work"][" | ".join(case)], tool.counters(trace, *case), " | ".join(case))) == []


@pytest.mark.skipif(jit.DISABLED, reason="nothing is compiled under NUMBA_DISABLE_JIT")
def test_no_kernel_is_compiled_twice(trace):
    """Whether events come from a file, from arrays or are made, in whatever guest: the same types reach the kernels."""
    assert tool.specialisations(trace) == GOLDEN["specialisations"]
