"""What a page becomes on its way out: where zero pages are found, and whether pages go to a mapped file.

| zero pages are found | a page of zeros takes | and of the migration thread |
|---|---|---|
| by the migration thread (`legacy`) | 9 bytes | its price in the cost table |
| nowhere (`none`) | what any page takes: it is sent with its content | the price of a page with content |
| by multifd's channels (`multifd`; without them as `legacy`) | its place in a packet | what queueing a page costs |

In a file written with mapped-ram each page has its place: a page with content takes 4,096 bytes and no header, however
often it is written, and a page of zeros takes nothing. Beside pages the stream is as it always is.

Not modelled: the file's bitmap of pages, and that `none` saves the zero check, which is a part of the price of a page
with content. Source: QEMU 10.0 migration/ram.c by its described behaviour.
"""

from __future__ import annotations

import numpy as np

from replay.migration.costs import Costs
from replay.migration.guest import Guest
from replay.migration.link import MAPPED, NORMAL_BYTES, PAGE_BYTES, ZERO_BYTES, ZERO_SIZE, new_stream


def page_bytes(mapped: bool) -> tuple[int, int]:
    """Bytes of a page with content, and of one of zeros."""
    return (PAGE_BYTES, 0) if mapped else (NORMAL_BYTES, ZERO_BYTES)


def open_stream(mapped: bool) -> np.ndarray:
    """A stream that accounts for pages in this way."""
    stream = new_stream()
    stream[MAPPED] = mapped
    stream[ZERO_SIZE] = page_bytes(mapped)[1]
    return stream


def prices(costs: Costs, link_bytes_per_s: int, mapped: bool) -> np.ndarray:
    """Prices as the kernels take them."""
    return costs.price_vector(link_bytes_per_s, *page_bytes(mapped))


def hide_zeros(guest: Guest) -> None:
    """Nobody looks for zero pages: to the sender all pages hold data."""
    guest.zeros[:] = 0
    guest.empty[:] = 0
