"""The offline optimum: what any design must send, and how long the guest must at least pause, with all writes known.

A sender that knows the future chooses the moment T at which the guest stops, and the order of pages. Write r(p) for a
page's last write before T (0 if there is none). The target needs the content of every page as it is at T, so each page
is read at or after r(p) at least once; whatever is sent of it before is sent in vain. Let c be the time that a page
keeps the channel (its price, or its time on the wire if that is longer), and D(a, T) the number of pages written in
[a, T]: those with r(p) >= a.

*The bound.* For every moment a the channel is kept for D(a, T) c by reads made at a or later, and it is one channel: by
T it can have done T - a of that. So after T it works for at least

    R(T) = max over a of ( D(a, T) c - (T - a) ),    and, all pages counted, R(T) >= work of all pages - (T - begin).

That holds for every order, design and history, because it only adds up the time of reads that nobody can leave out; a
page in flight at T is no exception, its rest is done after T. And it is reached: send a page as soon as its last write
is over and the channel is free. Take the last moment a before T at which the channel began to be busy without a pause:
all it sends from then on was released at a or later, so what is left at T is D(a, T) c - (T - a). Hence R(T) is not
only a bound but the optimum of this channel, and the best order is any in which no page is sent before its last write.
What is left must be sent while the guest stands still: the downtime is at least R(T) plus what every migration pays
there (stopping the vCPUs, a sync, the devices' state). Bytes: every page once, at the size it has at T.

*Guests that are slowed.* Where vCPUs are made to wait (full rings, throttles), by Z in all, the channel gains at most Z
before T, so R(T) - Z is left, T in guest time. Downtime plus Z is therefore at least R(T) in guest time, with the
vCPU that was slowed most: the *pause*, which is what designs and policies are compared by. Slowing moves it, and does
not make it smaller.

*The bandwidth limit* (max-bandwidth) holds only while the guest runs. QEMU's limiter lets a window of 100 ms send its
bytes at once and run over by a flush; in any span of t so at most (t + 1 ms) / 100 ms + 2 windows' bytes leave. The
same sum over bytes instead of time bounds the pages that are left; each keeps the channel for c in the downtime. That
allowance of two windows makes it a bound, not an optimum. Threads that send what they dirtied themselves do not heed
the limit; runs in which they did are compared with the bound of the channel alone (`limited` False).

*Pages of zeros* are sent in a few bytes, at any time. A page that is written is no such page any more; senders see that
up to a quarter of a second later (`guest.py`), so writes that come sooner after a page's first one are not counted.

Not bounded: xbzrle (pages do not travel whole), postcopy (pages travel after the downtime), and runs that lose pages.
Cost: O(events) with hardly more than a constant, once for the channel and once for the limit (kernels/pressure.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from replay.config import RunConfig
from replay.errors import UsageError
from replay.kernels import pressure
from replay.kernels.pressure import LAST, NEXT, TOP, TURNED, Line
from replay.migration import link, multifd, wire
from replay.migration.costs import Costs
from replay.migration.feed import Source
from replay.units import PS_PER_MS, PS_PER_NS
from replay.work import NORMAL_PAGES, ZERO_PAGES

WINDOW_PS = link.WINDOW_MS * PS_PER_MS
FLUSH_BYTES = link.MAX_PIECES // 2 * link.NORMAL_BYTES
LAG_PS = 250 * PS_PER_MS
"""A sender's view of which pages are zero: an iterate of 51 ms, a sleep of a window, one that spins; rounded up."""
CURVE = 400
_PLACES = 1 << 20
_Array = Any


@dataclass(frozen=True, kw_only=True)
class Channel:
    """What pages cost at least. Times in ps; a page of data, then one of zeros; `limit_*`: their share of a limited
    window, 0 without a limit; `allowance_ps`: what the limiter may run ahead."""

    page_ps: int
    zero_ps: int
    limit_page_ps: int
    limit_zero_ps: int
    allowance_ps: int
    lag_ps: int
    begin_ps: int
    stop_ps: int
    page_bytes: int
    zero_bytes: int
    fixed_bytes: int

    @property
    def limit_share(self) -> float:
        """Channel time that a page left over by the limit takes, per time of its window."""
        if not self.limit_page_ps:
            return 0.0
        share = self.page_ps / self.limit_page_ps
        return min(share, self.zero_ps / self.limit_zero_ps) if self.limit_zero_ps else share

    def unlimited(self) -> Channel:
        """The same for senders that do not heed the limit, nor wait for the setup."""
        return dataclasses.replace(self, limit_page_ps=0, limit_zero_ps=0, allowance_ps=0, begin_ps=0)


