"""QEMU's log read while it grows, and the rounds of a migration out of its lines; no QEMU needed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from replay.capturing.qmp_case import check_folder, rounds_of
from replay.capturing.qmp_follow import READ_BYTES
from replay.capturing.qmp_guest import Guest
from replay.capturing.qmp_log import LogReader, alone
from replay.errors import TraceError, UsageError
from replay.importing.ram_blocks import Block

STORE = b"%d@100.%06d:memory_notdirty_write_access 0xffff888003c5e010 ram_addr 0x%x size 8\n"


def guest(log: Path) -> Guest:
    """Two vCPUs in threads 11 and 12, a block of 1 MiB, a hole, and one of 64 KiB with separators in its name."""
    return Guest(
        kvm=False, process=1, version="10.0.2", package="", machine="q35", n_vcpus=2, threads={11: 0, 12: 1}, ramblock_lines=(),
        log=log, migration={},
        blocks=(
            Block(name="pc.ram", ram_page=0, first_page=0, n_pages=256),
            Block(name="/rom@etc/a,b+c=d", ram_page=512, first_page=256, n_pages=16),
        ),
    )  # fmt: skip


def rest(reader: LogReader) -> list[tuple[int, int, int]]:
    return [event for events in reader.rest() for event in rows(events)]


def rows(events) -> list[tuple[int, int, int]]:
    return list(zip(*(column.tolist() for column in events), strict=True))


def test_lines_come_in_pieces(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(STORE % (11, 1, 0x1000))  # before the capture
    with contextlib.closing(LogReader(guest(log), keep_others=True)) as reader, log.open("ab", buffering=0) as file:
        line = STORE % (12, 5, 0x2008)
        file.write(line[:40])
        assert rows(reader.read()) == []
        file.write(line[40:] + b"9@100.000006:migration_bitmap_sync_end dirty_pages 3\n" + STORE % (11, 7, 512 * 4096))
        assert rows(reader.read()) == [(100_000_005_000, 2, 1), (100_000_007_000, 256, 0)]
        file.write(STORE % (99, 8, 0x1000) + STORE % (11, 9, 300 * 4096) + b"half a line")
        assert rest(reader) == []
    assert reader.strangers == 1
    assert reader.report.tally.dropped == {"ram_addr in none of the --blocks": 1}
    assert list(reader.report.rearm_ns) == [100_000_006_000]
    assert reader.others == [b"9@100.000006:migration_bitmap_sync_end dirty_pages 3"]


def test_a_backlog_is_read_to_its_end(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"")
    n = 2 * READ_BYTES // len(STORE % (11, 0, 0)) + 1000
    with contextlib.closing(LogReader(guest(log))) as reader:
        log.write_bytes(b"".join(STORE % (11, at, at % 256 * 4096) for at in range(n)))
        first = rows(reader.read())
        assert reader.behind
        found = first + rest(reader)
    assert found == [(100 * 10**9 + at * 1000, at % 256, 0) for at in range(n)]
    assert 0 < len(first) < n


def test_a_log_that_is_cut_off_is_an_error(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(STORE % (11, 1, 0x1000))
    with contextlib.closing(LogReader(guest(log))) as reader:
        log.write_bytes(b"")
        with pytest.raises(TraceError, match="became shorter"):
            reader.read()
    with pytest.raises(UsageError, match="cannot be followed"):
        LogReader(guest(tmp_path / "missing"))


def test_one_capture_of_a_guest_at_a_time(tmp_path):
    """The lock is with whoever has the descriptor: also a guard that outlives the capture; then nothing is left of it."""
    log = tmp_path / "log"
    log.write_bytes(b"")
    waits = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with alone(guest(log)) as lock:
        guard = subprocess.Popen(waits, stdin=subprocess.PIPE, pass_fds=(lock,))
        with pytest.raises(UsageError, match="another capture of this guest"), alone(guest(log)):
            pass
    with pytest.raises(UsageError, match="another capture of this guest"), alone(guest(log)):
        pass
    guard.communicate(timeout=20)
    with alone(guest(log)):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_rounds_undo_the_sums_of_a_period():
    """QEMU prints 0, 100, 150 (50 new), then, a period later, 30 again from zero."""
    events = []
    for start_ms, counter in ((0, 0), (400, 100), (800, 150), (1_100, 190), (1_500, 30), (2_000, 70), (2_200, 75)):
        events.append((start_ms * 1000, "migration_bitmap_sync_start", ""))
        events.append((start_ms * 1000 + 100, "migrate_set_state", "new state 12"))
        events.append((start_ms * 1000 + 200, "migration_bitmap_sync_end", f"dirty_pages {counter}"))
    rounds = rounds_of(events)
    assert [entry["dirty_pages"] for entry in rounds] == [0, 100, 50, 40, 30, 40, 5]
    assert [entry["sync_us"] for entry in rounds] == [200] * 7
    assert rounds_of([(5, "migration_bitmap_sync_end", "dirty_pages 3")]) == []


@pytest.mark.parametrize(("later", "pages"), [(230, 30), (50, 50)])
def test_within_a_millisecond_of_a_period_the_next_sum_tells(later, pages):
    """1,000.4 ms may be 1,000 of QEMU's whole ms, which is no more than a period, or 1,001, which is."""
    events = []
    for start_us, counter in ((0, 0), (500_000, 120), (1_000_400, 200), (1_100_000, later)):
        events += [
            (start_us, "migration_bitmap_sync_start", ""),
            (start_us, "migration_bitmap_sync_end", f"d {counter}"),
        ]
    assert [entry["dirty_pages"] for entry in rounds_of(events)] == [0, 120, 80, pages]


def test_a_case_takes_no_folder_of_another(tmp_path):
    check_folder(tmp_path / "new")
    check_folder(tmp_path)
    (tmp_path / "case.json").write_text("{}")
    with pytest.raises(UsageError, match="holds a case already"):
        check_folder(tmp_path)
    with pytest.raises(UsageError, match="is no folder"):
        check_folder(tmp_path / "case.json")
    with pytest.raises(UsageError, match="no folder"):
        check_folder(tmp_path / "a" / "b")
