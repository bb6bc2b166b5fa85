"""The kernel's dirty-ring tracepoints: what is imported is what the lines, and the rings themselves, say."""

from __future__ import annotations

import json
import re

import pytest

import replay
from replay.errors import TraceError, UsageError
from tests.importers.common import SAMPLES, do, rows, sample

WHOLE = ("ftrace_mono_2vcpu", "ftrace_local_1vcpu_userspace_exit", "perf_script", "tracecmd_report")
PUSH = re.compile(r"([0-9]+)\.([0-9]+): +[a-z:_]*ring_push: +ring ([0-9]+): .* slot ([0-9]+) offset 0x([0-9a-f]+) ")
RESET = re.compile(r"([0-9]+)\.([0-9]+): +[a-z:_]*ring_reset: +ring ([0-9]+): dirty (0x[0-9a-f]+) reset (0x[0-9a-f]+)")


def ns(seconds: str, fraction: str) -> int:
    return int(seconds) * 10**9 + int(fraction.ljust(9, "0"))


def oracle(text: str) -> list[tuple[int, int, int]]:
    """(t_ns since the first, page, ring) of every push, in order of time."""
    found = [(ns(m[1], m[2]), int(m[5], 16), int(m[3])) for m in PUSH.finditer(text)]
    first = min(t for t, _, _ in found)
    return sorted(((t - first, page, ring) for t, page, ring in found), key=lambda row: row[0])


def push(
    t_us: int, index: int, offset: int, *, ring: int = 0, slot: int = 0, used: int = 1, comm: str = "CPU 0/KVM"
) -> str:
    return (
        f"       {comm}-41231   [003] ...1.  {t_us // 10**6}.{t_us % 10**6:06}: kvm_dirty_ring_push: ring {ring}: "
        f"dirty {index:#x} reset {(index - used) & 0xFFFFFFFF:#x} slot {slot} offset {offset:#x} (used {used})\n"
    )


def reset(t_us: int, ring: int, dirty: int, index: int) -> str:
    return (
        f"  qemu-system-x86-41220   [001] ...1.  {t_us // 10**6}.{t_us % 10**6:06}: kvm_dirty_ring_reset: "
        f"ring {ring}: dirty {dirty:#x} reset {index:#x} (used {dirty - index})\n"
    )


def slot_line(slot: int, gpa: int, size: int, ua: int, *, space: int = 0, flags: int = 1, stamp: str = "") -> str:
    return (
        f"{stamp}kvm_set_user_memory AddrSpace#{space} Slot#{slot} flags={flags:#x} gpa={gpa:#x} size={size:#x} "
        f"ua={ua:#x} guest_memfd=-1 guest_memfd_offset=0x0 ret=0\n"
    )


@pytest.mark.parametrize("name", WHOLE)
def test_every_push_becomes_an_event(name, tmp_path):
    text = sample(f"{name}.txt").decode()
    done = do("kvm-ftrace", [SAMPLES / f"{name}.txt.gz"], tmp_path)
    assert rows(done.path) == oracle(text)
    assert done.counts["read"] == len(text.splitlines())
    assert not done.counts["dropped"]
    assert not done.counts["lost"]
    assert done.counts["other"]["resets"] == len(RESET.findall(text))


@pytest.mark.parametrize("name", WHOLE[:2])
def test_a_vcpus_events_are_what_was_taken_from_its_ring(name, tmp_path):
    truth = json.loads(sample(f"{name}.truth.json"))
    done = do("kvm-ftrace", sample(f"{name}.txt"), tmp_path)
    for vcpu in truth["cfg"]:
        taken = [offset for event in truth["events"] if event[1:3] == ["reap", int(vcpu)] for _, offset in event[3]]
        mine = [page for _, page, ring in rows(done.path) if ring == int(vcpu)]
        assert mine[: len(taken)] == taken
        assert len(mine) - len(taken) <= 256  # what was pushed after the last reap
    exits = done.trace.metadata.provenance["import"].get("ring_full_exits_ns", [])
    assert len(exits) == sum(truth["ring_full"].values())


