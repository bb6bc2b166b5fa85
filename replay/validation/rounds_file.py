"""What `replay import cloud-hypervisor` wrote, read back and checked: the passes of migrations, without pages."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replay.errors import TraceError
from replay.units import format_bytes

KIND = "cloud-hypervisor"


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A migration out of a log. `begins_ns`: from the first pass's begin. What the log does not say is None.

    `bandwidth`: bytes a second, as measured by the first pass. `rest_bytes`: left when the guest was stopped;
    `rest_ns`: the time of sending it. `missing`: what a prediction would need and the log does not say.
    """

    number: int
    sizes: tuple[int, ...]
    begins_ns: tuple[int, ...]
    bandwidth: int | None
    downtime_limit_ns: int | None
    total_ns: int | None
    downtime_ns: int | None
    rest_bytes: int | None
    rest_ns: int | None
    missing: str | None

    @property
    def memory_bytes(self) -> int:
        """The first pass sends all of it."""
        return self.sizes[0]

    def in_words(self) -> str:
        """What a log says of it, in a line."""
        rate = "" if self.bandwidth is None else f", {format_bytes(self.bandwidth)}/s"
        return f"{len(self.sizes)} passes, the first of {format_bytes(self.memory_bytes)}{rate}"


def is_summary(path: str | os.PathLike[str]) -> bool:
    """Whether a path given to `replay validate` is meant as a summary, and not as a case's folder."""
    return Path(path).is_file() or (Path(path).suffix == ".json" and not Path(path).is_dir())


def read_rounds(path: Path) -> list[Recorded]:
    """The migrations in a summary. Raises TraceError naming the file and what is wrong with it."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise TraceError(f"{path}: not JSON: {error}; {_WANTED}") from None
    if not isinstance(told, dict) or told.get("kind") != KIND:
        raise TraceError(f"{path}: JSON, but no summary of rounds; {_WANTED}")
    try:
        rounds = told["rounds"]
        numbers = sorted({int(entry["migration"]) for entry in rounds})
        if not numbers:
            raise TraceError(f"{path}: holds no round; {_WANTED}")
        return [_migration(told, number) for number in numbers]
    except KeyError as error:
        raise TraceError(f"{path}: has no {error}; {_WANTED}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise TraceError(f"{path}: a value is not of the expected kind: {error}") from None


_WANTED = "it takes what replay import cloud-hypervisor LOG -o FILE.json writes"


def _migration(told: dict[str, Any], number: int) -> Recorded:
    rounds = [entry for entry in told["rounds"] if entry["migration"] == number]
    sizes = [_whole(entry["this_round_bytes"]) for entry in rounds]
    first = rounds[0]
    bandwidth, transfer_ns = first.get("bandwidth_bytes_per_s"), first.get("transfer_ns")
    if not bandwidth and transfer_ns:
        bandwidth = sizes[0] * 10**9 // _whole(transfer_ns)
    missing = None
    if first["round"] != 0:
        missing = (
            f"the log begins with pass {first['round']}: the first pass, which tells memory and bandwidth, is missing"
        )
    elif not bandwidth:
        missing = "the first pass has no bandwidth and no time"
    elif not sizes[0]:
        missing = "the first pass sent nothing"
    if transfer_ns is None:
        transfer_ns = sizes[0] * 10**9 // _whole(bandwidth) if bandwidth else 0
    # A pass is logged when it is over.
    begin_ns = _whole(first["t_ns"]) - _whole(transfer_ns)
    begins = [0, *(_whole(entry["t_ns"]) - begin_ns for entry in rounds[:-1])]
    done, left = (_of(told.get(name), number) for name in ("completed", "converged"))
    parts = (told.get("downtime_parts") or {}) if done else {}
    return Recorded(
        number=number,
        sizes=tuple(sizes),
        begins_ns=tuple(begins),
        bandwidth=_whole(bandwidth) if bandwidth else None,
        downtime_limit_ns=_optional(done.get("downtime_limit_ns")),
        total_ns=_optional(done.get("total_ns")),
        downtime_ns=_optional(done.get("downtime_ns")),
        rest_bytes=_optional(left.get("this_round_bytes")),
        rest_ns=_optional(parts.get("final_iter_ns")),
        missing=missing,
    )


def _of(entry: Any, number: int) -> dict[str, Any]:
    """What is told of this migration: nothing, if it is of another one."""
    return entry if entry and entry["migration"] == number else {}


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no whole number from 0 on")
    return value


def _optional(value: Any) -> int | None:
    return None if value is None else _whole(value)
