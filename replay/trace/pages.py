"""Kernels that go through a column of a Parquet file, page by page, and that look at events once they are there.

A column of a row group lies in a buffer; the kernels take any number of values at a time and keep where they are in a
small array, a cursor. A value of DELTA_BINARY_PACKED is the one before plus the least difference of its block plus a
few bits; eight bytes are loaded from wherever these begin, and as many values taken out as they hold, up to four. O(1)
an event, about 1 ns a value. Pages have 20,000 values, too few for each to be opened in Python, which took as long as
decoding them. Bad for other encodings, which break the cursor: the format is parquet-format's, as TraceWriter uses it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.jit import DISABLED, U0, U1, U64, intrinsic, ir, kernel, make_array, types
from replay.trace.schema import SOURCE_NAMES, SOURCE_SHIFT

SLACK = 16  # bytes after a column that may be loaded, never used
NOWHERE = np.uint16(0xFFFF)  # no vCPU: a trace has 8191 at most
DATA, DICTIONARY = 0, 2  # PageType of parquet-format
PLAIN, DELTA, INDICES = 0, 5, 8  # Encoding: PLAIN, DELTA_BINARY_PACKED, RLE_DICTIONARY

# A cursor: where it is in its column, (24,) uint64. BIT: of the first value of the run, counted from the data's begin.
POSITION, END, LEFT, VALUE, LEAST, WIDTHS, MINI, INDEX, PER_MINI, N_MINI, FIRST, BROKEN, RUN, PACKED, BIT = map(
    U64, range(15)
)
KIND, ENCODING, COUNT, BYTES, WHOLE_BYTES, OUTER = map(U64, range(15, 21))  # of the page's header; OUTER: its structs
CURSOR = 24
_U2, _U3, _U4, _U5, _U7, _U8, _U12, _U14, _U15, _U16 = map(U64, (2, 3, 4, 5, 7, 8, 12, 14, 15, 16))
_U28, _U57, _U63, _U127 = map(U64, (28, 57, 63, 127))
_VCPUS, _SOURCES, _N_SOURCES = U64((1 << SOURCE_SHIFT) - 1), U64(SOURCE_SHIFT), U64(len(SOURCE_NAMES))


@intrinsic
def _load64(typing_context: Any, data: Any, index: Any) -> Any:
    """Eight bytes from any of them on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(64).as_pointer())
        return builder.load(place, align=1)

    return types.uint64(data, types.uint64), generate


def _load64_in_python(data: np.ndarray, index: Any) -> Any:
    return U64(int.from_bytes(data[int(index) : int(index) + 8].tobytes(), "little"))


load64: Any = _load64_in_python if DISABLED else _load64
"""load64(data, index): little-endian. The eight bytes must exist."""


@kernel
def _varint(data, at):
    """The varint at at[POSITION], which moves behind it. data: (at[END] + slack,) uint8; at: a cursor."""
    value, shift = U0, U0
    while at[POSITION] < at[END] and shift <= _U63:
        byte = U64(data[at[POSITION]])
        at[POSITION] += U1
        value |= (byte & _U127) << shift
        if byte <= _U127:
            return value
        shift += _U7
    at[BROKEN] = U1
    return U0


@kernel
def _zigzag(value):
    """The signed number that a zigzag varint means, modulo 2^64."""
    return (value >> U1) ^ (U0 - (value & U1))


@kernel
def read_header(data, size, at):
    """Read the header of the page at at[POSITION], a struct in Thrift's compact protocol. data: see take_delta."""
    at[END] = size
    at[KIND] = at[ENCODING] = at[COUNT] = at[BYTES] = at[WHOLE_BYTES] = _U127
    depth, number = U0, U0
    while at[BROKEN] == U0 and at[POSITION] < size:
        head = U64(data[at[POSITION]])
        at[POSITION] += U1
        kind = head & _U15
        if head == U0:
            if depth == U0:
                break
            depth -= U1
            number = at[OUTER + depth]
            continue
        number = number + (head >> _U4) if head > _U15 else _zigzag(_varint(data, at))
        if _U4 <= kind <= _U4 + _U2:
            value = _zigzag(_varint(data, at))
            if depth == U0 and number <= _U3:
                at[KIND if number == U1 else WHOLE_BYTES if number == _U2 else BYTES] = value
            elif depth == U1 and (at[OUTER] == _U5 or at[OUTER] == _U7) and number <= _U2:
                at[COUNT if number == U1 else ENCODING] = value
        elif kind == _U8:
            at[POSITION] += min(_varint(data, at), size)
        elif kind == _U12 and depth <= U1:
            at[OUTER + depth] = number
            depth += U1
            number = U0
        elif kind != U1 and kind != _U2:
            at[BROKEN] = U1
    if at[BYTES] != at[WHOLE_BYTES] or at[BYTES] > size or at[POSITION] + at[BYTES] > size or at[COUNT] > U64(1 << 40):
        at[BROKEN] = U1
    at[END] = min(at[POSITION] + at[BYTES], size)