@pytest.mark.parametrize("name", WHOLE)
def test_complete_resets_are_rearms(name, tmp_path):
    text = sample(f"{name}.txt").decode()
    first = min(ns(m[1], m[2]) for m in PUSH.finditer(text))
    resets = [(ns(m[1], m[2]) - first, m[3], m[4] == m[5]) for m in RESET.finditer(text)]
    n_rings = len({ring for _, ring, _ in resets})
    ioctls = [resets[at : at + n_rings] for at in range(0, len(resets), n_rings)]
    complete = [ioctl[0][0] for ioctl in ioctls if all(empty for _, _, empty in ioctl)]
    meta = do("kvm-ftrace", text, tmp_path).trace.metadata
    assert list(meta.rearm_times_ns) == complete
    assert meta.provenance["import"]["partial_resets"] == len(ioctls) - len(complete)


def test_lost_events_are_counted_twice_over_and_refused(tmp_path):
    text = sample("trace_pipe_lost.txt").decode()
    marks = sum(int(n) for n in re.findall(r"LOST ([0-9]+) EVENTS", text))
    gaps = 0
    for ring in ("0", "1"):
        indices = [int(i, 16) for i in re.findall(rf"push: ring {ring}: dirty (0x[0-9a-f]+)", text)]
        gaps += indices[-1] - indices[0] + 1 - len(indices)
    with pytest.raises(TraceError, match=rf"45.59%.*{marks} events were lost.*marks of the tracer: {marks}.*{gaps}"):
        do("kvm-ftrace", text, tmp_path)
    assert not (tmp_path / "out.parquet").exists()
    done = do("kvm-ftrace", text, tmp_path, max_dropped=0.5)
    assert done.counts["lost"] == {"marks of the tracer": marks, "gaps in a ring's index": gaps}
    assert rows(done.path) == oracle(text)
    assert f"{gaps} events lost" in done.trace.metadata.limits


def test_nanoseconds_and_missing_columns(tmp_path):
    text = (
        "cpus=2\n"
        "       CPU 0/KVM-4693  [001]  5257.620470123: kvm_dirty_ring_push:  ring 0: dirty 0x1 reset 0x0 slot 0 offset 0x1 (used 1)\n"
        "           <...>-4694  [001]  5257.620470124: kvm_dirty_ring_push:  ring 1: dirty 0x1 reset 0x0 slot 0 offset 0x2 (used 1)\n"
        " CPU 1/KVM 4694 [000] 5257.620470125: kvm:kvm_dirty_ring_push: ring 1: dirty 0x2 reset 0x0 slot 0 offset 0x3 (used 2)\n"
        " CPU 1/KVM-4694 ( 4690) [000] d..3. 5257.620470225: kvm_dirty_ring_push: ring 1: dirty 0x3 reset 0x0 slot 0 offset 0x4 (used 3)\n"
    )
    done = do("kvm-ftrace", text, tmp_path)
    assert rows(done.path) == [(0, 1, 0), (1, 2, 1), (2, 3, 1), (102, 4, 1)]


def test_slots_by_qemus_own_map(tmp_path):
    """Low memory is one run of host addresses seen through three slots; SMM's slots are the same pages."""
    base = 0x7F0000000000
    text = (
        slot_line(0, 0, 0xA0000, base, stamp="41220@1718876840.000301:")
        + slot_line(1, 0xC0000, 0x40000, base + 0xC0000, stamp="2024-06-20T09:47:27.123456Z ")
        + slot_line(2, 1 << 32, 1 << 20, base + (1 << 30))
        + slot_line(0, 0, 0xA0000, base, space=1)
        + push(1_000_000, 1, 5)
        + push(1_000_001, 2, 0, slot=1)
        + push(1_000_002, 3, 7, slot=2)
        + push(1_000_003, 4, 5, slot=65536)
        + push(1_000_004, 5, 0xA0, slot=0)  # one page beyond the slot
    )
    done = do("kvm-ftrace", text, tmp_path, max_dropped=0.5)
    assert [page for _, page, _ in rows(done.path)] == [5, 0xA0, 0xA0 + 0x40 + 7, 5]
    assert [block.n_pages for block in done.trace.metadata.ram_blocks] == [0xA0, 0x40, 0x100]
    assert done.counts["dropped"] == {"page beyond its slot, block or --memory": 1}