def channel_of(config: RunConfig, costs: Costs, n_pages: int) -> Channel:
    """The channel of a run. Raises UsageError for what is not bounded."""
    for name, given in (("--xbzrle", config.xbzrle), ("--postcopy-after", config.postcopy_after)):
        if given is not None:
            raise UsageError(f"no bound with {name}: it sends pages in another way; leave it out")
    fixed, price = costs.fixed_ps, wire.prices(costs, config.link, config.mapped_ram)
    page_ps, zero_ps = int(price[NORMAL_PAGES]), int(price[ZERO_PAGES])
    page_bytes, zero_bytes = wire.page_bytes(config.mapped_ram)
    over = FLUSH_BYTES
    if config.multifd_channels:
        page_bytes, zero_bytes = link.PAGE_BYTES, 0
        on_wire = page_bytes * 10**12 // config.link if config.link else 0
        each = costs.prices_ps["normal_pages"] // config.multifd_channels
        page_ps, zero_ps = max(fixed["multifd_page"], each, on_wire), 0
        over += (config.multifd_channels + 2) * (multifd.HEADER_BYTES + multifd.PACKET_PAGES * link.PAGE_BYTES)
    window = config.max_bandwidth // (1000 // link.WINDOW_MS)
    limited = window + over if window else 0
    return Channel(
        page_ps=page_ps,
        zero_ps=zero_ps,
        limit_page_ps=WINDOW_PS * page_bytes // limited if limited else 0,
        limit_zero_ps=WINDOW_PS * zero_bytes // limited if limited else 0,
        allowance_ps=2 * WINDOW_PS + PS_PER_MS if limited else 0,
        lag_ps=LAG_PS + 64 * page_ps,
        begin_ps=fixed["connect"] + fixed["setup"] + n_pages * fixed["setup_page"] + fixed["sync"],
        stop_ps=fixed["vm_stop"] + fixed["sync"] + fixed["device_state"],
        page_bytes=page_bytes,
        zero_bytes=zero_bytes,
        fixed_bytes=sum(costs.fixed_bytes.values()),
    )


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A switchover: when the guest stops (ps after the migrate command), the least downtime then, the least bytes, and
    how many of the guest's writes come before it."""

    at_ps: int
    downtime_ps: int
    total_bytes: int
    writes: int

    def ends_ps(self, stop_ps: int) -> int:
        """When such a migration is over, at the earliest; stop_ps: of the channel."""
        return self.at_ps + max(0, self.downtime_ps - stop_ps)


@dataclass(frozen=True, kw_only=True)
class Hindsight:
    """The optimum of one guest on one channel.

    best: the switchover of least downtime (the earliest of equals). soonest: the earliest one that keeps the limit,
    None if there is none until `horizon_ps`. asked: the optimum at each moment that was asked for. curve: (T, least
    downtime around it) in ps, for a picture.
    """

    channel: Channel
    best: Moment
    soonest: Moment | None
    asked: list[Moment]
    curve: list[tuple[int, int]]
    horizon_ps: int
    n_pages: int
    zero_pages: int
    events: int


def hindsight(
    source: Source,
    channel: Channel,
    *,
    start_ns: int = 0,
    loop: bool = True,
    until_ps: int,
    limit_ps: int,
    all_data: bool = False,
    asked: Sequence[int] = (),
) -> Hindsight:
    """The optimum over every switchover up to `until_ps`; until nothing new can come, if that is sooner.

    limit_ps: the downtime that `soonest` keeps. asked: moments in ps. all_data: nobody looks for pages of zeros.
    """
    zero = source.zero_pages()
    zero = np.zeros_like(zero) if all_data else zero
    n_zero = int(np.bitwise_count(zero).sum())
    guest = (source.shape.n_pages, n_zero)
    sums = [_Sum(channel.page_ps, channel.zero_ps, channel.begin_ps, 1.0, channel.lag_ps, zero, guest)]
    if channel.limit_page_ps:
        sums.append(_Sum(channel.limit_page_ps, channel.limit_zero_ps, -channel.allowance_ps, channel.limit_share,
                         channel.lag_ps, zero, guest))  # fmt: skip
    first_ps = max(part.base for part in sums)
    period_ps = source.duration_ns * PS_PER_NS
    horizon = max(min(until_ps, max(0, first_ps) + 3 * period_ps + channel.lag_ps), *asked, 1)
    search = _Search(channel, sums, limit_ps - channel.stop_ps, horizon, asked)
    events = 0
    for at_ps, page, begin, end in spans(source, start_ns, loop, horizon):
        search.look(at_ps, page, begin, end)
        events += at_ps.size
    return search.found(guest, events)