@kernel
def _open_delta(data, size, at):
    at[POSITION] = at[END]
    read_header(data, size, at)
    at[LEFT] = at[COUNT]
    block = _varint(data, at)
    at[N_MINI] = _varint(data, at)
    if _varint(data, at) != at[COUNT] or at[COUNT] == U0 or at[KIND] != U64(DATA) or at[ENCODING] != U64(DELTA):
        at[BROKEN] = U1
    at[VALUE] = _zigzag(_varint(data, at))
    at[FIRST] = U1
    at[MINI] = at[N_MINI]
    if at[N_MINI] == U0 or at[N_MINI] > U64(512) or block > U64(1 << 16) or block % (at[N_MINI] * _U8) != U0:
        at[BROKEN] = U1
    else:
        at[PER_MINI] = block // at[N_MINI]


@kernel
def take_delta(data, size, at, out, n):
    """n values into out. data: (size + slack,) uint8, a column; at: its cursor; out: (m,) uint64 or uint32, m >= n."""
    done = U0
    while done < n:
        if at[LEFT] == U0:
            _open_delta(data, size, at)
        if at[BROKEN] != U0:
            return
        if at[FIRST] == U1:
            out[done] = at[VALUE]
            at[FIRST] = U0
            at[LEFT] -= U1
            done += U1
            continue
        if at[MINI] == at[N_MINI]:
            at[LEAST] = _zigzag(_varint(data, at))
            at[WIDTHS] = at[POSITION]
            at[POSITION] += at[N_MINI]
            at[MINI] = at[INDEX] = U0
            if at[POSITION] > at[END]:
                at[BROKEN] = U1
                return
        width = U64(data[at[WIDTHS] + at[MINI]])
        end = at[POSITION] + ((at[PER_MINI] * width) >> _U3)
        if width > _U57 or end > at[END]:
            at[BROKEN] = U1
            return
        count = min(at[PER_MINI] - at[INDEX], n - done, at[LEFT])
        bit = (at[POSITION] << _U3) + at[INDEX] * width
        mask, least, value = (U1 << width) - U1, at[LEAST], at[VALUE]
        index, stop = done, done + count
        if width <= _U14:  # a loaded word has 57 bits of use
            while index + _U4 <= stop:
                word = load64(data, bit >> _U3) >> (bit & _U7)
                one = value + least + (word & mask)
                two = one + least + ((word >> width) & mask)
                three = two + least + ((word >> (width + width)) & mask)
                value = three + least + ((word >> (width + width + width)) & mask)
                out[index], out[index + U1], out[index + _U2], out[index + _U3] = one, two, three, value
                index += _U4
                bit += width << _U2
        elif width <= _U28:
            while index + _U2 <= stop:
                word = load64(data, bit >> _U3) >> (bit & _U7)
                one = value + least + (word & mask)
                value = one + least + ((word >> width) & mask)
                out[index], out[index + U1] = one, value
                index += _U2
                bit += width + width
        while index < stop:
            value += least + ((load64(data, bit >> _U3) >> (bit & _U7)) & mask)
            out[index] = value
            index += U1
            bit += width
        at[VALUE] = value
        at[LEFT] -= count
        done += count
        at[INDEX] += count
        if at[INDEX] == at[PER_MINI]:
            at[POSITION] = end
            at[MINI] += U1
            at[INDEX] = U0


