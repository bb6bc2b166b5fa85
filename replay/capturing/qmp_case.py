"""A recorded migration as a folder that `replay validate` reads: case.json and trace.parquet.

Times in it are counted from the command `migrate`. The trace is in the case's raw form: page numbers are
ram_addr / 4096. How many pages are zero when the migration begins is seen from outside: of the pages that the first
pass has been over, QEMU counts the zero ones.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import secrets
from pathlib import Path
from typing import Any

import numpy as np

from replay.capturing.qmp import Monitor
from replay.capturing.qmp_guest import PAGE, STORE, Guest
from replay.errors import TraceError, UsageError
from replay.version import __version__

CASE, TRACE = "case.json", "trace.parquet"
# QEMU adds the pages of successive syncs up and starts again when this has passed.
PERIOD_MS = 1000.0
UNSURE_MS = 0.2  # between a line of the log and the look at the clock
_LINE = re.compile(
    rb"^(?:\d+@(?P<s>\d+)\.(?P<us>\d{6}):|(?P<iso>[\dT:.-]+)Z )(?P<event>[a-z][a-z0-9_]+) ?(?P<text>.*)$"
)
_COUNT = re.compile(r"\d+")


def check_folder(folder: Path) -> None:
    """Raises UsageError when no new case can be made there."""
    if (folder / CASE).exists():
        raise UsageError(f"{folder}: holds a case already; give another folder, or remove it")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is no folder; --case makes one, or takes an empty one")
    if not folder.parent.is_dir():
        raise UsageError(f"{folder}: there is no folder {folder.parent} to make it in")


class CaseWriter:
    """Collects a migration; the two files are there after `finish`. t0_ns: the command migrate, ns since 1970."""

    def __init__(self, folder: Path, guest: Guest, t0_ns: int) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.folder = folder
        self._guest = guest
        self._t0_ns = t0_ns
        self._settings: dict[str, Any] = {}
        self._profile: list[list[int]] = []
        self._polls: list[dict[str, Any]] = []
        self._mark = f"{os.getpid()}-{secrets.token_hex(4)}.tmp"
        self._made = not folder.exists()
        folder.mkdir(exist_ok=True)
        self._temporary = folder / f"{TRACE}.{self._mark}"
        self._schema = pa.schema([("t_ns", pa.int64()), ("page", pa.uint64()), ("vcpu", pa.uint8())])
        self._parquet: Any = pq.ParquetWriter(self._temporary, self._schema, compression="zstd")
        self._first_page = np.array([block.first_page for block in guest.blocks])
        self._ram_page = np.array([block.ram_page for block in guest.blocks])

    def note_settings(self, monitor: Monitor, give_up_ns: int) -> None:
        """Parameters and capabilities with which the migration starts."""
        listed = monitor.execute("query-migrate-capabilities")
        self._settings = {
            "parameters": monitor.execute("query-migrate-parameters"),
            "capabilities_on": [item["capability"] for item in listed if item["state"]],
            "cancel_after_s": give_up_ns / 1e9,
        }

    def append(self, t_ns: Any, page: Any, vcpu: Any) -> None:
        """Events with dense pages; those before the migration are left out."""
        import pyarrow as pa

        kept = t_ns >= self._t0_ns
        if not kept.any():
            return
        block = np.searchsorted(self._first_page, page[kept], side="right") - 1
        ram_page = page[kept] - self._first_page[block] + self._ram_page[block]
        columns = [t_ns[kept] - self._t0_ns, ram_page.astype(np.uint64), vcpu[kept].astype(np.uint8)]
        self._parquet.write_table(pa.table([pa.array(column) for column in columns], schema=self._schema))

    def poll(self, since_ns: int, state: dict[str, Any]) -> None:
        """What query-migrate said at this time."""
        ram = state.get("ram")
        if ram is None:
            return
        kept = ("transferred", "remaining", "normal", "duplicate", "dirty-sync-count")
        shown = {name: ram[name] for name in kept if name in ram}
        self._polls.append({"t_ms": round(since_ns / 1e6, 1), "status": state.get("status"), **shown})
        if ram.get("dirty-sync-count") == 1:
            point = [ram["normal"] + ram["duplicate"], ram["duplicate"]]
            if self._profile[-1:] != [point]:
                self._profile.append(point)

    def finish(self, lines: list[bytes], result: dict[str, Any], before: dict[str, Any] | None, workload: str) -> None:
        """Write both files. `before`: the last answer before the migration was given up, if it was."""
        events = [found for line in lines if (found := _event(line, self._t0_ns)) is not None]
        made_at = datetime.datetime.fromtimestamp(self._t0_ns // 10**9, datetime.UTC).isoformat()
        guest, settings = self._guest, self._settings
        rounds = rounds_of(events)
        last = before or result
        cut = min((t for t, name, text in events if name == "runstate_set" and "finish-migrate" in text), default=None)
        end_ms = last.get("total-time") or (events[-1][0] / 1000 if events else 0)
        told = {
            "name": self.folder.resolve().name,
            "date": made_at,
            "tool": f"dirtyreplay {__version__}",
            "qemu_version": f"{guest.version} {guest.package}".strip(),
            "accel": "tcg",
            "machine": guest.machine,
            "case": {
                "workload": workload,
                "smp": guest.n_vcpus,
                "bandwidth_MBps": settings["parameters"]["max-bandwidth"] / 1e6,
                "downtime_ms": settings["parameters"]["downtime-limit"],
                "cancel_after_s": settings["cancel_after_s"],
            },
            "memory_bytes": guest.blocks[0].n_pages * PAGE,
            "page_size": PAGE,
            "ram_total_bytes_all_blocks": guest.memory_bytes,
            "ramblocks": list(guest.ramblock_lines),
            "capabilities_on": settings["capabilities_on"],
            "parameters": settings["parameters"],
            "t0_epoch_us": self._t0_ns // 1000,
            "result": result,
            "result_before_cancel": before,
            "cancelled": before is not None,
            "src_stop_ms": None if cut is None else cut / 1000,
            "rounds": rounds,
            "trace_events_src": events,
            "polls": self._polls,
            "guest_at_start": self._at_start(),
        }
        texts = {
            "page_size": str(PAGE), "memory_bytes": str(guest.memory_bytes), "qemu_version": told["qemu_version"],
            "accel": "tcg", "workload": workload, "smp": str(guest.n_vcpus), "case": told["name"], "date": made_at,
            "capture_method": f"trace event {STORE} (log backend) during this migration",
            "source_to_ns": str(int(end_ms * 1e6)),
            "resync_times_ns": json.dumps([int(entry["end_ms"] * 1e6) for entry in rounds]),
        }  # fmt: skip
        self._put(told, texts)

    def abandon(self) -> None:
        """Leave nothing behind, unless it is finished."""
        if self._parquet is None:
            return
        self._parquet.close()
        self._parquet = None
        self._temporary.unlink(missing_ok=True)
        if self._made and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _put(self, told: dict[str, Any], texts: dict[str, str]) -> None:
        case = self.folder / f"{CASE}.{self._mark}"
        try:
            self._parquet.add_key_value_metadata(texts)
            self._parquet.close()
            case.write_text(json.dumps(told, indent=1) + "\n")
            self._temporary.replace(self.folder / TRACE)
            case.replace(self.folder / CASE)
            self._parquet = None
        except OSError as error:
            raise TraceError(f"{self.folder}: cannot be written: {error.strerror or error}") from None
        finally:
            case.unlink(missing_ok=True)

    def _at_start(self) -> dict[str, Any]:
        """The zero pages of the first pass; none known where it was over before it was looked at."""
        if not self._profile:
            return {}
        return {"zero_pages": self._profile[-1][1], "zero_profile": self._profile}


def _event(line: bytes, t0_ns: int) -> tuple[int, str, str] | None:
    """(us since t0, event, its text) of a line of the log."""
    match = _LINE.match(line)
    if match is None:
        return None
    if match["s"] is not None:
        t_us = int(match["s"]) * 10**6 + int(match["us"])
    else:
        when = datetime.datetime.fromisoformat(match["iso"].decode() + "+00:00")
        t_us = round(when.timestamp() * 1e6)
    since_us = t_us - t0_ns // 1000
    if since_us < 0:
        return None
    return since_us, match["event"].decode(), match["text"].decode(errors="replace").strip()


def rounds_of(events: list[tuple[int, str, str]]) -> list[dict[str, Any]]:
    """The bitmap syncs: start and end in ms, pages that were new in each.

    migration_bitmap_sync_end tells the sum of the syncs of a period; QEMU begins a new one at the end of the first
    sync that is more than PERIOD_MS after the last began.
    """
    rounds: list[dict[str, Any]] = []
    start_us = None
    for t_us, name, text in events:
        if name == "migration_bitmap_sync_start":
            start_us = t_us
        elif name == "migration_bitmap_sync_end" and start_us is not None and (found := _COUNT.search(text)):
            rounds.append(
                {
                    "sync": len(rounds) + 1,
                    "start_ms": start_us / 1000,
                    "end_ms": t_us / 1000,
                    "sync_us": t_us - start_us,
                    "qemu_counter": int(found[0]),
                }
            )
            start_us = None
    summed, period_ms = 0, rounds[0]["start_ms"] if rounds else 0.0
    later = [*(entry["qemu_counter"] for entry in rounds[1:]), None]
    for entry, next_counter in zip(rounds, later, strict=False):  # of no rounds, later is one longer
        counter = entry["qemu_counter"]
        entry["dirty_pages"] = counter - summed if counter >= summed else counter
        over = _is_over(entry["end_ms"] - period_ms, counter, next_counter)
        summed, period_ms = (0, entry["end_ms"]) if over else (counter, period_ms)
    return rounds


def _is_over(spent_ms: float, counter: int, later: int | None) -> bool:
    """Whether a sync ended a period. QEMU compares whole milliseconds: within one, only the next counter tells."""
    if PERIOD_MS - UNSURE_MS < spent_ms < PERIOD_MS + 1 + UNSURE_MS and later is not None:
        return later < counter
    return spent_ms > PERIOD_MS
