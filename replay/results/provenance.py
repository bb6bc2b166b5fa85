"""Where a result came from: trace, plug-ins, cost table, versions, machine. A number without it is not reported."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replay import jit
from replay.version import __version__

if TYPE_CHECKING:
    from replay.migration.costs import Costs
    from replay.plugins import Plugin
    from replay.synthesis.synthetic import Synthetic
    from replay.trace.reader import Trace


@cache
def machine() -> dict[str, Any]:
    """This machine and these versions."""
    return {
        "replay": __version__,
        "sources": jit.sources_digest(),
        "python": platform.python_version(),
        "numba": jit.NUMBA_VERSION,
        "numpy": version("numpy"),
        "pyarrow": version("pyarrow"),
        "jit": not jit.DISABLED,
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
    }


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def provenance(trace: Trace | Synthetic, log: Plugin, design: Plugin, costs: Costs) -> dict[str, Any]:
    """Everything needed to run the same replay again and to judge its measured figures."""
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "trace": {
            "name": trace.path.name if trace.path else None,
            "sha256": trace.digest,
            "title": trace.metadata.title,
        },
        "log": log.label,
        "design": design.label,
        "costs": costs.name,
        **machine(),
    }
