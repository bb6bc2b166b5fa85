"""The migration stream: how many bytes have left, which is what QEMU's rate limit and bandwidth estimate look at.

The stream counts bytes only when it flushes: when its 32 KiB buffer is full or when it has gathered 64 pieces. A page
with content adds a piece for its 8-byte header and one for itself, hence a flush every 32 such pages (131,328 bytes);
a page of zeros adds 9 bytes to the buffer, hence a flush about every 3,640. A limited migration overshoots each window
by up to one flush. A mapped file (wire.py) has a place for each page: its content is written there at once, without a
header, and a page of zeros not at all. QEMU 7.2 held what was queued against the limit (COUNT_QUEUED), and overshot by
a page at most.
Source: QEMU 10.0 migration/qemu-file.c by its described behaviour; windows of 6,041,106 bytes at 60 MB/s were measured
on real migrations and come out here to the byte.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.jit import U0, U1, U64, inlined, kernel
from replay.work import FLUSHES

FLUSHED, QUEUED, PIECES, IN_BUFFER, BUFFERED, WINDOW_START, LIMIT, COUNT_QUEUED, FREE_PS = 0, 1, 2, 3, 4, 5, 6, 7, 8
MAPPED, ZERO_SIZE = 9, 10
CHANNELS, ZEROS_TRAVEL, IN_PACKET, ZEROS_IN_PACKET, LAST_IS_ZERO, ROUNDS_SEEN, CHANNEL_BYTES = range(
    11, 18
)  # of multifd
N_STREAM = 18

BUFFER_BYTES = 32_768
MAX_PIECES = 64
PAGE_BYTES = 4_096
HEADER_BYTES = 8
ZERO_BYTES = 9
NORMAL_BYTES = HEADER_BYTES + PAGE_BYTES
SECTION_HEADER_BYTES, SECTION_FOOTER_BYTES, END_BYTES = 5, 5, 8
RAM_BYTES_BESIDE_PAGES = 707
WINDOW_MS = 100

_BUFFER, _PIECES, _U2 = U64(BUFFER_BYTES), U64(MAX_PIECES), U64(2)
_PAGE, _HEADER = U64(PAGE_BYTES), U64(HEADER_BYTES)


def new_stream() -> np.ndarray:
    """An empty stream: uint64 (18,): bytes, but for PIECES (a count), flags (0 or 1), and FREE_PS.

    Flags are IN_BUFFER, COUNT_QUEUED and MAPPED. ZERO_SIZE: what a page of zeros takes. FREE_PS: host time from which
    on another thread may use the channel; kept for live designs only. With CHANNELS pages are queued for them, or only
    those that are not zero, unless ZEROS_TRAVEL with them; IN_PACKET of them are queued (multifd.py), and
    CHANNEL_BYTES of the flushed ones went through them.
    """
    stream = np.zeros(N_STREAM, dtype=np.uint64)
    stream[ZERO_SIZE] = ZERO_BYTES
    return stream


@kernel
def flush(stream: np.ndarray, work: np.ndarray) -> None:
    """Everything queued leaves."""
    if stream[QUEUED] != U0:
        work[FLUSHES] += U1
    stream[FLUSHED] += stream[QUEUED]
    stream[QUEUED] = stream[PIECES] = stream[IN_BUFFER] = stream[BUFFERED] = U0


@kernel
def put_buffered(stream: np.ndarray, count: Any, work: np.ndarray) -> None:
    """`count` bytes through the buffer; neighbouring ones form one piece."""
    while count > U0:
        if stream[IN_BUFFER] == U0:
            stream[IN_BUFFER] = U1
            stream[PIECES] += U1
        part = min(count, _BUFFER - stream[BUFFERED])
        stream[BUFFERED] += part
        stream[QUEUED] += part
        count -= part
        if stream[BUFFERED] == _BUFFER or stream[PIECES] >= _PIECES:
            flush(stream, work)


@kernel
def put_zeros(stream: np.ndarray, count: Any, work: np.ndarray) -> None:
    """`count` pages of zeros, one after the other."""
    put_buffered(stream, stream[ZERO_SIZE] * count, work)


@kernel
def _put_mapped(stream: np.ndarray, count: Any, work: np.ndarray) -> None:
    """`count` pages to their places in a file; what was queued before them leaves first."""
    if stream[QUEUED] != U0:
        flush(stream, work)
    stream[FLUSHED] += count * _PAGE


@kernel
def put_normal(stream: np.ndarray, work: np.ndarray) -> None:
    """One page with its content."""
    if stream[MAPPED] != U0:
        _put_mapped(stream, U1, work)
        return
    put_buffered(stream, _HEADER, work)
    stream[PIECES] += U1
    stream[IN_BUFFER] = U0
    stream[QUEUED] += _PAGE
    if stream[PIECES] >= _PIECES:
        flush(stream, work)


@inlined
def put_page(stream: np.ndarray, zero: bool, work: np.ndarray) -> None:
    """One page, of zeros or with content."""
    if stream[CHANNELS] != U0 and (not zero or stream[ZEROS_TRAVEL] != U0):
        stream[IN_PACKET] += U1
        stream[LAST_IS_ZERO] = U1 if zero else U0
        stream[ZEROS_IN_PACKET] += stream[LAST_IS_ZERO]
    elif zero:
        put_zeros(stream, U1, work)
    else:
        put_normal(stream, work)


@kernel
def put_normals(stream: np.ndarray, count: Any, work: np.ndarray) -> None:
    """`count` pages with their content, one after the other, in steps of what fits before the next flush."""
    if stream[MAPPED] != U0 and count > U0:
        _put_mapped(stream, count, work)
        return
    while count > U0:
        joined = stream[IN_BUFFER]
        part = min(count, (_PIECES - stream[PIECES] + joined) // _U2)
        if part <= U1 or stream[BUFFERED] + part * _HEADER >= _BUFFER:
            put_normal(stream, work)
            count -= U1
        else:
            stream[PIECES] += _U2 * part - joined
            stream[IN_BUFFER] = U0
            stream[BUFFERED] += part * _HEADER
            stream[QUEUED] += part * (_HEADER + _PAGE)
            count -= part
            if stream[PIECES] >= _PIECES:
                flush(stream, work)


@kernel
def rate_exceeded(stream: np.ndarray) -> bool:
    """Whether the window's bytes are used up (a limit of 0 means none)."""
    used = stream[FLUSHED] - stream[WINDOW_START] + stream[COUNT_QUEUED] * stream[QUEUED]
    return stream[LIMIT] != U0 and used > stream[LIMIT]
