"""QEMU's trace events, from its log and from the binary file of its simple backend."""

from __future__ import annotations

import re
import struct

import pytest

from replay.errors import TraceError, UsageError
from tests.importers.common import SAMPLES, do, rows, sample
from tests.importers.test_kvm_ftrace import slot_line

STORE = re.compile(r"([0-9]+)@([0-9]+)\.([0-9]+):memory_notdirty_write_access 0x[0-9a-f]+ ram_addr 0x([0-9a-f]+) size")


def test_every_store_becomes_an_event(tmp_path):
    text = sample("idle-512m.log").decode()
    found = [(int(m[2]) * 10**9 + int(m[3]) * 1000, int(m[4], 16) >> 12, int(m[1])) for m in STORE.finditer(text)]
    syncs = re.findall(r"([0-9]+)\.([0-9]+):migration_bitmap_sync_(start|end)", text)
    first = min(int(s) * 10**9 + int(us) * 1000 for s, us, _ in syncs)
    threads = sorted({thread for _, _, thread in found})
    wanted = sorted(((t - first, page, threads.index(thread)) for t, page, thread in found), key=lambda row: row[0])
    done = do("qemu-log", [SAMPLES / "idle-512m.log.gz"], tmp_path)
    assert rows(done.path) == wanted
    meta = done.trace.metadata
    assert list(meta.rearm_times_ns) == [
        int(s) * 10**9 + int(us) * 1000 - first for s, us, which in syncs if which == "end"
    ]
    assert meta.provenance["made_at"].startswith("2026-11-23T")
    assert meta.provenance["import"]["threads"] == {str(t): sum(f[2] == t for f in found) for t in threads}
    assert not meta.throttled


def store(t_us: int, ram_addr: int, *, form: str = "thread", thread: int = 77) -> str:
    seconds, us = divmod(t_us, 10**6)
    stamp = {
        "thread": f"{thread}@{1718876847 + seconds}.{us:06}:",
        "utc": f"2024-06-20T09:47:{27 + seconds:02}" + (f".{us:06}" if us else "") + "Z ",
        "none": "",
    }[form]
    return f"{stamp}memory_notdirty_write_access 0xffff888003c5e010 ram_addr {ram_addr:#x} size 8\n"


@pytest.mark.parametrize("form", ["thread", "utc", "none"])
def test_forms_of_time(form, tmp_path):
    text = store(0, 0x1000, form=form) + store(3, 0x5010, form=form, thread=76) + store(2_000_000, 0x2FFF, form=form)
    done = do("qemu-log", text, tmp_path, step="1us")
    times = [0, 1000, 2000] if form == "none" else [0, 3000, 2_000_000_000]
    vcpus = [1, 0, 1] if form == "thread" else [0, 0, 0]
    assert rows(done.path) == list(zip(times, [1, 5, 2], vcpus, strict=True))
    meta = done.trace.metadata
    assert ("no times" in meta.limits) == (form == "none")
    assert ("all are given to vCPU 0" in meta.limits) == (form != "thread")
    assert meta.provenance["made_at"].startswith("2024-06-20T09:47:27") == (form != "none")


def test_threads_by_hand(tmp_path):
    text = store(0, 0x1000, thread=900) + store(1, 0x2000, thread=800)
    assert [vcpu for _, _, vcpu in rows(do("qemu-log", text, tmp_path, threads="900=0,800=3").path)] == [0, 3]
    with pytest.raises(UsageError, match="no vCPU is given for 800"):
        do("qemu-log", text, tmp_path, threads="900=0")


def test_blocks_close_the_holes(tmp_path):
    text = store(0, 0x1000) + store(1, 0x8000_2000) + store(2, 0x4000_0000)
    done = do("qemu-log", text, tmp_path, blocks="vram@2G+16M,pc.ram@0+1G", max_dropped=0.5)
    assert [page for _, page, _ in rows(done.path)] == [1, 262144 + 2]
    assert [block.name for block in done.trace.metadata.ram_blocks] == ["pc.ram", "vram"]
    assert done.counts["dropped"] == {"ram_addr in none of the --blocks": 1}
    with pytest.raises(UsageError, match="overlap"):
        do("qemu-log", text, tmp_path, blocks="a@0+2M,b@1M+2M")


