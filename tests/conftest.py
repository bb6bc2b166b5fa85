"""Shared by all tests: a cache folder of the tests' own, so that a run never depends on what was compiled before."""

from __future__ import annotations

import os

os.environ.setdefault("REPLAY_CACHE_DIR", os.path.join(os.path.dirname(__file__), "..", ".pytest_cache", "kernels"))

import pytest

from replay.jit import DISABLED

FULL_SIZE = ("cli", "describing", "docs", "golden", "tools", "validation")
SLOW_IN_PYTHON = ("test_policies.py",)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--design PATH[:PARAMS]` points tests/conformance at designs of your own."""
    parser.addoption("--design", action="append", metavar="DESIGN", help="designs for tests/conformance (default: all)")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """With `-n`, keep the tests of a group in one process, unless told how to spread them."""
    if config.getoption("numprocesses", None) and config.option.dist == "no":
        config.option.dist = "loadgroup"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process for the tests of a log and a design, whose kernels it compiles once, and for those of a module, whose
    fixtures it makes once; the many of tests/golden are spread.

    Under NUMBA_DISABLE_JIT=1 kernels run as plain Python: leave out what replays guests of a real size.
    """
    for item in items:
        given = getattr(getattr(item, "callspec", None), "params", {})
        if {"log", "design"} <= given.keys():
            item.add_marker(pytest.mark.xdist_group(f"{given['log']} {given['design']}"))
        elif "case" not in given:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    if DISABLED:
        skip = pytest.mark.skip(reason="full-size guests would take hours as plain Python")
        for item in items:
            if item.path.parent.name in FULL_SIZE or item.path.name in SLOW_IN_PYTHON:
                item.add_marker(skip)
