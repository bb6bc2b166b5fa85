"""One undisturbed sweep, which the others are compared with."""

from __future__ import annotations

import pytest

import replay
from tests.sweeping.common import PLAN


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The folder of the plan, run without disturbance."""
    folder = tmp_path_factory.mktemp("sweeps") / "whole"
    replay.sweep(PLAN, folder, jobs=2)
    return folder
