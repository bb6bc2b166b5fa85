"""multifd: pages leave in packets through several channels, each with a thread of its own.

The migration thread only queues pages. A packet holds up to 128 of them; the page that finds it full hands it to a free
channel first, and waits for one if there is none. A packet is 1,344 bytes of header and 4,096 for each page that is not
zero; its channel looks for zeros, reads and sends, one page after the other. Its bytes count when all of it has left,
so a limited window carries the packets that were on their way besides: at 60 MB/s, 14 of 525,632 bytes with two
channels. A page of an earlier round might be overtaken by its newer version: between two rounds (ROUND_FLUSHES counts
where a design sees one) and at the end the migration thread hands over what is queued, sends a packet of only a header
through each channel, and waits until all have arrived.

Channels share the wire (`--link`) and nothing else: that they share cores is not modelled. Not for designs whose
marks reach the sender at once: they have no rounds. Source: QEMU 10.0 migration/multifd.c by its described behaviour;
packets a window, headers and 64 bytes of greeting a channel were measured on a real migration, 2,402 packets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from replay.jit import U0, U1, U64, kernel
from replay.migration.costs import Costs
from replay.migration.link import (
    CHANNEL_BYTES,
    CHANNELS,
    END_BYTES,
    FLUSHED,
    IN_PACKET,
    LAST_IS_ZERO,
    N_STREAM,
    PAGE_BYTES,
    ROUNDS_SEEN,
    ZEROS_IN_PACKET,
    ZEROS_TRAVEL,
    flush,
    put_buffered,
)
from replay.units import PS_PER_S
from replay.work import MULTIFD_PACKETS, NORMAL_PAGES, ROUND_FLUSHES, ZERO_PAGES

PACKET_PAGES = 128
HEADER_BYTES = 320 + 8 * PACKET_PAGES
GREETING_BYTES = 64
_FULL, _HEADER, _PAGE, _TWO = U64(PACKET_PAGES), U64(HEADER_BYTES), U64(PAGE_BYTES), U64(2)
NORMAL_PS, ZERO_PS, BYTE_PS, WIRE_FREE_PS = N_STREAM, N_STREAM + 1, N_STREAM + 2, N_STREAM + 3
_FIRST = N_STREAM + 4  # from here on for each channel: when its packet has left, and the packet's bytes


@dataclass(frozen=True, kw_only=True)
class Channels:
    """`count` channels; `find_zeros`: they look for pages of zeros, not the migration thread."""

    count: int
    find_zeros: bool


def with_channels(stream: np.ndarray, channels: Channels, costs: Costs, link_bytes_per_s: int) -> np.ndarray:
    """The stream with idle channels behind it, their greetings sent: uint64 (22 + 2 * count,).

    Times in ps, BYTE_PS in ps a byte on the wire.
    """
    grown = np.zeros(_FIRST + 2 * channels.count, dtype=np.uint64)
    grown[:N_STREAM] = stream
    grown[CHANNELS], grown[ZEROS_TRAVEL] = channels.count, channels.find_zeros
    grown[NORMAL_PS] = costs.prices_ps["normal_pages"] + costs.fixed_ps["first_copy"]
    grown[ZERO_PS] = costs.prices_ps["zero_pages"]
    grown[BYTE_PS] = -(-PS_PER_S // link_bytes_per_s) if link_bytes_per_s else 0
    for counter in (FLUSHED, CHANNEL_BYTES):
        grown[counter] += np.uint64(GREETING_BYTES * channels.count)
    return grown


def price_queueing(price: np.ndarray, channels: Channels, costs: Costs) -> None:
    """What a page costs the migration thread itself."""
    queueing = costs.fixed_ps["multifd_page"]
    price[NORMAL_PAGES] = queueing
    if channels.find_zeros:
        price[ZERO_PAGES] = queueing


def end_first_copies(stream: np.ndarray, extra_ps: int) -> None:
    """From the second sync on a page costs its channel less."""
    stream[NORMAL_PS] -= np.uint64(extra_ps)


@kernel
def _arrive(stream: np.ndarray, size: Any) -> None:
    stream[FLUSHED] += size
    stream[CHANNEL_BYTES] += size


@kernel
def settle(stream: np.ndarray, now: Any) -> None:
    """Count the packets that have left by `now` (ps)."""
    for at in range(_FIRST, stream.size, 2):
        if stream[at + 1] != U0 and stream[at] <= now:
            _arrive(stream, stream[at + 1])
            stream[at + 1] = U0


@kernel
def _hand_over(stream: np.ndarray, normal: Any, zero: Any, now: Any, work: np.ndarray) -> Any:
    """Give a packet of so many pages to the channel that is free first; returns when it took it."""
    free = _FIRST
    for at in range(_FIRST, stream.size, 2):
        if stream[at + 1] == U0:
            free = at
            break
        if stream[at] < stream[free]:
            free = at
    if stream[free + 1] != U0:
        now = max(now, stream[free])
    settle(stream, now)
    size = _HEADER + normal * _PAGE
    stream[WIRE_FREE_PS] = max(stream[WIRE_FREE_PS], now) + size * stream[BYTE_PS]
    stream[free] = max(now + normal * stream[NORMAL_PS] + zero * stream[ZERO_PS], stream[WIRE_FREE_PS])
    stream[free + 1] = size
    work[MULTIFD_PACKETS] += U1
    return now


@kernel
def hand_over_full(stream: np.ndarray, now: Any, work: np.ndarray) -> Any:
    """If a page was queued behind a full packet, hand that over; returns when the migration thread goes on."""
    if stream[IN_PACKET] <= _FULL:
        return now
    zero = stream[ZEROS_IN_PACKET] - stream[LAST_IS_ZERO]
    now = _hand_over(stream, _FULL - zero, zero, now, work)
    stream[IN_PACKET], stream[ZEROS_IN_PACKET] = U1, stream[LAST_IS_ZERO]
    return now


@kernel
def flush_channels(stream: np.ndarray, now: Any, work: np.ndarray) -> Any:
    """Everything queued leaves, then a header through each channel; returns when all have arrived."""
    zero = stream[ZEROS_IN_PACKET]
    if stream[IN_PACKET] != U0:
        now = _hand_over(stream, stream[IN_PACKET] - zero, zero, now, work)
    stream[IN_PACKET] = stream[ZEROS_IN_PACKET] = U0
    for at in range(_FIRST, stream.size, 2):
        if stream[at + 1] != U0:
            now = max(now, stream[at])
    settle(stream, now)
    count = U64(stream.size - _FIRST) // _TWO
    _arrive(stream, count * _HEADER)
    work[MULTIFD_PACKETS] += count
    put_buffered(stream, U64(END_BYTES), work)
    flush(stream, work)
    return max(now, stream[WIRE_FREE_PS]) + count * _HEADER * stream[BYTE_PS]


@kernel
def flush_between_rounds(stream: np.ndarray, now: Any, work: np.ndarray) -> Any:
    """Flush the channels if the design has begun a new round since; returns when the migration thread goes on."""
    if stream[ROUNDS_SEEN] == work[ROUND_FLUSHES]:
        return now
    stream[ROUNDS_SEEN] = work[ROUND_FLUSHES]
    return flush_channels(stream, now, work)
