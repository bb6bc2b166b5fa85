"""What would make a guest converge at the bandwidth it has: one thing changed at a time."""

from __future__ import annotations

import dataclasses

from replay import plugins
from replay.answers.advice import Found, Probe, Remedy
from replay.answers.search import Search, bisect
from replay.config import MAX_DOWNTIME_MS, RunConfig
from replay.errors import UsageError
from replay.units import NS_PER_MS, format_bytes

XBZRLE_BYTES = 64 << 20
POSTCOPY_SHARE = 2
"""Postcopy is tried from the half of the total time on."""


def remedies(search: Search, designs: list[str], policies: list[str], best: Found | None) -> list[Remedy]:
    """More bandwidth (what the search found), designs, a longer downtime, throttles, xbzrle, postcopy; those that do
    not help too, without a value."""
    here = search.at(search.base, search.base.max_bandwidth)
    told = []
    if best is not None:
        value = f"{format_bytes(best.bandwidth or 0)}/s with {best.name}"
        told.append(Remedy(name="bandwidth", value=value, probe=best.probe))
    for name in designs:
        if name != here.design:
            told.append(_tried(search, f"design {name}", "as it comes", dataclasses.replace(here, design=name)))
    told.append(_longer(search, here))
    told += [_throttled(search, here, policy) for policy in policies]
    told.append(
        _tried(
            search, "xbzrle", "a cache of 64 MiB, if changes are small", dataclasses.replace(here, xbzrle=XBZRLE_BYTES)
        )
    )
    after = here.give_up // POSTCOPY_SHARE
    told.append(_tried(search, "postcopy", "after half of the time", dataclasses.replace(here, postcopy_after=after)))
    return told


def _asked(search: Search, config: RunConfig) -> Probe | None:
    """The setting from every moment, None where it is refused."""
    try:
        found = search.probe(config)
        return search.probe(config, whole=True) if found.enough else found
    except UsageError:
        return None


def _tried(search: Search, name: str, value: str, config: RunConfig) -> Remedy:
    probe = _asked(search, config)
    fine = probe is not None and probe.enough
    return Remedy(name=name, value=value if fine else None, probe=probe if fine else None)


def _longer(search: Search, here: RunConfig) -> Remedy:
    """The least downtime limit that is enough, to within the tolerance."""
    low, most = max(1, here.downtime_limit), min(MAX_DOWNTIME_MS, here.give_up // NS_PER_MS)

    def at(limit: int) -> RunConfig:
        return dataclasses.replace(here, downtime_limit=limit)

    high = low
    while high < most:
        low, high = high, min(most, high * 2)
        if search.probe(at(high)).enough:
            low, high = bisect(lambda limit: search.probe(at(limit)).enough, low, high, search.step)
            return Remedy(name="downtime limit", value=f"{high} ms", probe=search.probe(at(high), whole=True))
    return Remedy(name="downtime limit", value=None, probe=None)


def _throttled(search: Search, here: RunConfig, policy: str) -> Remedy:
    """The policy; where it has a maximum throttle that is not given, the least one that is enough."""
    name, value = f"policy {policy}", "as it comes"
    first = _asked(search, dataclasses.replace(here, policy=policy))
    if first is None or not first.enough:
        return Remedy(name=name, value=None, probe=None)
    parameters = {
        parameter.name: parameter for parameter in plugins.describe("policy", policy.partition(":")[0]).parameters
    }
    if "maximum" not in parameters or "maximum" in policy:
        return Remedy(name=name, value=value, probe=first)

    def at(pct: int) -> RunConfig:
        return dataclasses.replace(here, policy=f"{policy}{',' if ':' in policy else ':'}maximum={pct}")

    low, high = 0, 99
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if search.probe(at(middle)).enough else (middle, high)
    return Remedy(name=name, value=f"a throttle of at most {high} %", probe=_asked(search, at(high)))
