"""Damaged, cut, interleaved and absurd input: a refusal in words, or a valid trace and books that add up."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.errors import TraceError
from tests.importers.common import do, sample, survives
from tests.importers.test_cloud_hypervisor import LOG
from tests.importers.test_kvm_ftrace import push, reset, slot_line
from tests.importers.test_qemu import RING, binary, record, store
from tests.importers.test_table import TEXT

RINGS = b"".join(sample("perf_script.txt").splitlines(keepends=True)[:60])
LINES = {
    "kvm-ftrace": RINGS + (slot_line(0, 0, 1 << 24, 1 << 40) + push(5160_400_000, 9, 3) + reset(5160_400_001, 0, 9, 9)).encode(),
    "qemu-log": b"".join(sample("idle-512m.log").splitlines(keepends=True)[:60])
    + (slot_line(0, 0, 1 << 24, 1 << 40) + RING + store(0, 0, form="utc")).encode(),
    "cloud-hypervisor": LOG.encode(),
    "table": TEXT.encode(),
    "qemu-simpletrace": binary(
        *(record(0, 1000 + k, 0, k << 12, 8) for k in range(20)), record(4, 500, 0, 0, 1, 0, 1 << 20, 1 << 40, -1, 0, 0),
        *(record(1, 3000 + k, 2, k, k) for k in range(9)), record((1 << 64) - 2, 2000, 2), record(3, 4000, "setup"),
    ),
}  # fmt: skip
OPTIONS = {kind: {"max_dropped": 1.0} for kind in LINES}
OPTIONS["table"] |= {"columns": "t=time,page=addr>>12,vcpu=cpu & 3,source=who", "time_unit": "us", "format": "csv"}
KINDS = sorted(LINES)
NASTY = st.sampled_from(
    [b"\0", b"\xff\xfe", b"\r\n", b"\n", b"0x", b"-", b"99999999999999999999", b"18446744073709551615", b"ring", b",", b'"',
     b"\xc3", b" " * 200, b"1" * 400, b"e9", b"[LOST 7 EVENTS]", b"CPU:1 [LOST 99999999999 EVENTS]\n", b"\x28\xb5\x2f\xfd", b"."]
)  # fmt: skip


def attempt(kind: str, data: bytes, **options: object) -> dict | None:
    with tempfile.TemporaryDirectory() as folder:
        return survives(kind, data, Path(folder), **(OPTIONS[kind] | options))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=2000))
def test_random_bytes(kind, data):
    assert attempt(kind, data) is None or kind == "table"


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(seed=st.data())
def test_bytes_put_in_taken_out_and_moved(kind, seed):
    data = LINES[kind]
    for _ in range(seed.draw(st.integers(1, 6))):
        at, end = sorted(seed.draw(st.tuples(*[st.integers(0, len(data))] * 2)))
        end = min(end, at + seed.draw(st.sampled_from([0, 1, 8, 300])))
        what = seed.draw(st.sampled_from(["out", "in", "copy", "flip"]))
        if what == "out":
            data = data[:at] + data[end:]
        elif what == "in":
            data = data[:at] + seed.draw(NASTY | st.binary(max_size=9)) + data[at:]
        elif what == "copy":
            data = data[:end] + data[at:]
        else:
            data = data[:at] + bytes(byte ^ 0x10 for byte in data[at:end]) + data[end:]
    attempt(kind, data)


@pytest.mark.parametrize("kind", KINDS)
def test_cut_at_any_byte(kind):
    data = LINES[kind][:2500]
    step = 1 if len(data) < 400 else 13
    for end in range(0, len(data), step):
        attempt(kind, data[:end])


@pytest.mark.parametrize("kind", ["kvm-ftrace", "qemu-log"])
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_lines_in_any_order_and_interleaved(kind, seed):
    lines = LINES[kind].splitlines(keepends=True)
    lines = seed.draw(st.permutations(lines))[: seed.draw(st.integers(1, len(lines)))]
    at = seed.draw(st.integers(0, len(lines) - 1))
    cut = seed.draw(st.integers(0, len(lines[at])))
    lines[at] = lines[at][:cut] + lines[at - 1] + lines[at][cut:]
    counts = attempt(kind, b"".join(lines), reorder=seed.draw(st.sampled_from(["0ns", "1ms", "1h"])))
    if counts is not None:
        assert counts["read"] == b"".join(lines).count(b"\n") + (not b"".join(lines).endswith(b"\n"))


@pytest.mark.parametrize("kind", ["kvm-ftrace", "qemu-log", "cloud-hypervisor"])
def test_a_line_without_end_needs_no_memory(kind):
    line = b"A" * (5 << 20)
    counts = attempt(kind, line + b"\n" + LINES[kind] + line, **({"ring_slot": "a@0+1G"} if kind == "qemu-log" else {}))
    assert counts is not None
    assert counts["dropped"]["longer than 65,536 bytes"] == 2


@pytest.mark.parametrize("ending", [b"\r\n", b"  \n"])
def test_other_line_ends(ending, tmp_path):
    plain = do("kvm-ftrace", RINGS, tmp_path).counts
    other = do("kvm-ftrace", RINGS.replace(b"\n", ending), tmp_path).counts
    assert plain == other


def test_packed_input_is_unpacked_and_damage_in_it_is_said(tmp_path):
    plain = do("kvm-ftrace", RINGS, tmp_path).counts
    packed = {"gzip": gzip.compress(RINGS), "zstd": pa.compress(RINGS, "zstd", asbytes=True)}
    for codec, data in packed.items():
        assert do("kvm-ftrace", data, tmp_path).counts == plain
        for end in (5, len(data) // 2, len(data) - 3):
            with pytest.raises(TraceError, match=f"{codec}|no events"):
                do("kvm-ftrace", data[:end], tmp_path, max_dropped=1.0)
        broken = data[: len(data) // 2] + b"\0\0\0\0\0\0\0\0" + data[len(data) // 2 + 8 :]
        with pytest.raises(TraceError, match="damaged"):
            do("kvm-ftrace", broken, tmp_path)
    members = gzip.compress(RINGS[: RINGS.index(b"\n") + 1]) + gzip.compress(RINGS[RINGS.index(b"\n") + 1 :])
    assert do("kvm-ftrace", members, tmp_path).counts == plain


def test_a_maps_flood_is_survived(tmp_path):
    """Thousands of slots, each mapped and removed: linear, and still valid."""
    text = "".join(
        slot_line(k % 500, k << 20, 1 << 16, (1 << 40) + (k << 20)) + push(10 + k, 1 + k, 3, slot=k % 500)
        for k in range(3000)
    )
    done = do("kvm-ftrace", text, tmp_path)
    assert done.trace.metadata.n_pages == 3000 * 16
