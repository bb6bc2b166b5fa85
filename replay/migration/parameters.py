"""What is asked of a migration."""

from __future__ import annotations

from dataclasses import dataclass

from replay.migration import versions
from replay.migration.multifd import Channels
from replay.migration.postcopy import Switch
from replay.migration.xbzrle import Settings


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What decides the course of a migration. Bandwidths in bytes a second, 0 for none."""

    max_bandwidth: int
    downtime_limit_ms: int
    link_bandwidth: int
    give_up_ns: int
    formulation: str  # auto, batched or stepping
    version: str = versions.DEFAULT
    recorded_throttled: bool = False
    guest_busy_pct: int = 100
    zero_page_detection: str = "multifd"  # or legacy, none
    multifd: Channels | None = None
    postcopy: Switch | None = None
    mapped_ram: bool = False
    xbzrle: Settings | None = None
