"""The events of a case, as a source for the engine.

Three kinds. A *store* trace has the first store to every page in every short interval (1 or 10 ms), whatever QEMU
synced: it can be replayed with any sync times. An *event* trace was taken from the dirty log of that very migration:
the first write to a page after each of its syncs. Between this write and the next sync nothing is known, and a replay
that syncs a little later than the recording would find a page that is written all the time clean. Writes are therefore
put in where the trace can not have shown them (`fill`), at the page's own rate, seeded. A *recording* is an event or
store trace of another boot without a migration.

Where a replay outlives its trace, the trace's last quarter of a second follows, then its last half, its last one, two,
four, then its last five seconds again and again, none longer than half of it: soon after its end the guest does most
likely what it did last. Under a throttle, whose periods last up to a second, its last one and then its last two.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from replay.errors import TraceError
from replay.importing.ram_blocks import to_dense
from replay.migration.feed import Window
from replay.validation.case import Inputs
from replay.validation.columns import read_columns
from replay.verbs import GuestShape

TAILS_NS = (250_000_000, 500_000_000, 1_000_000_000, 2_000_000_000, 4_000_000_000, 5_000_000_000)
THROTTLED_TAILS_NS = (1_000_000_000, 2_000_000_000)  # what is older ran under a smaller throttle
CONTINUATION = "its last 0.25 to 4 s, doubling, and then its last 5 s again and again (at most half of it)"
_BETWEEN = 6
REACH = 4


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """Events of a case in dense pages: t_ns int64 (0: the migrate command), page int64, vcpu; re-arms where known."""

    t_ns: np.ndarray
    page: np.ndarray
    vcpu: np.ndarray
    end_ns: int
    bin_ns: int | None
    rearm_ns: np.ndarray | None
    rearm_source: str
    moved_ns: int | None = None  # when the guest went on at the target, in a trace that goes on there


def read_file(path: Path, inputs: Inputs) -> Recorded:
    """A raw trace file in the pages of the case's guest."""
    (t_ns, ram_page, vcpu), texts = read_columns(path, ("t_ns", "page", "vcpu"))
    if not t_ns.size:
        raise TraceError(f"{path}: holds no events")
    if t_ns.dtype.kind not in "iu" or ram_page.dtype.kind not in "iu":
        raise TraceError(f"{path}: t_ns and page must be integers, not {t_ns.dtype} and {ram_page.dtype}")
    page = to_dense(ram_page, inputs.blocks)
    kept = page >= 0
    t_ns, page, vcpu = t_ns[kept].astype(np.int64), page[kept], vcpu[kept]
    order = np.argsort(t_ns, kind="stable")
    try:
        rearm = json.loads(texts.get("resync_times_ns", "null"))
    except ValueError:
        raise TraceError(f"{path}: resync_times_ns is not a list of times") from None
    store = "plugin" in texts.get("capture_method", "")
    try:
        end_ns = int(texts.get("target_to_ns") or texts.get("source_to_ns") or int(t_ns.max()) + 1)
        moved_ns = int(texts["target_from_ns"]) if store and texts.get("target_from_ns") else None
        bin_ns = int(texts.get("bin_us", "10000")) * 1000 if store else None
    except ValueError as error:
        raise TraceError(f"{path}: a time in its metadata is not a number: {error}") from None
    return Recorded(
        t_ns=t_ns[order],
        page=page[order],
        vcpu=np.minimum(vcpu[order], inputs.n_vcpus - 1).astype(np.uint16),
        end_ns=max(end_ns, int(t_ns.max()) + 1),
        bin_ns=bin_ns,
        rearm_ns=None if rearm is None or store else np.asarray(rearm, np.int64),
        moved_ns=moved_ns,
        rearm_source="none: stores" if store else "recorded" if rearm is not None else "reconstructed",
    )


def with_unseen_pages(stores: Recorded, events: Recorded) -> Recorded:
    """A store trace with the pages of an event trace that it never has: those that the page-table walker writes."""
    seen = np.zeros(int(max(stores.page.max(), events.page.max())) + 1, bool)
    seen[stores.page] = True
    kept = ~seen[events.page]
    t_ns = np.concatenate((stores.t_ns, events.t_ns[kept]))
    order = np.argsort(t_ns, kind="stable")
    return replace(
        stores,
        t_ns=t_ns[order],
        page=np.concatenate((stores.page, events.page[kept]))[order],
        vcpu=np.concatenate((stores.vcpu, events.vcpu[kept]))[order],
    )


