"""What a policy sees at a sync, and what it may answer.

A policy is a file in policies/, or a user's own: a `Config`, and `build(config)` giving an object with
`at_sync(record)` and `background_sync`. It decides in Python, once a sync; the answer is the new throttle in percent,
or None. One that
limits single vCPUs has `attach(limit, log)` besides: it is given the log's `limit_vcpus`, or None when it has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class SyncRecord:
    """One sync. The period is what lies between two syncs that are more than a second apart; it may hold several."""

    sync: int
    now_ms: int
    dirty_pages: int
    pending_bytes: int
    threshold_bytes: int
    period_over: bool
    period_dirty_bytes: int
    period_sent_bytes: int
    throttle_pct: int


def attach(policy: Any, log_module: Any, log: Any) -> None:
    """Give a policy that limits single vCPUs (it has `attach`) the log that does it."""
    if hasattr(policy, "attach"):
        policy.attach(getattr(log_module, "limit_vcpus", None), log)


class Policy(Protocol):
    """Decides at every sync of a running guest."""

    background_sync: bool

    def at_sync(self, record: SyncRecord) -> int | None: ...
