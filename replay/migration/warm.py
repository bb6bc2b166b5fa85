"""Compile (or load) every kernel that a pair of log and design needs, before anything is measured."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from replay.kernels import memory
from replay.migration import costs, precopy
from replay.migration.feed import Feed, Window
from replay.migration.multifd import Channels
from replay.migration.parameters import Parameters
from replay.migration.postcopy import Switch
from replay.migration.xbzrle import Settings
from replay.plugins import Plugin
from replay.verbs import GuestShape

_warm: set[tuple[type, type, str, bool, bool, bool]] = set()


class _TinyGuest:
    """Two hundred pages, two vCPUs, one write a millisecond for a tenth of a second."""

    shape = GuestShape(n_pages=200, n_vcpus=2)
    duration_ns = 100_000_000

    def windows(self, start_ns: int) -> Iterator[Window]:
        t_ns = np.arange(start_ns, self.duration_ns, 1_000_000, dtype=np.uint64)
        page = (np.arange(t_ns.size) % 200).astype(np.uint32)
        yield Window(t_ns, page, (np.arange(t_ns.size) % 2).astype(np.uint16), self.duration_ns)

    def zero_pages(self) -> np.ndarray:
        return memory.ones_up_to(100, self.shape.n_words)


def warm(
    log: Plugin,
    design: Plugin,
    formulation: str,
    *,
    cached: bool = False,
    channels: bool = False,
    switches: bool = False,
) -> None:
    """Run a tiny replay of this pair once a process, so that no measured time holds a compilation.

    `cached`: with xbzrle, `channels`: with multifd, `switches`: with a switch to postcopy.
    """
    key = (log.module.State, design.module.State, formulation, cached, channels, switches)
    if key in _warm:
        return
    if switches:  # the tiny replay switches before it sends anything
        warm(log, design, formulation, cached=cached, channels=channels)
    guest = _TinyGuest()
    parameters = Parameters(
        max_bandwidth=1 << 30,
        downtime_limit_ms=300,
        link_bandwidth=0,
        give_up_ns=10_000_000_000,
        formulation=formulation,
        xbzrle=Settings(cache_bytes=4096, share_ppm=0, delta_bytes=0) if cached else None,
        multifd=Channels(count=1, find_zeros=True) if channels else None,
        postcopy=Switch(after_ms=0) if switches else None,
    )
    feed = Feed(guest, start_ns=0, lanes=3, loop=True, closed_loop=True, check=True)
    table = costs.load(costs.DEFAULT)
    precopy.Precopy(log.build(guest.shape), design.build(guest.shape), feed, parameters, table, 200).run()
    _warm.add(key)
