"""The order in which hindsight sends: one that reaches the bound of replay.answers.hindsight.

Each page once, in the order of last writes before the switchover (pages never written first, by number), as soon as its
last write is over and the channel is free. What the channel has left when the guest stops is then R(T), as proved
there; a limit by max-bandwidth is not heeded, so with one the times are the soonest that this channel could keep.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from replay.answers.hindsight import Channel, Moment, spans
from replay.errors import ReplayError
from replay.files import replacing
from replay.migration.feed import Source
from replay.units import PS_PER_NS

if TYPE_CHECKING:
    import polars as pl

NEVER_WRITTEN = -1


@dataclass(frozen=True, kw_only=True)
class Order:
    """The pages as they are sent: numbers, times of the last writes before the switchover (-1: none) and of the sends,
    in ps after the migrate command, and whether they are sent as zero. `left_ps`: the channel's work after the stop."""

    page: np.ndarray
    last_write_ps: np.ndarray
    send_ps: np.ndarray
    zero: np.ndarray
    left_ps: int
    stop_ps: int

    @property
    def sent_after_the_stop(self) -> int:
        """Pages whose sending begins when the guest has stopped."""
        return int((self.send_ps >= self.stop_ps).sum())

    @property
    def frame(self) -> pl.DataFrame:
        """One row a page as sent: `page`, `last_write_ns` (null: none), `send_ns`, `zero`, `in_downtime`."""
        import polars as pl

        written = self.last_write_ps // PS_PER_NS
        return pl.DataFrame(
            {
                "page": self.page, "last_write_ns": written, "send_ns": self.send_ps // PS_PER_NS, "zero": self.zero,
                "in_downtime": self.send_ps >= self.stop_ps,
            }
        ).with_columns(pl.when(pl.col("last_write_ns") >= 0).then(pl.col("last_write_ns")))  # fmt: skip

    def save(self, path: str | os.PathLike[str], about: dict[str, Any]) -> None:
        """Write the frame as Parquet, `about` in its metadata. Raises ReplayError."""
        try:
            with replacing(Path(path)) as temporary:
                self.frame.write_parquet(temporary, metadata={"replay.order": json.dumps(about, sort_keys=True)})
        except OSError as error:
            raise ReplayError(f"{path}: cannot be written: {error.strerror or error}") from error


def order(
    source: Source, channel: Channel, moment: Moment, *, start_ns: int = 0, loop: bool = True, all_data: bool = False
) -> Order:
    """How a sender that knows the future would have sent for that switchover. O(events + pages log pages)."""
    n_pages = source.shape.n_pages
    last = np.full(n_pages, NEVER_WRITTEN, np.int64)
    wanted = moment.writes
    for at_ps, page, _, _ in spans(source, start_ns, loop, moment.at_ps + 1):
        last[page[:wanted]] = at_ps[:wanted]  # of equal pages the last one stays
        wanted -= min(wanted, at_ps.size)
    zero = np.zeros(n_pages, bool)
    if not all_data:
        zero = np.unpackbits(source.zero_pages().view(np.uint8), bitorder="little")[:n_pages].astype(bool)
    zero &= last == NEVER_WRITTEN
    sequence = np.argsort(last, kind="stable")
    cost = np.where(zero[sequence], channel.zero_ps, channel.page_ps)
    before = np.cumsum(cost) - cost
    send = np.maximum.accumulate(np.maximum(last[sequence], channel.begin_ps) - before) + before
    return Order(
        page=sequence, last_write_ps=last[sequence], send_ps=send, zero=zero[sequence],
        left_ps=max(0, int(send[-1] + cost[-1]) - moment.at_ps), stop_ps=moment.at_ps,
    )  # fmt: skip
