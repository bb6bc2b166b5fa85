"""What a real host's migrations say about its costs.

From the log of a case's source: a rate-limited window is a burst of sends and a sleep, so the burst gives the time a
page takes (in the first round, and later, separately), the sleep its excess over what was asked for; syncs and the
steps of the stop phase are in it with their times. Each case gives one value a figure, its median; a fit is the median
over cases, with the residuals beside it. Zero pages are fitted from idle windows, or left as they are.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from replay.errors import TraceError, UsageError
from replay.migration.costs import Costs
from replay.migration.link import NORMAL_BYTES

MIN_CASES = 3
_PS_PER_US = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A cost table with fitted figures, and by figure the cases' own values in us."""

    table: Costs
    values_us: dict[str, dict[str, float]]

    def rows(self) -> list[dict[str, Any]]:
        """For each figure: fitted value, spread over cases (quartiles), cases, worst residual."""
        rows = []
        for name, by_case in self.values_us.items():
            values = np.array(list(by_case.values()))
            centre = float(np.median(values))
            worst = max(by_case, key=lambda case: abs(by_case[case] - centre))
            rows.append(
                {
                    "figure": name,
                    "fitted_us": round(centre, 3),
                    "quartiles_us": [round(float(q), 3) for q in np.quantile(values, (0.25, 0.75))],
                    "cases": int(values.size),
                    "worst_case": worst,
                    "worst_us": round(by_case[worst], 3),
                }
            )
        return rows

    def sources(self) -> dict[str, str]:
        """Where each fitted entry is from."""
        return {
            row["figure"]: f"fitted: median of {row['cases']} migrations, replay calibrate --from-case"
            for row in self.rows()
            if row["cases"] >= MIN_CASES
        }


def fit(folders: Sequence[Path | str], base: Costs) -> Fit:
    """Fit a host's figures from its migrations; everything else stays as in `base`.

    Raises UsageError when fewer than three cases can be used.
    """
    values: dict[str, dict[str, float]] = {}
    used = 0
    for folder in folders:
        measured = measure(Path(folder))
        used += bool(measured)
        for name, value in measured.items():
            values.setdefault(name, {})[Path(folder).name] = value
    if used < MIN_CASES:
        raise UsageError(f"a fit needs at least {MIN_CASES} usable cases, not {used}: give more case folders")
    centre = {name: float(np.median(list(by.values()))) for name, by in values.items() if len(by) >= MIN_CASES}
    fixed, prices = dict(base.fixed_ps), dict(base.prices_ps)
    if "normal_pages" in centre:
        prices["normal_pages"] = _ps(centre["normal_pages"])
    if "logged_page" in centre:
        fixed["logged_page"] = max(0, _ps(centre["logged_page"]) - prices["normal_pages"])
    if "first_copy" in centre:
        fixed["first_copy"] = max(0, _ps(centre["first_copy"]) - prices["normal_pages"])
    for name in ("oversleep", "sync", "vm_stop", "device_state", "connect", "setup"):
        if name in centre:
            fixed[name] = _ps(centre[name])
    if "sync" in centre:
        fixed["sync"] = max(0, fixed["sync"] - fixed["loop_pass"])
    table = dataclasses.replace(
        base,
        name=f"{base.name}+fit",
        description=f"{base.name} with figures fitted to {used} migrations",
        prices_ps=prices,
        fixed_ps=fixed,
    )
    return Fit(table=table, values_us=values)


def _ps(us: float) -> int:
    """Picoseconds, in whole nanoseconds' thousandths as a cost table holds them."""
    return max(0, round(us * _PS_PER_US))


