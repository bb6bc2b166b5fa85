"""Configurations of the designs, by the plug-ins' own defaults."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any


def config(design: str, **changes: Any) -> Any:
    """The parsed configuration of a shipped design with some parameters changed."""
    return dataclasses.replace(importlib.import_module(f"replay.designs.{design}").Config(), **changes)