RING = "".join(
    f"41231@1718876847.00{k}000:kvm_dirty_ring_page vcpu 1 fetch {30 + k} offset {k:#x}\n" for k in range(1, 6)
)
REAP = "41231@1718876847.900000:kvm_dirty_ring_reap reaped 5 pages (took 213 us)\n"


def test_ring_pages_need_one_slot(tmp_path):
    low, high = slot_line(0, 0, 1 << 20, 1 << 40), slot_line(1, 1 << 32, 1 << 20, 1 << 41)
    for maps, why in (("", "no slot map"), (low + high, "2 logged slots")):
        with pytest.raises(TraceError, match=f"does not say in which slot .* {why}.*--ring-slot"):
            do("qemu-log", maps + RING, tmp_path)
    unlogged = high.replace("flags=0x1", "flags=0x0")
    for text, options in ((unlogged + low + RING + REAP, {}), (RING + REAP, {"ring_slot": "pc.ram@4M+1M"})):
        done = do("qemu-log", text, tmp_path, **options)
        assert [row[1:] for row in rows(done.path)] == [(k, 1) for k in range(1, 6)]
        assert done.trace.metadata.rearm_times_ns == (899_000_000,)
        assert "time at which QEMU collected them" in done.trace.metadata.limits


def test_gaps_in_the_fetch_index_are_losses(tmp_path):
    text = RING.replace("fetch 34", "fetch 36").replace("fetch 35", "fetch 37")
    done = do("qemu-log", text, tmp_path, ring_slot="pc.ram@0+1M", max_dropped=0.5)
    assert done.counts["lost"] == {"gaps in a ring's index": 2}


def test_throttles_and_the_start_of_a_migration(tmp_path):
    stamp = "41260@1718876847.00000"
    text = (
        store(0, 0x1000) + stamp + "1:migrate_set_state new state setup\n"
        + stamp + "2:cpu_throttle_set set guest CPU throttled by 20%\n"
        + stamp + "3:migration_throttle \n" + stamp + "4:some_other_event whatever it says\n"
        + "qemu-system-x86_64: warning: TCG doesn't support requested feature\n"
    )  # fmt: skip
    meta = (done := do("qemu-log", text, tmp_path)).trace.metadata
    assert meta.throttled
    assert meta.migration_start_ns == 1000
    assert meta.provenance["import"]["highest_throttle_pct"] == 20
    assert done.counts["other"] == {"other events": 2, "throttle events": 2, "messages of QEMU": 1}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (store(9, 0x1000)[:-8] + "\n", "damaged: memory_notdirty_write_access"),
        (store(9, 0x1000, form="none"), "no time stamp"),
        ("2024-02-31T09:47:27Z memory_notdirty_write_access 0x0 ram_addr 0x0 size 8\n", "no such date"),
        ("77@1718876847.000009:memory_notdirty_write_acc\n", "damaged: memory_notdirty_write_access"),
        ("77@1718876847.000009:migration_bitmap_sync_end dirty_pag\n", "damaged: migration_bitmap_sync_end"),
        ("ab12 ram_addr 0x9\n", "not a line of QEMU's log"),
        ("77@1718876847.000009:kvm_set_user_memory AddrSpace#0 Slot#1\n", "damaged: kvm_set_user_memory"),
        (store(9, 1 << 60), "page beyond"),
        (store(9, 0x1000, thread=4_000_000_000), "damaged: thread id"),
    ],
)
def test_damage_is_dropped_with_its_reason(line, reason, tmp_path):
    counts = do("qemu-log", "".join(store(k, k << 12) for k in range(200)) + line, tmp_path).counts
    assert [reason in text for text in counts["dropped"]] == [True]


# The binary file, written by an independent little writer.


def mapping(number: int, name: str, order: str = "<") -> bytes:
    return struct.pack(f"{order}QQI", 0, number, len(name)) + name.encode()


