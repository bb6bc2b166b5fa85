"""Work that one thread does ahead of another: decoding the next windows while a replay applies the last ones.

Decoding, checking and the kernels all release the GIL, so that on two cores the longer of the two is what it takes.
"""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from replay.errors import ReplayError

DEPTH = 8
_T = TypeVar("_T")


class _End:
    """No more items; `error` is what ended them, if anything did."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def ahead(items: Iterator[_T], afterwards: Callable[[], Any]) -> Iterator[_T]:
    """The same items in the same order, made by a thread that is at most DEPTH of them ahead.

    What `items` raises is raised here, at its place. The thread ends with the items, or when this iterator is closed
    or dropped; at the end of the items it calls `afterwards`, whose ReplayErrors are left to
    those who call it again.
    """
    ready: queue.Queue[_T | _End] = queue.Queue(DEPTH)
    unwanted = threading.Event()

    def make() -> None:
        try:
            for item in items:
                ready.put(item)
                if unwanted.is_set():
                    return
            ready.put(_End())
        except BaseException as error:  # it belongs to the thread that waits for the next item
            ready.put(_End(error))
            return
        with contextlib.suppress(ReplayError):
            afterwards()

    thread = threading.Thread(target=contextvars.copy_context().run, args=(make,), daemon=True, name="ahead")
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        unwanted.set()
        while not ready.empty():  # so that a thread that waits for room goes on, and sees that it is unwanted
            ready.get_nowait()
