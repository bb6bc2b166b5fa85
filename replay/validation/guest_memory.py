"""Where a case's guest has its memory, and which pages of it hold only zeros when the migration starts.

An exact map is taken where there is one. A coarse one says how many zero pages there are up to certain pages; which
ones is then a guess: data are first the pages that the trace shows written before the first pass gets there (the map
counts pages when they are passed), then those furthest up in each part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from replay.errors import TraceError
from replay.importing.ram_blocks import Block, to_dense
from replay.migration.link import NORMAL_BYTES
from replay.validation.columns import read_columns

_UNLIMITED_PAGES_PER_S = 60_000
# Which pages of the firmware's blocks hold data (SeaBIOS on q35): the same in every guest looked at.
_FIRMWARE_DATA = {
    "pc.bios": (17, 64),
    "/rom@etc/acpi/tables": (0, 3),
    "/rom@etc/table-loader": (0, 1),
    "/rom@etc/acpi/rsdp": (0, 1),
}


def zero_map(
    folder: Path, data: dict[str, Any], blocks: tuple[Block, ...], traces: dict[str, Path]
) -> tuple[np.ndarray, str]:
    """(n_pages,) bool, True where a page is zero at the start; and where that is known from."""
    zero = np.ones(blocks[-1].first_page + blocks[-1].n_pages, bool)
    start = folder / "zero_start.parquet"
    at_start = data.get("guest_at_start") or {}
    firmware = _firmware(blocks)
    source = "zero_start.parquet"
    if start.is_file():
        _apply_runs(start, zero)
    elif "zero_pages" in at_start:
        source = "guest_at_start.zero_profile" if at_start.get("zero_profile") else "guest_at_start.zero_pages"
        points = [*at_start.get("zero_profile", ()), [zero.size, int(at_start["zero_pages"])]]
        bandwidth = int(data["parameters"]["max-bandwidth"])
        first_write_s = _first_write_s(traces, blocks, zero.size)
        for page, is_zero in firmware.items():
            first_write_s[page] = np.nan if is_zero else -1.0
        _apply_profile(points, zero, first_write_s, bandwidth)
    else:
        zero[:] = False
        return zero, "none: every page counts as data"
    if source == "zero_start.parquet":
        zero[list(firmware)] = list(firmware.values())
    return zero, source


def _firmware(blocks: tuple[Block, ...]) -> dict[int, bool]:
    """Whether each page of the firmware's blocks is zero."""
    known: dict[int, bool] = {}
    for block in blocks:
        low, high = _FIRMWARE_DATA.get(block.name, (0, 0))
        if high:
            known |= {block.first_page + page: not low <= page < high for page in range(block.n_pages)}
    return known


def _apply_runs(path: Path, zero: np.ndarray) -> None:
    first, count, flag = read_columns(path, ("first_page", "n_pages", "zero"))[0]
    for start, length, value in zip(first.tolist(), count.tolist(), flag.tolist(), strict=True):
        if start + length > zero.size:
            raise TraceError(f"{path}: a run of {length} pages from {start} reaches beyond the guest's memory")
        zero[start : start + length] = value


def _first_write_s(traces: dict[str, Path], blocks: tuple[Block, ...], n_pages: int) -> np.ndarray:
    """When each page is first written after the migrate command, in seconds; infinity: never."""
    first = np.full(n_pages, np.inf)
    for path in list(traces.values())[:1]:
        t_ns, ram_page = read_columns(path, ("t_ns", "page"))[0]
        page = to_dense(ram_page, blocks)
        kept = (page >= 0) & (t_ns >= 0)
        np.minimum.at(first, page[kept], t_ns[kept] / 1e9)
    return first


def _apply_profile(points: list[list[int]], zero: np.ndarray, first_write_s: np.ndarray, bandwidth: int) -> None:
    """Mark as many pages zero up to each point as it says; `first_write_s` is NaN where a page is known to be zero."""
    pages_per_s = bandwidth / NORMAL_BYTES if bandwidth >= 10 else _UNLIMITED_PAGES_PER_S
    passed = zeros_before = 0
    for pages, zeros in points:
        end = min(pages, zero.size)
        if end <= passed:
            continue
        n_data = end - passed - min(max(zeros - zeros_before, 0), end - passed)
        reached_s = (passed - zeros_before + n_data) / pages_per_s
        wait = first_write_s[passed:end]
        position = np.arange(end - passed)
        order = np.lexsort((-position, np.where(wait <= reached_s, wait, np.inf), np.isnan(wait)))
        zero[passed:end] = True
        zero[passed + order[:n_data]] = False
        passed, zeros_before = end, zeros


def with_touched(zero: np.ndarray, touched: np.ndarray, seed: int) -> np.ndarray:
    """The zero map of another boot's guest: what it writes holds data, and as many pages do in all, where that fits.

    A guest puts the same working set elsewhere at each boot. `zero` (n_pages,) bool has the pages of this one's, which
    are not known apart: others that hold data give way, drawn at random.
    """
    other = zero.copy()
    other[touched] = False
    surplus = int(zero.sum() - other.sum())
    spare = np.setdiff1d(np.flatnonzero(~zero), touched)
    drawn = np.random.default_rng([seed, 0x2E05]).permutation(spare)[:surplus]
    other[drawn] = True
    return other
