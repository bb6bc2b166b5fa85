"""A recorded migration as a folder: what was asked for and captured (`Inputs`), and how it went (`Actual`).

The two are read apart and kept apart. A prediction is made from `Inputs` alone: parameters and capabilities, the RAM
block table, the zero map of the start, the version of QEMU, when the migration would be cancelled, and the trace.
Nothing of `result` or `rounds` is reachable from it; `Actual` is what a prediction is then compared with.

Two generations are read. The first has a coarse zero map (`guest_at_start.zero_profile`: pages passed and zero pages
among them, in page order) and traces that end when the source stops; the second has an exact map of pc.ram
(`zero_start.parquet`) and store traces that begin before and go on after the migration.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from replay.errors import TraceError
from replay.importing.ram_blocks import Block, numbered
from replay.migration.link import PAGE_BYTES
from replay.validation.guest_memory import zero_map

KINDS = ("store", "event")
FILES = {"store": "stores.parquet", "event": "trace.parquet"}
DEFAULT_GIVE_UP_S = 60
_JIFFIES_PER_S = 100


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything that a prediction may use. `zero` (n_pages,) bool, `traces` by kind."""

    name: str
    folder: Path
    workload: str
    qemu_version: str
    n_vcpus: int
    blocks: tuple[Block, ...]
    parameters: dict[str, Any]
    capabilities: tuple[str, ...]
    give_up_ns: int
    postcopy_after_ns: int | None
    busy_pct: int
    page_log: bool = False  # QEMU was made to log every page that it sent
    zero: np.ndarray
    zero_source: str
    traces: dict[str, Path]

    @property
    def n_pages(self) -> int:
        """Pages of all blocks."""
        return sum(block.n_pages for block in self.blocks)


@dataclass(frozen=True, kw_only=True)
class Actual:
    """How the migration went; figures are None where the case does not say (all, when it has no result).

    Times in ms, the throttle in %.
    """

    converged: bool | None
    total_ms: int | None
    downtime_ms: int | None
    syncs: int | None
    normal_pages: int | None
    zero_pages: int | None
    transferred_bytes: int | None
    round_dirty_pages: tuple[int, ...]
    round_start_ms: tuple[float, ...]
    throttle_pct: tuple[int, ...]
    postcopy_pages: int | None = None
    postcopy_faults: int | None = None
    postcopy_ms: int | None = None  # from the stop of the source to the end


@dataclass(frozen=True, kw_only=True)
class Case:
    """A recorded migration."""

    inputs: Inputs
    actual: Actual


def read_case(folder: str | Path) -> Case:
    """The case in `folder`. Raises TraceError naming the file and what is wrong with it."""
    path = Path(folder) / "case.json"
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise TraceError(f"{path}: not JSON: {error}") from None
    try:
        return Case(inputs=_inputs(path.parent, data), actual=_actual(data))
    except TraceError:
        raise
    except KeyError as error:
        raise TraceError(f"{path}: has no {error}") from None
    except (TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        raise TraceError(f"{path}: a value is not of the expected kind: {error}") from None


def _inputs(folder: Path, data: dict[str, Any]) -> Inputs:
    blocks = _blocks(data)
    asked = data["case"]
    traces = {kind: folder / name for kind, name in FILES.items() if (folder / name).is_file()}
    zero, zero_source = zero_map(folder, data, blocks, traces)
    after_ms = data.get("postcopy_start_ms")  # when the command was given; by plan, where that was not noted
    if after_ms is None and asked.get("postcopy_after_s") is not None:
        after_ms = float(asked["postcopy_after_s"]) * 1000
    return Inputs(
        name=str(data.get("case_name") or data.get("name") or folder.name),
        folder=folder,
        workload=str(asked.get("workload", "")),
        qemu_version=str(data["qemu_version"]).split()[0],
        n_vcpus=int(asked.get("smp", 1)),
        blocks=blocks,
        parameters=dict(data["parameters"]),
        capabilities=tuple(name for name in data.get("capabilities_on", ()) if name != "events"),
        give_up_ns=int(float(asked.get("cancel_after_s") or DEFAULT_GIVE_UP_S) * 1e9),
        postcopy_after_ns=None if after_ms is None else int(float(after_ms) * 1e6),
        busy_pct=_busy_pct(data),
        page_log=bool(asked.get("page_log")),
        zero=zero,
        zero_source=zero_source,
        traces=traces,
    )


def _busy_pct(data: dict[str, Any]) -> int:
    """How busy the guest's busiest vCPU can have been before the migration, in percent: 100 where that is unknown."""
    before = (data.get("guest_cpu_jiffies_per_s") or {}).get("before")
    return 100 if before is None else min(100, max(1, round(float(before) * 100 / _JIFFIES_PER_S)))


def _blocks(data: dict[str, Any]) -> tuple[Block, ...]:
    rows = [line.split() for line in data.get("ramblocks", [])[1:]]
    used = [(row[0], int(row[3], 16) // PAGE_BYTES, int(row[4], 16) // PAGE_BYTES, -1) for row in rows]
    blocks = numbered(used or [("pc.ram", 0, int(data["memory_bytes"]) // PAGE_BYTES, -1)])
    n_pages = sum(block.n_pages for block in blocks)
    if not 0 < n_pages < 1 << 32:
        raise TraceError(f"the RAM block table has {n_pages} pages")
    return blocks


def _actual(data: dict[str, Any]) -> Actual:
    result, rounds = data.get("result") or {}, data.get("rounds") or []
    converged = result["status"] == "completed" if result else None
    last = result if converged else data.get("result_before_cancel") or {}
    ram = last.get("ram", {})
    throttle = [
        int("".join(ch for ch in text if ch.isdigit()))
        for _, event, text in data.get("trace_events_src", ())
        if event == "cpu_throttle_set"
    ]
    target, stop_ms = data.get("postcopy_target") or {}, data.get("src_stop_ms")
    return Actual(
        converged=converged,
        total_ms=result.get("total-time") if converged else None,
        downtime_ms=result.get("downtime") if converged else None,
        syncs=ram.get("dirty-sync-count") if converged else None,
        normal_pages=ram.get("normal"),
        zero_pages=ram.get("duplicate"),
        transferred_bytes=ram.get("transferred"),
        round_dirty_pages=tuple(int(entry["dirty_pages"]) for entry in rounds),
        round_start_ms=tuple(float(entry["start_ms"]) for entry in rounds),
        throttle_pct=tuple(throttle),
        postcopy_pages=target["placed"] + target.get("placed_zero", 0) if "placed" in target else None,
        postcopy_faults=target.get("faults"),
        postcopy_ms=round(result["total-time"] - stop_ms) if converged and target and stop_ms is not None else None,
    )