def spans(source: Source, start_ns: int, loop: bool, horizon: int) -> Iterator[tuple[_Array, _Array, int, int]]:
    """(times in ps after the migrate command, pages, from, to) up to the horizon, without a gap."""
    shift, begin = -start_ns, 0
    while begin < horizon:
        for window in source.windows(start_ns if shift == -start_ns else 0):
            at_ps = (window.t_ns.astype(np.int64) + shift) * PS_PER_NS
            end = min(horizon, (window.end_ns + shift) * PS_PER_NS)
            keep = int(np.searchsorted(at_ps, end, "right"))
            yield at_ps[:keep], window.page[:keep], begin, end
            begin = end
            if begin >= horizon:
                return
        shift += source.duration_ns
        if not loop:
            yield np.zeros(0, np.int64), np.zeros(0, np.uint32), begin, horizon
            return


class _Sum:
    """One sum of what must leave: of channel time, or of a limited window's bytes as time."""

    def __init__(
        self, page_ps: int, zero_ps: int, begin_ps: int, share: float, lag_ps: int, zero: _Array, guest: tuple[int, int]
    ) -> None:
        n_pages, n_zero = guest
        self.page_ps, self.share, self.lag_ps = page_ps, share, lag_ps
        self.ahead_ps = max(0, -begin_ps)
        self.turn_ps = page_ps - zero_ps
        self.base = (n_pages - n_zero) * page_ps + n_zero * zero_ps + begin_ps
        self._zero = zero.copy()
        self._first_ps = np.zeros(n_pages, np.int64)
        self._behind = np.zeros(n_pages, np.uint32)
        self._line = _new_line(_PLACES)

    def add(self, at_ps: _Array, page: _Array) -> tuple[_Array, _Array]:
        """(time up to which the channel has work, less what R falls by; pages turned) before each event and after all.

        Both are (events + 1,) int64; the first is what R(T) + T is at least, before `share`.
        """
        tops, turned = (np.empty(at_ps.size + 1, np.int64) for _ in range(2))
        row = 0
        while row < at_ps.size:
            row = int(
                pressure.press(
                    at_ps, page, row, self.page_ps, self.lag_ps, self._zero, self._first_ps, self._behind, self._line,
                    tops, turned,
                )
            )  # fmt: skip
            if row < at_ps.size:
                self._line = _compacted(self._line, self._behind)
        tops[-1], turned[-1] = self._line.state[TOP], self._line.state[TURNED]
        return np.maximum(tops - self.ahead_ps, self.base + turned * self.turn_ps), turned

    def left(self, until: _Array, at: _Array) -> _Array:
        """R at moments `at` for what `add` gave."""
        behind = np.maximum(until - at, 0)
        return behind if self.share == 1.0 else np.maximum(np.floor(behind * self.share).astype(np.int64) - 1, 0)

    def by(self, until: _Array, left_ps: int) -> _Array:
        """From which moment on at most `left_ps` is left."""
        return until - (left_ps if self.share == 1.0 else int((left_ps + 2) / self.share) + 1)