def measure(folder: Path) -> dict[str, float]:
    """One case's own figures in us: empty when its log does not have them. Raises TraceError for a broken file."""
    try:
        data = json.loads((folder / "case.json").read_text())
    except (OSError, ValueError) as error:
        raise TraceError(f"{folder}/case.json: cannot be read: {error}") from None
    log = [(int(t), str(name), str(text)) for t, name, text in data.get("trace_events_src") or ()]
    plain = not {"multifd", "xbzrle", "postcopy-ram"} & set(data.get("capabilities_on", ()))
    figures: dict[str, float] = {}
    _add(figures, "oversleep", _oversleeps(log), np.mean)
    throttled = "auto-converge" in data.get("capabilities_on", ())
    if plain and not throttled:
        syncs = _syncs(log)
        _add(figures, "sync", syncs[1:-1], np.median)
        _bursts(figures, log, data)
    if plain:
        _stop(figures, log, throttled)
    _start(figures, log)
    return figures


def _add(figures: dict[str, float], name: str, values: list[float], centre: Any) -> None:
    if values:
        figures[name] = float(centre(np.array(values)))


def _oversleeps(log: list[tuple[int, str, str]]) -> list[float]:
    values, asked = [], None
    for t, name, text in log:
        if name == "migration_rate_limit_pre":
            asked = t + int(text.split()[0]) * 1000
        elif name == "migration_rate_limit_post" and asked is not None:
            values.append(float(min(max(t - asked, 0), 2_000)))
            asked = None
    return values


def _syncs(log: list[tuple[int, str, str]]) -> list[float]:
    """From each sync's start to the next iterate or stop."""
    values, begun = [], None
    for t, name, _ in log:
        if name == "migration_bitmap_sync_start":
            begun = t
        elif begun is not None and name in (
            "savevm_state_iterate",
            "migration_thread_low_pending",
            "vmstate_downtime_save",
        ):
            values.append(float(t - begun))
            begun = None
    return values


def _bursts(figures: dict[str, float], log: list[tuple[int, str, str]], data: dict[str, Any]) -> None:
    """Time of a page in bursts that hold nearly only normal pages: of the first round, and of later ones."""
    first: list[float] = []
    later: list[float] = []
    limit = int(data["parameters"]["max-bandwidth"]) // 10
    begun, syncs, burst_us, burst_syncs = None, 0, 0.0, 0
    for t, name, text in log:
        if name == "migration_bitmap_sync_start":
            syncs += 1
        elif name == "savevm_state_iterate":
            begun, burst_syncs = t, syncs
        elif name == "migration_rate_limit_pre" and begun is not None:
            burst_us, begun = float(t - begun), None
        elif name == "migrate_transferred":
            found = re.search(r"transferred (\d+)", text)
            sent = int(found[1]) if found else 0
            if burst_us and limit and limit * 0.97 <= sent <= limit * 1.03 and syncs == burst_syncs:
                pages = sent // NORMAL_BYTES
                pure = sent - pages * NORMAL_BYTES < 200
                (first if syncs == 1 else later).append(burst_us / pages) if pure or syncs > 1 else None
            burst_us = 0.0
    if (data.get("case") or {}).get("page_log"):  # QEMU logged every page that it sent, which takes time
        _add(figures, "logged_page", later, np.median)
    else:
        _add(figures, "first_copy", first, np.median)
        _add(figures, "normal_pages", later, np.median)


def _stop(figures: dict[str, float], log: list[tuple[int, str, str]], throttled: bool) -> None:
    times = {name: t for t, name, _ in log}
    low, stopped = times.get("migration_thread_low_pending"), times.get("migration_completion_vm_stop")
    if low is not None and stopped is not None and not throttled:
        figures["vm_stop"] = float(stopped - low)
    saved = [t for t, name, text in log if name == "vmstate_downtime_checkpoint" and "iterable-saved" in text]
    end = [t for t, name, text in log if name == "migrate_set_state" and "completed" in text]
    if saved and end:
        figures["device_state"] = float(end[0] - saved[0])


def _start(figures: dict[str, float], log: list[tuple[int, str, str]]) -> None:
    header = next((t for t, name, _ in log if name == "savevm_state_header"), None)
    sync = next((t for t, name, _ in log if name == "migration_bitmap_sync_start"), None)
    if header is not None and sync is not None:
        figures["connect"], figures["setup"] = float(header), float(max(0, sync - header))
