"""What may be said of every capture, whatever its kind. Nothing heavy is imported here: --help shows it."""

from __future__ import annotations

from dataclasses import dataclass

from replay.plugins import param


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `replay capture` for every kind."""

    duration: int = param(0, "stop after this time; 0s: at the end of what is recorded, or Ctrl-C", unit="ns", low=0)
    title: str = param("", "one line: what is recorded")
    guest: str = param("", "machine, accelerator, kernel, memory and vCPUs of the guest")
    workload: str = param("", "what runs in the guest")
    licence: str = param("LicenseRef-unknown", "licence of the data, as an SPDX identifier")
