"""Text that grows while it is read, as events with dense pages; an importer reads its lines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np

from replay import plugins
from replay.importing.report import Report
from replay.importing.streams import Chunk
from replay.importing.tally import Tally

READ_BYTES = 1 << 20


class Follower(ABC):
    """Stands in for the importer's input files: each `read` hands it the lines that have come meanwhile.

    `others`: the lines of other events, if they are kept. `strangers`: events of no known vCPU or RAM block, left out.
    `behind`: more had come than was read. `report` is complete when all of the `rest` is read.
    """

    def __init__(self, name: str, importer: str, options: dict[str, str]) -> None:
        self.report = Report(max_gap_ns=1 << 62)
        self.others: list[bytes] = []
        self.strangers = 0
        self.behind = False
        self._name = name
        self._ending = self._ended = False
        plugin = plugins.configured("importer", importer, options)
        self._batches = plugin.module.read(plugin.config, self, self.report)

    @abstractmethod
    def _new(self) -> bytes:
        """What has come, complete lines or not; READ_BYTES or more of it when there may be more."""

    @abstractmethod
    def _dense(self, events: Any) -> tuple[Any, Any, Any]:
        """(t_ns, page, vcpu), int64 arrays, of an array of importing.report.EVENT; strangers are counted, left out."""

    @abstractmethod
    def close(self) -> None:
        """Give back what is held."""

    def read(self) -> tuple[Any, Any, Any]:
        """What has come since the last time: (t_ns, page, vcpu), int64 arrays, in the order of the text."""
        batch = next(self._batches, None)
        self._ended = batch is None
        if batch is None or not len(batch):
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)
        return self._dense(batch.records())

    def rest(self) -> Iterator[tuple[Any, Any, Any]]:
        """The last of it, as `read` returns it."""
        self._ending = True
        while not self._ended:
            yield self.read()

    def chunks(self, tally: Tally) -> Iterator[Chunk]:
        """What the importer reads from: the lines that have come, again and again until all of the `rest` is read."""
        rest = b""
        for number in count(1):
            new = self._new()
            self.behind = len(new) >= READ_BYTES
            if self._ending and not new:
                return
            *lines, rest = (rest + new).split(b"\n")
            tally.read += len(lines)
            yield Chunk(f"{self._name}, read {number}", 1, list(lines))