class Continued:
    """Recorded events from `start_ns` (on the recording's clock) on; then tails of it without end."""

    def __init__(self, recorded: Recorded, inputs: Inputs, start_ns: int = 0, tails_ns: tuple[int, ...] = TAILS_NS):
        self.shape = GuestShape(n_pages=inputs.n_pages, n_vcpus=inputs.n_vcpus)
        self._recorded, self._start = recorded, start_ns
        self.duration_ns = 1 << 62
        self._zero = inputs.zero
        self._tails_ns = tails_ns
        self.repeats = 0

    def windows(self, start_ns: int) -> Iterator[Window]:
        """What is recorded, then its tails."""
        r = self._recorded
        longest = max(1, (r.end_ns - self._start) // 2)
        first = int(np.searchsorted(r.t_ns, self._start))
        end = r.end_ns - self._start
        yield self._window(r.t_ns[first:] - self._start, first, end)
        while True:
            span = min(self._tails_ns[min(self.repeats, len(self._tails_ns) - 1)], longest)
            tail = int(np.searchsorted(r.t_ns, r.end_ns - span))
            self.repeats += 1
            yield self._window(r.t_ns[tail:] - (r.end_ns - span) + end, tail, end + span)
            end += span

    def _window(self, t_ns: np.ndarray, first: int, end_ns: int) -> Window:
        page, vcpu = self._recorded.page[first:], self._recorded.vcpu[first:]
        return Window(t_ns.astype(np.uint64), page.astype(np.uint32), vcpu.astype(np.uint16), end_ns)

    def zero_pages(self) -> np.ndarray:
        """Bitmap (n_words,) of the pages that are zero at the start."""
        words = np.zeros(self.shape.n_words * 64, bool)
        words[: self._zero.size] = self._zero
        return np.packbits(words, bitorder="little").view(np.uint64)


def rearm_times(recorded: Recorded) -> np.ndarray:
    """Re-arm times of an event trace: the recorded ones, else the latest-possible ones that its repetitions prove.

    A page that the same vCPU reports again was re-armed in between; greedily, a re-arm is put right before the first
    event that repeats one since the last re-arm.
    """
    if recorded.rearm_ns is not None:
        return recorded.rearm_ns
    key = recorded.page * 64 + recorded.vcpu
    previous = np.full(key.size, -1, np.int64)
    order = np.lexsort((np.arange(key.size), key))
    same = key[order][1:] == key[order][:-1]
    previous[order[1:][same]] = order[:-1][same]
    times, last = [], -1
    for index in np.flatnonzero(previous >= 0).tolist():
        if previous[index] > last:
            times.append(int(recorded.t_ns[index]))
            last = index - 1
    return np.asarray(times, np.int64)


def fill(recorded: Recorded, seed: int) -> Recorded:
    """An event trace with the writes put in that its re-arms can not have shown. Deterministic for a seed.

    A page that waited w after a re-arm for its write has a rate of about (m - 0.5) / (sum of its waits), taken over
    the REACH intervals before and after; until the next re-arm it is written on as a Poisson process of that rate.
    """
    rearm = rearm_times(recorded)
    edges = np.concatenate(([-1], rearm, [recorded.end_ns]))
    interval = np.searchsorted(edges, recorded.t_ns, side="right") - 1
    wait = np.maximum(recorded.t_ns - edges[interval], 1_000).astype(np.float64)
    left = (edges[interval + 1] - recorded.t_ns).astype(np.float64)
    rate = _local_rate(recorded.page, interval, wait, np.diff(edges))
    generator = np.random.default_rng([seed, 0xF111])
    # The last write before the re-arm decides whether a sync shortly before it finds the page dirty; a few more in
    # between stand for the rest, however many there are.
    last = recorded.t_ns + (left - generator.exponential(1.0, rate.size) / rate).astype(np.int64)
    again = np.flatnonzero(last > recorded.t_ns)
    count = np.minimum(generator.poisson(np.minimum(rate * left, 100.0)), _BETWEEN)
    count[last <= recorded.t_ns] = 0
    owner = np.repeat(np.arange(count.size), count)
    between = recorded.t_ns[owner] + (generator.random(owner.size) * (last - recorded.t_ns)[owner]).astype(np.int64)
    t_ns, owner = np.concatenate((last[again], between)), np.concatenate((again, owner))
    all_t = np.concatenate((recorded.t_ns, t_ns))
    order = np.argsort(all_t, kind="stable")
    return Recorded(
        t_ns=all_t[order],
        page=np.concatenate((recorded.page, recorded.page[owner]))[order],
        vcpu=np.concatenate((recorded.vcpu, recorded.vcpu[owner]))[order],
        end_ns=recorded.end_ns,
        bin_ns=None,
        rearm_ns=recorded.rearm_ns,
        rearm_source=recorded.rearm_source,
    )


def _local_rate(page: np.ndarray, interval: np.ndarray, wait: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Writes a ns of each event's page, from its events within REACH intervals; unwritten ones count in full."""
    order = np.lexsort((interval, page))
    p, k, w = page[order], interval[order], wait[order]
    length = lengths.astype(np.float64)[k]
    m, total, written = np.ones(p.size), w.copy(), length.copy()
    for step in range(1, min(2 * REACH, p.size - 1) + 1):
        for here, there in ((slice(step, None), slice(None, -step)), (slice(None, -step), slice(step, None))):
            near = (p[here] == p[there]) & (np.abs(k[here] - k[there]) <= REACH) & (k[here] != k[there])
            m[here] += near
            total[here] += np.where(near, w[there], 0.0)
            written[here] += np.where(near, length[there], 0.0)
    ends = np.concatenate(([0.0], np.cumsum(lengths.astype(np.float64))))
    window = ends[np.minimum(k + REACH + 1, lengths.size)] - ends[np.maximum(k - REACH, 0)]
    rate = np.empty(p.size)
    rate[order] = (m - 0.5) / np.maximum(total + np.maximum(window - written, 0.0), 1.0)
    return rate