class _Search:
    """The best and the soonest switchover among the spans that it is shown."""

    def __init__(self, channel: Channel, sums: list[_Sum], allowed_ps: int, horizon: int, asked: Sequence[int]) -> None:
        self.channel, self.sums, self.allowed_ps, self.horizon = channel, sums, allowed_ps, horizon
        self.best: tuple[int, int, int, int] | None = None  # (left, at, turned, writes before)
        self.soonest: tuple[int, int, int, int] | None = None
        self.seen = 0
        self.asked = [min(max(0, moment), horizon) for moment in asked]
        self.answers: dict[int, tuple[int, int, int]] = {}  # of (left, turned, writes before)
        self.bins = np.full(CURVE, np.iinfo(np.int64).max)
        self.edges = [horizon * step // CURVE for step in range(CURVE + 1)]

    def look(self, at_ps: _Array, page: _Array, begin: int, end: int) -> None:
        """All switchovers from `begin` to `end`: between two events what is left falls, so the ends of gaps count."""
        told = [part.add(at_ps, page) for part in self.sums]
        turned = told[0][1]
        begins = np.concatenate([[begin], at_ps])
        ends = np.concatenate([at_ps, [end]])
        left = self._left([until for until, _ in told], ends)
        least = int(left.argmin())
        if self.best is None or left[least] < self.best[0]:
            at = self._from(
                [until[least : least + 1] for until, _ in told], int(left[least]), begins[least : least + 1]
            )
            self.best = (int(left[least]), min(int(at[0]), int(ends[least])), int(turned[least]), self.seen + least)
        if self.soonest is None and self.allowed_ps >= 0 and left[least] <= self.allowed_ps:
            gap = int((left <= self.allowed_ps).argmax())
            at = self._from([until[gap : gap + 1] for until, _ in told], self.allowed_ps, begins[gap : gap + 1])
            moment = np.minimum(at, ends[gap])
            there = self._left([until[gap : gap + 1] for until, _ in told], moment)
            self.soonest = (int(there[0]), int(moment[0]), int(turned[gap]), self.seen + gap)
        places = np.minimum(ends * CURVE // max(1, self.horizon), CURVE - 1)
        np.minimum.at(self.bins, places, left)
        for moment in {*self.asked, *self.edges}:
            if begin <= moment <= end:
                index = int(np.searchsorted(at_ps, moment, "right"))
                there = self._left([until[index : index + 1] for until, _ in told], np.array([moment]))
                self.answers[moment] = (int(there[0]), int(turned[index]), self.seen + index)
        self.seen += at_ps.size

    def _left(self, until: list[_Array], at: _Array) -> _Array:
        return np.max([part.left(each, at) for part, each in zip(self.sums, until, strict=True)], axis=0)

    def _from(self, until: list[_Array], left_ps: int, begins: _Array) -> _Array:
        return np.max([begins, *(part.by(each, left_ps) for part, each in zip(self.sums, until, strict=True))], axis=0)

    def found(self, guest: tuple[int, int], events: int) -> Hindsight:
        n_pages, n_zero = guest

        def moment(left: int, at: int, turned: int, writes: int) -> Moment:
            data = n_pages - n_zero + turned
            size = data * self.channel.page_bytes + (n_pages - data) * self.channel.zero_bytes
            return Moment(
                at_ps=at,
                downtime_ps=left + self.channel.stop_ps,
                total_bytes=size + self.channel.fixed_bytes,
                writes=writes,
            )

        assert self.best is not None
        curve = [
            (self.edges[step], min(int(self.bins[step]), self.answers[self.edges[step]][0]) + self.channel.stop_ps)
            for step in range(CURVE)
        ]
        return Hindsight(
            channel=self.channel,
            best=moment(*self.best),
            soonest=None if self.soonest is None else moment(*self.soonest),
            asked=[moment(self.answers[at][0], at, *self.answers[at][1:]) for at in self.asked],
            curve=curve,
            horizon_ps=self.horizon,
            n_pages=n_pages,
            zero_pages=n_zero,
            events=events,
        )


def _new_line(places: int) -> Line:
    """An empty line."""
    state = np.zeros(5, np.int64)
    state[LAST], state[TOP] = -1, pressure.NOTHING
    return Line(np.zeros(places, np.int64), np.zeros(places, np.int64), np.zeros(places, np.int64), state)


def _compacted(line: Line, behind: _Array) -> Line:
    """The line with the places of its candidates only, twice as long if they fill more than half; moves `behind`."""
    used = int(line.state[NEXT])
    alive = line.follow[:used] == np.arange(used)
    rank = np.concatenate([[0], np.cumsum(alive)])
    for first in range(0, behind.size, 1 << 20):
        part = behind[first : first + (1 << 20)]
        part[:] = rank[part]
    kept, size = int(rank[-1]), line.follow.size
    made = _new_line(size * 2 if kept > size // 2 else size)
    made.follow[:kept] = np.arange(kept)
    earlier = line.before[:used][alive]
    made.before[:kept] = np.where(earlier < 0, -1, rank[np.maximum(earlier, 0)])
    made.gap_ps[:kept] = line.gap_ps[:used][alive]
    made.state[:] = line.state
    made.state[NEXT], made.state[LAST] = kept, rank[int(line.state[LAST])]
    return made
