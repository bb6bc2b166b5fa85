"""Shared by all tests: a cache folder of the tests' own, so that a run never depends on what was compiled before."""

from __future__ import annotations

import os

os.environ.setdefault("REPLAY_CACHE_DIR", os.path.join(os.path.dirname(__file__), "..", ".pytest_cache", "kernels"))
