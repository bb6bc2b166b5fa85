"""What may be said of every import, whatever the kind of recording. Nothing heavy is imported here: --help shows it."""

from __future__ import annotations

from dataclasses import dataclass

from replay.plugins import param


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `replay import` for every kind."""

    max_dropped: float = param(0.01, "share of events dropped or lost above which it is an error", unit="share")
    memory: int = param(0, "memory of the guest; 0: as far as the recording's pages reach", unit="bytes", low=0)
    reorder: int = param(1_000_000_000, "how far times may go back between lines", unit="ns", low=0)
    max_gap: int = param(600_000_000_000, "how far times may leap ahead between lines", unit="ns", low=1)
    title: str = param("", "one line: what was recorded")
    guest: str = param("", "machine, accelerator, kernel, memory and vCPUs of the guest")
    workload: str = param("", "what ran in the guest")
    licence: str = param("LicenseRef-unknown", "licence of the data, as an SPDX identifier")
