"""Shared by all tests: a cache folder of the tests' own, so that a run never depends on what was compiled before."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("REPLAY_CACHE_DIR", os.path.join(os.path.dirname(__file__), "..", ".pytest_cache", "kernels"))

import pytest

from replay.jit import DISABLED

FULL_SIZE = ("cli", "describing", "docs", "golden", "tools", "validation")
SLOW_IN_PYTHON = ("test_policies.py",)
BY_PAIR = (("conformance", "test_designs.py"), ("engine", "test_against_reference.py"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--design PATH[:PARAMS]` points tests/conformance at designs of your own."""
    parser.addoption("--design", action="append", metavar="DESIGN", help="designs for tests/conformance (default: all)")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`: one process for the tests of a log and a design, whose kernels it compiles once, and for those of a
    module, whose fixtures it makes once; the many cases of tests/golden are spread."""
    if config.option.dist != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByKernels(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            place, _, test = nodeid.partition("::")
            folder, module = ("", *place.split("/"))[-2:]
            if folder == "golden":
                return nodeid
            if (folder, module) in BY_PAIR and "[" in test:
                return test.partition("[")[2]
            return place

    return ByKernels(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Under NUMBA_DISABLE_JIT=1 kernels run as plain Python: leave out what replays guests of a real size."""
    if DISABLED:
        skip = pytest.mark.skip(reason="full-size guests would take hours as plain Python")
        for item in items:
            if item.path.parent.name in FULL_SIZE or item.path.name in SLOW_IN_PYTHON:
                item.add_marker(skip)