def test_a_slot_that_moves(tmp_path):
    text = (
        push(1_000_000, 1, 1)  # before any map: what the first one says
        + slot_line(0, 0, 1 << 20, 1 << 40)
        + push(1_000_001, 2, 1)
        + slot_line(0, 0, 0, 1 << 40)
        + slot_line(0, 0, 1 << 20, 1 << 41)
        + push(1_000_002, 3, 1)
    )
    done = do("kvm-ftrace", text, tmp_path)
    assert [page for _, page, _ in rows(done.path)] == [1, 1, 257]


def test_slots_by_hand(tmp_path):
    text = push(10, 1, 5) + push(11, 2, 0, slot=3) + push(12, 3, 1, slot=65536)
    done = do("kvm-ftrace", text, tmp_path, slots="0=pc.ram@0+640K,3=pc.ram@1M+3M", memory="8M")
    assert [page for _, page, _ in rows(done.path)] == [5, 160, 160 + 768 + 1]
    assert [tuple(block) for block in done.trace.metadata.ram_blocks] == [
        ("pc.ram", 0, 928), ("SMM slot 0", 928, 2), ("not recorded", 930, 2048 - 930),
    ]  # fmt: skip
    assert "not in the slot map (slots 65536)" in done.trace.metadata.limits.lower()


def test_without_a_map_slots_are_blocks(tmp_path):
    done = do("kvm-ftrace", push(10, 1, 9, slot=4) + push(11, 2, 3, slot=1), tmp_path)
    assert [tuple(block) for block in done.trace.metadata.ram_blocks] == [("slot 1", 0, 4), ("slot 4", 4, 10)]
    assert [page for _, page, _ in rows(done.path)] == [13, 3]


@pytest.mark.parametrize(
    "slots", ["0", "0=pc.ram", "0=a@1+4K", "0=a@0+0", "x=a@0+4K", "0=a@0+4K,0=a@0+4K", "0=a@0+32T", "0=a@0x1+0x1000"]
)
def test_maps_that_are_none(slots, tmp_path):
    with pytest.raises(UsageError, match="--slots"):
        do("kvm-ftrace", push(10, 1, 9), tmp_path, slots=slots)


def test_rings_are_vcpus_unless_said_otherwise(tmp_path):
    text = push(10, 1, 1) + push(11, 1, 2, ring=4)
    done = do("kvm-ftrace", text, tmp_path)
    assert done.trace.metadata.n_vcpus == 5
    assert "have holes" in done.trace.metadata.limits
    done = do("kvm-ftrace", text, tmp_path, vcpus="0=0,4=1")
    assert [vcpu for _, _, vcpu in rows(done.path)] == [0, 1]
    with pytest.raises(UsageError, match=r"no vCPU for ring 4; rings in the recording: \[0, 4\]"):
        do("kvm-ftrace", text, tmp_path, vcpus="0=0")


def test_gaps_late_entries_and_repeats(tmp_path):
    text = push(10, 1, 1) + push(11, 2, 2) + push(13, 5, 5) + push(12, 4, 4) + push(14, 5, 5) + push(15, 6, 6)
    with pytest.raises(TraceError, match="seen before"):
        do("kvm-ftrace", text, tmp_path)
    done = do("kvm-ftrace", text, tmp_path, max_dropped=0.5)
    assert done.counts["lost"] == {"gaps in a ring's index": 1}
    assert sum(done.counts["dropped"].values()) == 1
    assert [page for _, page, _ in rows(done.path)] == [1, 2, 4, 5, 6]


def test_indices_wrap_and_begin_anew(tmp_path):
    text = "".join(push(10 + k, (0xFFFFFFFE + k) & 0xFFFFFFFF, k) for k in range(9)) + push(30, 1, 9)
    done = do("kvm-ftrace", text, tmp_path)
    assert len(rows(done.path)) == 10
    assert not done.counts["lost"]
    assert done.counts["notes"] == {"a ring began anew": 1}