def record(number: int, t_ns: int, *arguments: int | str, order: str = "<") -> bytes:
    body = b"".join(
        struct.pack(f"{order}Q", a & (1 << 64) - 1)
        if isinstance(a, int)
        else struct.pack(f"{order}I", len(a)) + a.encode()
        for a in arguments
    )
    return struct.pack(f"{order}QQQII", 1, number, t_ns, 24 + len(body), 4242) + body


def header(order: str = "<", version: int = 4) -> bytes:
    return struct.pack(f"{order}QQQ", (1 << 64) - 1, 0xF2B177CB0AA429B4, version)


NAMES = ("memory_notdirty_write_access", "kvm_dirty_ring_page", "migration_bitmap_sync_end", "migrate_set_state",
         "kvm_set_user_memory", "cpu_throttle_set", "something_else")  # fmt: skip
DROPPED = (1 << 64) - 2


def binary(*records: bytes, order: str = "<") -> bytes:
    return header(order) + b"".join(mapping(k, name, order) for k, name in enumerate(NAMES)) + b"".join(records)


@pytest.mark.parametrize("order", ["<", ">"])
def test_simple_backend(order, tmp_path):
    stores = [record(0, 1000 + 7 * k, 0xFFFF888000000000, (k % 50) << 12 | 8, 8, order=order) for k in range(3000)]
    data = binary(
        *stores[:1700], record(3, 13_000, "setup", order=order), record(2, 14_000, 5, order=order), *stores[1700:],
        record(5, 30_000, 40, order=order), record(6, 30_001, 1, 2, 3, 4, order=order), order=order,
    )  # fmt: skip
    done = do("qemu-simpletrace", data, tmp_path)
    assert rows(done.path) == [(7 * k, k % 50, 0) for k in range(3000)]
    meta = done.trace.metadata
    assert (meta.rearm_times_ns, meta.migration_start_ns, meta.throttled) == ((13_000,), 12_000, True)
    assert done.counts["other"] == {
        "names of events": 7, "other events": 2, "syncs": 1, "throttle events": 1,
    }  # fmt: skip


def test_simple_backend_ring_pages(tmp_path):
    ring = [record(1, 1000 + k, 2, k, k) for k in range(64)]
    slots = record(4, 500, 0, 0, 1, 0, 1 << 20, 1 << 40, -1, 0, 0)
    done = do("qemu-simpletrace", binary(slots, *ring), tmp_path)
    assert rows(done.path) == [(500 + k, k, 2) for k in range(64)]


def test_simple_backend_counts_what_it_dropped(tmp_path):
    stores = [record(0, 1000 + k, 0, k << 12, 8) for k in range(100)]
    data = binary(*stores, record(DROPPED, 2000, 60))
    with pytest.raises(TraceError, match=r"37.50%.*60 events were lost.*records that QEMU dropped"):
        do("qemu-simpletrace", data, tmp_path)
    assert do("qemu-simpletrace", data, tmp_path, max_dropped=0.4).counts["lost"] == {"records that QEMU dropped": 60}


def test_simple_backend_cut_anywhere(tmp_path):
    """At most the record that was cut is missing, and that is said."""
    data = binary(*(record(0, 1000 + k, 0, k << 12, 8) for k in range(6)))
    whole = len(binary())
    for end in range(whole + 56, len(data) + 1):
        counts = do("qemu-simpletrace", data[:end], tmp_path, max_dropped=0.5).counts
        assert counts["events"] == (end - whole) // 56
        assert sum(counts["dropped"].values()) == ((end - whole) % 56 > 0)


def test_simple_backend_damaged_in_the_middle(tmp_path):
    data = bytearray(binary(*(record(0, 1000 + k, 0, k << 12, 8) for k in range(100))))
    at = len(binary()) + 50 * 56
    data[at] = 9
    with pytest.raises(TraceError, match=f"nothing after this can be told apart.*at byte {at:,}"):
        do("qemu-simpletrace", bytes(data), tmp_path)


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"", "too short"), (b"x" * 40, "not a file of"), (header(version=3), "version 3"), (binary(), "no events")],
)
def test_simple_backend_refusals(data, why, tmp_path):
    with pytest.raises(TraceError, match=why):
        do("qemu-simpletrace", data, tmp_path)
