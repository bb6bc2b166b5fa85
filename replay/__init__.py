"""Replay recorded guest dirty-page traces through the dirty-tracking designs of live migration.

    trace = replay.open_trace("redis-1g")
    result = replay.run(trace, log="kvm-ring:4096", design="double-ring:1024", memory="96G",
                        max_bandwidth="1250MiB/s", downtime_limit="300ms")
    result.rounds      # a polars DataFrame, one row a round
    result.summary     # a dict with the names of query-migrate

Importing this package imports nothing heavy; numba, pyarrow and polars come with the first call that needs them.
"""

from __future__ import annotations

from replay.version import __version__

TYPE_CHECKING = False  # typing's, whose import takes 6 ms
if TYPE_CHECKING:
    from replay.api import *

# ruff: noqa: F403, F405
# Each name but __version__ is one of replay.api's __all__.
__all__ = [
    "Result",
    "__version__",
    "advise",
    "bound",
    "capture_trace",
    "check",
    "compare",
    "doctor",
    "explain",
    "explain_rounds",
    "explain_seed",
    "export_perfetto",
    "fit",
    "fleet",
    "generate",
    "heatmap",
    "import_trace",
    "load",
    "load_sweep",
    "merge_traces",
    "open_trace",
    "pareto",
    "phase",
    "plot",
    "rank_sweep",
    "report",
    "reproduce",
    "run",
    "sample_trace",
    "scale_trace",
    "shipped_traces",
    "slice_trace",
    "stat",
    "sweep",
    "sweep_plan",
    "validate",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        from replay import api

        return getattr(api, name)
    raise AttributeError(f"module 'replay' has no attribute {name!r}")
