"""Converts raw recordings of real guests into the shipped traces: `tools/make_traces.py SOURCE_DIR`.

SOURCE_DIR holds `cases-2/NAME/` (case.json, stores.parquet, trace.parquet, zero_start.parquet,
sent_pages.parquet) and `recordings/NAME.parquet`, all with ram_addr >> 12 as page number. Writes
traces/NAME.parquet, its data card traces/NAME.md, and the generated sections of traces/README.md. Same
recordings, same bytes (and pyarrow version). `tools/make_traces.py --readme` only rewrites the generated
sections of traces/README.md. The traces of tools/capture_traces.py are listed there too.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from replay.trace.arrays import page_runs  # noqa: E402
from replay.trace.documentation import data_card, with_generated_sections  # noqa: E402
from replay.trace.schema import PageRun, RamBlock, TraceMetadata  # noqa: E402
from replay.trace.writer import write_trace  # noqa: E402
from tools.capture_traces import CAPTURES  # noqa: E402

TRACES = ROOT / "traces"
PAGE = 4096
S = 1_000_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """One trace to make: from which recording, and which part of it (seconds of the recording's clock)."""

    name: str
    title: str
    recording: str  # below SOURCE_DIR, without the suffix .parquet
    from_s: float | None = None  # None: from the start
    to_s: float | None = None  # None: to the end
    throttled: bool = False


PLANS = (
    Plan(
        name="redis-1g", title="redis-server under redis-benchmark, migrated meanwhile",
        recording="cases-2/redis60k-bw50-dt50/stores", from_s=-0.5, to_s=8.5,
    ),
    Plan(
        name="sqlite-1g", title="SQLite transactions in WAL mode, migrated meanwhile",
        recording="cases-2/sqlite192-bw45-dt80/stores", from_s=-1, to_s=7,
    ),
    Plan(
        name="churn-1g", title="dd, sort, tar and gzip in tmpfs, migrated meanwhile",
        recording="cases-2/churn128-bw50-dt60/stores", from_s=-1, to_s=8.5,
    ),
    Plan(
        name="idle-1g", title="an idle Linux guest, migrated meanwhile",
        recording="cases-2/idle-1g-bw60/stores",
    ),
    Plan(
        name="rand-1g", title="uniform random writer at 10,000 pages/s, migrated meanwhile",
        recording="cases-2/rand128-10k-bw60-dt100/stores", from_s=-1, to_s=9,
    ),
    Plan(
        name="seq-1g", title="sequential writer at 7,000 pages/s, migrated meanwhile",
        recording="cases-2/seq96-7k-bw50-dt200/stores", from_s=-1, to_s=9,
    ),
    Plan(
        name="hot-1g", title="hot and cold writer at 15,000 pages/s that precopy does not catch",
        recording="cases-2/hot128-15k-bw50-dt150/stores", from_s=-1, to_s=9,
    ),
    Plan(
        name="rand-1g-throttled", title="random writer at 20,000 pages/s, throttled by auto-converge",
        recording="cases-2/rand128-20k-bw50-autoconverge/stores", from_s=-1, to_s=12.5, throttled=True,
    ),
    Plan(
        name="sqlite-1g-syncs", title="SQLite, first writes between the syncs of a migration",
        recording="cases-2/sqlite192-bw45-dt80-noplug/trace", to_s=25,
    ),
    Plan(
        name="sqlite-1g-events", title="SQLite, first writes between re-arms 200 ms apart",
        recording="recordings/all3-sqlite-1g", to_s=16,
    ),
    Plan(
        name="sqlite-1g-stores", title="SQLite, the run of sqlite-1g-events seen by stores in 10 ms",
        recording="recordings/all3-sqlite-1g.plugin", to_s=16,
    ),
    Plan(
        name="xz-1g", title="xz compression, first writes between re-arms 100 ms apart",
        recording="recordings/xz-1g", from_s=10, to_s=13,
    ),
)  # fmt: skip


@dataclasses.dataclass
class Recording:
    """A raw recording: arrays (n,) as recorded, and its texts. Times are ns of the recording's own clock."""

    t_ns: np.ndarray[Any, Any]
    ram_page: np.ndarray[Any, Any]
    vcpu: np.ndarray[Any, Any]
    texts: dict[str, str]
    case: dict[str, Any]  # case.json of a migration, empty for a recording without one
    path: Path

    @property
    def is_migration(self) -> bool:
        return bool(self.case)

    @property
    def is_store_trace(self) -> bool:
        return "plugin" in self.texts["capture_method"]


def load(source_dir: Path, plan: Plan) -> Recording:
    path = source_dir / f"{plan.recording}.parquet"
    table = pq.read_table(path)
    texts = {
        key.decode(): value.decode() for key, value in table.schema.metadata.items() if key != b"ARROW:schema"
    }
    case_file = path.parent / "case.json"
    case = json.loads(case_file.read_text()) if case_file.exists() else {}
    columns = (table[name].to_numpy() for name in ("t_ns", "page", "vcpu"))
    return Recording(*columns, texts, case, path)


def ram_table(recording: Recording) -> tuple[list[tuple[int, int]], tuple[RamBlock, ...]]:
    """(first ram page, pages) of the used part of each block in ram_addr order, and the dense RAMBlock
    table."""
    used = [(0, int(recording.texts["memory_bytes"]) // PAGE, "pc.ram")]
    if recording.is_migration:
        rows = [line.split() for line in recording.case["ramblocks"][1:]]
        used = sorted((int(row[3], 16) // PAGE, int(row[4], 16) // PAGE, row[0]) for row in rows)
    blocks, first = [], 0
    for _, n_pages, name in used:
        blocks.append(RamBlock(name, first, n_pages))
        first += n_pages
    return [(start, n_pages) for start, n_pages, _ in used], tuple(blocks)


def to_dense(ram_page: np.ndarray[Any, Any], used: list[tuple[int, int]]) -> np.ndarray[Any, Any]:
    """Dense page of each ram_addr page (int64), -1 where it lies outside the used part of every block."""
    dense = np.full(len(ram_page), -1, np.int64)
    first = 0
    for start, n_pages in used:
        inside = (ram_page >= start) & (ram_page < start + n_pages)
        dense[inside] = ram_page[inside].astype(np.int64) - start + first
        first += n_pages
    return dense


def zero_runs(recording: Recording, blocks: tuple[RamBlock, ...]) -> tuple[PageRun, ...] | None:
    """Page classes when `migrate` was given: pc.ram from the zero map, other blocks from what was ever
    sent."""
    file = zero_file(recording)
    if not file.exists():
        return None
    zero = np.zeros(sum(block.n_pages for block in blocks), bool)
    for run in pq.read_table(file).to_pylist():
        zero[run["first_page"] : run["first_page"] + run["n_pages"]] = run["zero"]
    sent = pq.read_table(recording.path.parent / "sent_pages.parquet", columns=["block", "page_in_block"])
    names, pages = sent["block"].to_numpy(), sent["page_in_block"].to_numpy()
    for block in blocks:
        if block.name != "pc.ram":
            zero[block.first_page : block.first_page + block.n_pages] = True
            zero[block.first_page + pages[names == block.name]] = False
    return page_runs(zero)


def span_ns(recording: Recording, plan: Plan) -> tuple[int, int]:
    """Start and end of the part that the trace covers, on the recording's clock."""
    texts = recording.texts
    start, end = 0, int(recording.t_ns[-1]) + 1
    if "seconds" in texts:
        end = int(texts["seconds"]) * S
    elif recording.is_store_trace:
        start, end = int(texts["source_from_ns"]), int(texts["target_to_ns"] or texts["source_to_ns"])
    start = start if plan.from_s is None else max(start, int(plan.from_s * S))
    end = end if plan.to_s is None else min(end, int(plan.to_s * S))
    if rearms := [t for t in resync_times_ns(recording) if start <= t <= end]:
        # A part must begin where all pages were armed: the first writes before it are not in it.
        start = start if plan.from_s is None else rearms[0]
        end = end if plan.to_s is None else rearms[-1]
    return start, end


def resync_times_ns(recording: Recording) -> list[int]:
    """When the recording re-armed, on its own clock; empty when it was not by syncs."""
    return json.loads(recording.texts.get("resync_times_ns", "[]"))


def guest(recording: Recording) -> str:
    texts = recording.texts
    version = texts["qemu_version"].split()[0]
    kernel = texts.get("guest_kernel") or recording.case.get("guest_kernel", "Linux")
    return (
        f"QEMU {version} under TCG, one thread a vCPU, machine q35, {int(texts['memory_bytes']) >> 30} GiB, "
        f"{texts['smp']} vCPUs, kernel {kernel}, busybox initramfs, no disk, no network; 2-core host"
    )


def workload(recording: Recording) -> str:
    kind, *numbers = recording.texts["workload"].split(":")
    known = {
        "idle": "nothing but the guest's own background activity",
        "redis": "redis-server under redis-benchmark, {0} keys of {1} bytes, as fast as it goes",
        "sqlite": "SQLite in WAL mode on a {0} MB database in tmpfs, update transactions as fast as they go",
        "churn": "dd, sort, tar and gzip over {0} MB in tmpfs, in a loop",
        "xz": "xz compressing {0} MB in tmpfs, in a loop",
        "rand": "a C program writing 8 bytes to uniformly random pages of {0} MB, {1} pages/s",
        "seq": "a C program writing 8 bytes to the pages of {0} MB in order, {1} pages/s, in a loop",
        "hot": "a C program writing 8 bytes a page, {1} pages/s, mostly to a hot {3} % of {0} MB",
    }
    return known[kind].format(*numbers)


def clock(recording: Recording) -> str:
    if not recording.is_store_trace:
        return "host time of QEMU's log, microseconds"
    if not recording.is_migration:
        return "host time, nanoseconds, read by the plugin"
    return (
        "host time, nanoseconds, read by the plugin; the time for which the guest was stopped after the "
        "switchover is taken out, so that source and target join without a gap of guest time"
    )


def store_interval_ns(recording: Recording) -> int | None:
    """Within what time a page is recorded once; None when not a store trace."""
    if not recording.is_store_trace:
        return None
    return int(recording.texts.get("bin_us", "10000")) * 1000


def capture(recording: Recording) -> str:
    if recording.is_store_trace:
        interval = store_interval_ns(recording) or 0
        hosts = ", on the source and, after the switchover, on the target" if recording.is_migration else ""
        return f"a TCG plugin: the first store to each page in every {interval // 1_000_000} ms{hosts}"
    event = (
        "trace event memory_notdirty_write_access: the first write to a page after it was re-armed, by vCPU"
    )
    if recording.is_migration:
        return f"{event}; re-armed by the bitmap syncs of a migration"
    return f"{event}; re-armed by starting and cancelling a migration again and again"


def limits(recording: Recording) -> str:
    """What the capture can miss or distort, sentence by sentence."""
    said = []
    if recording.is_store_trace:
        said.append("writes that the CPU's page-table walker or QEMU's devices make are not in it")
        said.append("further stores to a page within one interval are not in it")
        said.append("guests that use all of their CPU run 1.5 to 4 times slower under the plugin")
        if counts := re.search(r"late_ticks=(\d+) ticks=(\d+)", str(recording.case.get("plugin_messages"))):
            said.append(f"{counts[1]} of {counts[2]} intervals of the source ended late")
    else:
        said.append("between two re-arms only the first write to a page (by each vCPU) is in it")
        said.append("exact only for a replay that syncs at the recorded re-arm times")
    if recording.texts["qemu_version"].startswith("7.2"):
        said.append("RAM blocks other than pc.ram were not looked at")
        if not recording.is_store_trace:
            said.append(
                "QEMU 7.2 under TCG can miss writes to a page that stays in a vCPU's TLB over a re-arm"
            )
    elif zero_file(recording).exists():
        said.append("page classes are those when the migration was started, not those at t = 0")
    return "; ".join(said)


def zero_file(recording: Recording) -> Path:
    return recording.path.parent / "zero_start.parquet"


def make(plan: Plan, source_dir: Path, out_dir: Path) -> TraceMetadata:
    """Write one trace file; returns its metadata."""
    recording = load(source_dir, plan)
    start, end = span_ns(recording, plan)
    kept = (recording.t_ns >= start) & (recording.t_ns <= end)
    used, blocks = ram_table(recording)
    page = to_dense(recording.ram_page[kept], used)
    outside = page < 0
    if outside.any():
        print(f"{plan.name}: {outside.sum()} events outside of every RAM block left out", file=sys.stderr)
    t_ns, vcpu = recording.t_ns[kept][~outside] - start, recording.vcpu[kept][~outside]
    rearms = tuple(t - start for t in resync_times_ns(recording) if start <= t <= end)
    migration_ns = -start if recording.is_migration else None
    metadata = TraceMetadata(
        title=plan.title,
        guest=guest(recording),
        workload=workload(recording),
        memory_bytes=sum(block.n_pages for block in blocks) * PAGE,
        ram_blocks=blocks,
        n_vcpus=int(recording.texts["smp"]),
        duration_ns=end - start,
        clock=clock(recording),
        capture=capture(recording),
        limits=limits(recording),
        rearm_times_ns=rearms or None,
        rearm_gap_ns=store_interval_ns(recording),
        throttled=plan.throttled,
        page_classes=zero_runs(recording, blocks),
        page_classes_at_ns=migration_ns or 0,
        migration_start_ns=migration_ns,
        provenance={
            "made_by": "tools/make_traces.py",
            "made_from": f"recording {plan.recording}.parquet, {start / S:.3f} s to {end / S:.3f} s of it",
            "made_at": recording.texts["date"],
            "tool": "dirtyreplay trace format 1",
            "source_digest": "sha256 " + hashlib.sha256(recording.path.read_bytes()).hexdigest(),
            "qemu_version": recording.texts["qemu_version"],
            "events_outside_ram_blocks": int(outside.sum()),
        },
        licence="CC0-1.0",
    )
    return write_trace(out_dir / f"{plan.name}.parquet", metadata, t_ns, page, vcpu)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source_dir", nargs="?", type=Path, help="folder with cases-2/ and recordings/")
    parser.add_argument("--out", type=Path, default=TRACES, help="folder to write to (default: traces/)")
    parser.add_argument(
        "--readme", action="store_true", help="only rewrite the generated sections of README.md"
    )
    args = parser.parse_args()
    if args.source_dir is None and not args.readme:
        parser.error("give SOURCE_DIR, or --readme")
    for plan in PLANS if not args.readme else ():
        make(plan, args.source_dir, args.out)
        (args.out / f"{plan.name}.md").write_text(data_card(args.out / f"{plan.name}.parquet"))
    names = [*(plan.name for plan in PLANS), *CAPTURES]
    readme = args.out / "README.md"
    if readme.exists():
        readme.write_text(with_generated_sections(readme.read_text(), args.out, names))
    total = sum((args.out / f"{name}.parquet").stat().st_size for name in names)
    print(f"{len(names)} traces, {total / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