@kernel
def _open_indexed(data, size, at, most):
    """Read the header of a page of indices below `most`, a power of two."""
    at[POSITION] = at[END]
    read_header(data, size, at)
    at[LEFT] = at[COUNT]
    at[RUN] = U0
    if at[COUNT] == U0 or at[KIND] != U64(DATA) or at[ENCODING] != U64(INDICES) or at[POSITION] >= at[END]:
        at[BROKEN] = U1
        return
    at[WIDTHS] = U64(data[at[POSITION]])
    at[POSITION] += U1
    if at[WIDTHS] > _U16 or (U1 << at[WIDTHS]) > most:
        at[BROKEN] = U1


@kernel
def take_indexed(data, size, at, table, out, n):
    """n values into out. table: (2^k,) uint16, what an index means; out: (m,) uint16, m >= n. Else as take_delta."""
    done, highest = U0, np.uint16(0)
    while done < n:
        if at[LEFT] == U0:
            _open_indexed(data, size, at, U64(table.size))
        if at[BROKEN] != U0:
            return
        width = at[WIDTHS]
        if at[RUN] == U0:
            head = _varint(data, at)
            at[PACKED], at[BIT] = head & U1, at[POSITION] << _U3
            if at[PACKED] == U1:
                at[RUN] = min(head >> U1, size) << _U3
                at[POSITION] += min(head >> U1, size) * width
            else:
                at[RUN] = head >> U1
                at[POSITION] += (width + _U7) >> _U3
            if at[POSITION] > at[END] or at[RUN] == U0:
                at[BROKEN] = U1
                return
        count = min(at[RUN], n - done, at[LEFT])
        bit, step, mask = at[BIT], width * at[PACKED], (U1 << width) - U1
        index, stop = done, done + count
        if width <= _U14:
            while index + _U4 <= stop:
                word = load64(data, bit >> _U3) >> (bit & _U7)
                out[index] = one = table[word & mask]
                out[index + U1] = two = table[(word >> step) & mask]
                out[index + _U2] = three = table[(word >> (step + step)) & mask]
                out[index + _U3] = four = table[(word >> (step + step + step)) & mask]
                highest = max(highest, max(max(one, two), max(three, four)))
                index += _U4
                bit += step << _U2
        while index < stop:
            out[index] = one = table[(load64(data, bit >> _U3) >> (bit & _U7)) & mask]
            highest = max(highest, one)
            index += U1
            bit += step
        if highest == NOWHERE:
            at[BROKEN] = U1
        at[BIT] = bit
        at[RUN] -= count
        at[LEFT] -= count
        done += count


@kernel
def sound(t_ns, page, vcpu, last_ns, end_ns, n_pages, n_vcpus):
    """Whether events are in order from last_ns to end_ns, within memory and vCPUs. (n,) uint64, uint32, uint16."""
    wrong, before, highest, most = U0, last_ns, U0, U0
    for index in range(t_ns.size):
        wrong |= U64(t_ns[index] < before)
        before = t_ns[index]
    for index in range(page.size):
        highest = max(highest, U64(page[index]))
    for index in range(vcpu.size):
        most = max(most, U64(vcpu[index]))
    return wrong == U0 and before <= end_ns and highest < n_pages and most < n_vcpus


@kernel
def summed(t_ns, page, origin, end_ns, n_pages, n_vcpus, sums):
    """As `sound`, for events in memory: (n,) uint64, uint32, uint16; sums: (3,) uint64, becomes their sums."""
    wrong, before, highest, most = U0, U0, U0, U0
    times, pages, origins = U0, U0, U0
    for index in range(t_ns.size):
        wrong |= U64(t_ns[index] < before)
        before = t_ns[index]
        times += before
    for index in range(page.size):
        highest = max(highest, U64(page[index]))
        pages += U64(page[index])
    for index in range(origin.size):
        vcpu = U64(origin[index]) & _VCPUS
        wrong |= U64((U64(origin[index]) >> _SOURCES) >= _N_SOURCES)
        most = max(most, vcpu)
        origins += U64(origin[index])
    sums[0], sums[1], sums[2] = times, pages, origins
    return wrong == U0 and before <= end_ns and highest < n_pages and most < n_vcpus
