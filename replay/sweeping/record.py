"""What is kept of a run: one row, its rounds, and apart from them what only holds for the machine that ran it.

Rows and rounds are the same wherever and however often a run is made; `measured_*` figures, wall time and machine are
not, and go into a file of their own. The columns of all three are named here once.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import threading
import time
from functools import cache
from typing import TYPE_CHECKING, Any

from replay.columns import LOSSES, LOST, ROUNDS, SHARES, VCPUS, Column
from replay.config import RunConfig
from replay.errors import ReplayError
from replay.sweeping.jobs import Guests, Job, run_job
from replay.sweeping.sources import Source

if TYPE_CHECKING:
    from replay.results.result import Result
    from replay.sweeping.plan import PlannedRun

_TYPES = {"str": "String", "bool": "Boolean", "int": "Int64", "float": "Float64"}
_UNITS = {
    "memory": "bytes", "max_bandwidth": "bytes/s", "downtime_limit": "ms", "postcopy_after": "ns",
    "postcopy_bandwidth": "bytes/s", "xbzrle": "bytes", "xbzrle_bytes": "bytes", "link": "bytes/s", "start": "ns",
    "give_up": "ns",
}  # fmt: skip

RUN = Column("run", "Int64", "", "number of the run in the plan, from 0")
_HEAD = (
    RUN,
    Column("key", "String", "", "what the run is: digest of guest, dirty rate, options and files that these name"),
    Column("status", "String", "", "completed, not-converged, or failed"),
    Column("error", "String", "", "why a run failed"),
    Column("trace_sha256", "String", "", "digest of the guest that was replayed"),
    Column("dirty_rate", "Float64", "", "factor on the guest's dirty rate"),
)
_CONFIG = tuple(
    Column(f.name, _TYPES[str(f.type).removesuffix(" | None")], _UNITS.get(f.name, ""), f.metadata["help"])
    for f in dataclasses.fields(RunConfig)
)
_FIGURES = (
    Column("total_ms", "Int64", "ms", "total time, as query-migrate has it"),
    Column("downtime_ms", "Int64", "ms", "downtime, as query-migrate has it"),
    Column("syncs", "Int64", "syncs", "syncs"),
    Column("normal_pages", "Int64", "pages", "pages sent with their content"),
    Column("zero_pages", "Int64", "pages", "pages sent as zero"),
    Column("sent_bytes", "Int64", "bytes", "bytes sent"),
    Column("redundant_pages", "Int64", "pages", "sent although unchanged since they were last sent"),
    Column("lost_pages", "Int64", "pages", "pages whose last write the target does not have"),
    Column("unsafe", "String", "", "why the design can lose pages; null when it claims to be safe"),
    Column("fallback_rounds", "Int64", "rounds", "rounds served by the bitmap because the queue had overflowed"),
    Column("kring_full_exits", "Int64", "exits", "vCPU exits because a KVM ring was full"),
    *(
        Column(f"modelled_{name}_ns", "Int64", "ns", f"{meaning}, modelled, sum over the rounds")
        for name, meaning in (
            ("harvest", "collecting from the dirty log"),
            ("sync", "making it visible to the sender"),
            ("find", "finding pages"),
            ("send", "checking and sending pages"),
            ("wait", "asleep because the window's bytes were used up"),
            ("stall", "stood still for the dirty log, sum over lanes"),
            ("aside", "dirty-log work beside the clock"),
        )
    ),
    *(
        Column(name, "Int64", "ns", f"modelled, sum over rounds and vCPUs: {meaning}")
        for name, meaning in zip(LOST, LOSSES.values(), strict=True)
    ),
    *SHARES,
    Column("modelled_total_ns", "Int64", "ns", "total time, modelled; null unless completed"),
    Column("modelled_downtime_ns", "Int64", "ns", "downtime, modelled; null unless completed"),
    Column("modelled_find_cpu_ns", "Int64", "ns", "CPU time spent finding pages, modelled"),
)
ROUND_COLUMNS = (
    RUN,
    *(column for column in ROUNDS if not column.name.startswith("measured_")),
)
VCPU_COLUMNS = (RUN, *VCPUS)
MEASURED_COLUMNS = (
    RUN,
    *(
        Column(f"measured_{name}_ns", "Int64", "ns", "this machine's clock around our kernels, sum over the rounds")
        for name in ("harvest", "sync", "send", "find_cpu")
    ),
    Column(
        "measured_wall_ns", "Int64", "ns", "from the start of the run to its end, waiting for other threads included"
    ),
    Column("made_at", "String", "", "when the run ended, UTC"),
    Column("worker", "String", "", "machine, process and thread that ran it"),
    Column("cpu", "String", "", "its CPU"),
)


def run_columns(baselines: list[str]) -> tuple[Column, ...]:
    """Columns of the table of runs; it has one for each named baseline."""
    against = (Column(f"baseline_{name}", "Int64", "", f"the run that is its baseline {name}") for name in baselines)
    return (*_HEAD, *_CONFIG, *_FIGURES, *against)


@cache
def _guests() -> Guests:
    """The decoded guests of this process."""
    return Guests(Source.open)


def forget() -> None:
    """Let go of the decoded guests of this process."""
    _guests.cache_clear()


def perform(job: Job, *, cancelled: threading.Event | None = None) -> dict[str, Any]:
    """Run a job wherever this is called: {"row", "rounds", "vcpus", "measured", "program"}, or {"failed", "final"}.

    failed: its error; final: whether it is the job's own, so that it would come again. Raises only KeyboardInterrupt.
    """
    begin = time.perf_counter_ns()
    try:
        return _kept(run_job(_guests(), job, cancelled=cancelled), begin)
    except ReplayError as error:
        return {"failed": str(error), "final": True}
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}", "final": False}


def _kept(result: Result, begin: int) -> dict[str, Any]:
    from replay.analysis.compare import exact_figures

    figures = exact_figures(result)
    config = {key.replace("-", "_"): value for key, value in result.config.items()}
    rounds = {c.name: [row[c.name] for row in result.rows] for c in ROUND_COLUMNS if c.name != "run"}
    measured = {key: value for key, value in figures.items() if key.startswith("measured_")}
    where = f"{platform.node()} {os.getpid()} {threading.get_native_id()}"
    return {
        "program": [result.provenance["replay"], result.provenance["sources"]],
        "row": config | {key: value for key, value in figures.items() if not key.startswith("measured_")},
        "rounds": rounds,
        "vcpus": {c.name: [row[c.name] for row in result.guest["vcpus"]] for c in VCPUS},
        "measured": measured | {
            "measured_wall_ns": time.perf_counter_ns() - begin, "made_at": result.provenance["made_at"],
            "worker": where, "cpu": result.provenance["cpu"],
        },
    }  # fmt: skip


def row_of(
    run: PlannedRun, against: dict[str, int], kept: dict[str, Any], columns: tuple[Column, ...]
) -> dict[str, Any]:
    """The row of a run in the table of runs, whole: what it was to be, and what came of it."""
    row: dict[str, Any] = dict.fromkeys(column.name for column in columns)
    if run.job is not None:
        row |= {field.name: getattr(run.job.config, field.name) for field in dataclasses.fields(RunConfig)}
    else:
        row |= {"log": run.setting.log, "design": run.setting.design}
    row |= {"status": "failed", "error": kept.get("failed")} | kept.get("row", {})
    row |= {
        "run": run.index, "key": run.key, "trace_sha256": run.source.sha256, "dirty_rate": float(run.setting.factor)
    }  # fmt: skip
    row |= {f"baseline_{name}": index for name, index in against.items()}
    return {column.name: row[column.name] for column in columns}


def rounds_of(run: int, kept: dict[str, Any]) -> dict[str, list[Any]]:
    """The rounds of a run as columns; none of a run that failed."""
    return _columns_of(run, kept.get("rounds") or {}, ROUND_COLUMNS)


def vcpus_of(run: int, kept: dict[str, Any]) -> dict[str, list[Any]]:
    """The vCPUs of a run as columns; none of a run that failed."""
    return _columns_of(run, kept.get("vcpus") or {}, VCPU_COLUMNS)


def _columns_of(run: int, told: dict[str, list[Any]], columns: tuple[Column, ...]) -> dict[str, list[Any]]:
    size = len(next(iter(told.values()), []))
    return {column.name: [run] * size if column is RUN else told.get(column.name, []) for column in columns}