def test_batches_can_be_turned_round(tmp_path):
    """Entries of an exit, newest first, on two vCPUs that interleave."""
    text = "".join(push(100, k + 1, 9 - k) + push(100, k + 1, 90 - k, ring=1) for k in range(3)) + push(500, 4, 7)
    plain, turned = (rows(do("kvm-ftrace", text, tmp_path, reverse_batches=ns).path) for ns in ("0ns", "2us"))
    assert [page for _, page, vcpu in plain if not vcpu] == [9, 8, 7, 7]
    assert [page for _, page, vcpu in turned if not vcpu] == [7, 8, 9, 7]
    assert [page for _, page, vcpu in turned if vcpu] == [88, 89, 90]
    assert "newest first" in do("kvm-ftrace", text, tmp_path).trace.metadata.limits


def test_the_longest_time_unarmed_where_no_reset_is_complete(tmp_path):
    text = (
        push(100, 1, 1) + push(250, 2, 2, used=2) + reset(300, 0, 2, 1) + push(400, 3, 3, used=2) + reset(900, 0, 3, 2)
    )
    meta = do("kvm-ftrace", text, tmp_path).trace.metadata
    assert meta.rearm_times_ns is None
    assert meta.rearm_gap_ns == 650_000  # the second entry: pushed at 250 us, reset at 900


def test_what_else_a_buffer_holds_is_known(tmp_path):
    text = (
        "# tracer: nop\n# entries-in-buffer/entries-written: 3/45   #P:2\n\n"
        + push(10, 1, 1)
        + "       CPU 0/KVM-5990    [000] .....  0.000011: kvm_userspace_exit: reason KVM_EXIT_IO (2)\n"
        + "            bash-77      [000] .....  0.000012: tracing_mark_write: hello\n"
        + "qemu-system-x86-41220 [000] .....  0.000012: tracing_mark_write: "
        + slot_line(0, 0, 1 << 20, 1 << 40)
        + "       CPU 0/KVM-5990    [000] .....  0.000013: kvm_dirty_ring_exit: vcpu 0\n"
    )
    counts = do("kvm-ftrace", text, tmp_path).counts
    assert counts["other"] == {
        "headings": 2, "blank lines": 1, "other events": 2, "slot map lines": 1, "ring-full exits": 1,
    }  # fmt: skip
    assert counts["notes"] == {"older events overwritten in the buffer": 42}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (push(20, 2, 2).replace("used 1", "used 2"), "damaged: a ring's numbers"),
        (push(20, 2, 2)[:-6] + "\n", "damaged: kvm_dirty_ring_push"),
        (push(20, 2, 2).replace("0.000020", "123456789"), "echo mono"),
        (push(20, 2, 2).replace("0.000020", "99999.000020"), "leaps ahead"),
        (push(20, 2, 2, ring=9000), "damaged: a ring's numbers"),
        (push(20, 2, 2, slot=200_000), "beyond two address spaces"),
        (push(400, 301, 1 << 40), "page beyond its slot"),
        ("Segmentation fault\n", "not a line of"),
        ("\0" * 50 + "\n", "not a line of"),
        ("x" * 100_000 + "\n", "longer than 65,536 bytes"),
        (push(20, 2, 2).replace("CPU 0/KVM", "a name of far too many letters"), "echo mono"),
    ],
)
def test_damage_is_dropped_with_its_reason_and_place(line, reason, tmp_path):
    text = "".join(push(10 + k, 1 + k, k) for k in range(300)) + line
    counts = do("kvm-ftrace", text, tmp_path).counts
    assert len(counts["dropped"]) == 1
    assert reason in next(iter(counts["dropped"]))
    if "beyond its slot" not in reason:
        assert "input:301" in next(iter(counts["first"].values()))


def test_time_that_goes_back_is_another_recording(tmp_path):
    text = push(60_000_000, 1, 1) + push(1_000_000, 2, 2)
    with pytest.raises(TraceError, match="goes back by more than 1 s"):
        do("kvm-ftrace", text, tmp_path)
    assert len(rows(do("kvm-ftrace", text, tmp_path, reorder="2min").path)) == 2


def test_nothing_in_it(tmp_path):
    for text, why in (("", "0 lines read"), ("# tracer: nop\n", "1 headings")):
        with pytest.raises(TraceError, match=f"no events of kvm-ftrace found; .*{why}"):
            do("kvm-ftrace", text, tmp_path)


def test_the_same_file_gives_the_same_bytes(tmp_path):
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for path in paths:
        replay.import_trace("kvm-ftrace", SAMPLES / "perf_script.txt.gz", path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
