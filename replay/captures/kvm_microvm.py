"""kvm-microvm: a small guest of our own under this machine's KVM, and what its dirty rings say.

What: vCPUs that write memory in a known way, each in its own share of the pages; every entry of their dirty rings is
an event, at the time at which the guest made the store. How: 117 bytes of guest code at privilege level 3 (native
under any KVM), run in bounded chunks of `interval`; at the end of a chunk all rings are taken and reset, a full ring
in between by its own vCPU. The stores are known by construction, so every ring is compared, entry for entry, with
what write protection must give; the outcome, the chunks and the full rings are in the provenance. Cost: one host CPU
a vCPU while it runs, `memory` of host memory, about 2 us for each first write. Bad for: anything but the dirty log
itself: no operating system, no devices, and time in which rings are taken counts as guest time.

Models: KVM of the running kernel; ring layout of linux/kvm.h.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from replay.capturing.microguest import MAX_CHUNK
from replay.capturing.recorder import MAX_NOTED, Recorder
from replay.errors import TraceError, UsageError
from replay.plugins import param
from replay.trace.schema import RamBlock
from replay.units import format_bytes, format_duration

if TYPE_CHECKING:
    from replay.capturing.microvm import Epoch

COST = "one host CPU a vCPU while it runs; no guest of yours is touched; needs /dev/kvm"
HOW = """needs read and write access to /dev/kvm (root, or the group that owns it) and Linux 5.11 or later:
  replay capture kvm-microvm --writer hot-cold --vcpus 2 --memory 64M --duration 5s -o hot.parquet
  replay capture kvm-microvm --writer sequential --ring-size 256 --stores 20000 -o full-rings.parquet
"""
COMMAND = "none"
PAGE = 4096
MIN_SHARE_PAGES = 16


@dataclass(frozen=True, kw_only=True)
class Config:
    writer: str = param("hot-cold", "what is written", choices=("hot-cold", "random", "sequential"))
    memory: int = param(
        67_108_864, "memory that is written, all vCPUs together", unit="bytes", low=1_048_576, high=2_147_483_648
    )
    vcpus: int = param(1, "vCPUs, each with its own share of the memory", low=1, high=16)
    pace: int = param(20_000, "time between two stores of a vCPU", unit="ns", low=1_000, high=10_000_000)
    hot: float = param(0.05, "hot-cold: share of the pages that is hot", unit="share")
    hot_share: float = param(0.9, "hot-cold: share of the stores that goes there", unit="share")
    ring_size: int = param(
        1024, "entries of a vCPU's dirty ring", unit="entries", low=256, high=65536, power_of_two=True
    )
    interval: int = param(10_000_000, "time between two harvests", unit="ns", low=1_000_000, high=1_000_000_000)
    stores: int = param(
        0, "stop after this many stores of each vCPU; 0: --duration or Ctrl-C", low=0, high=1_000_000_000
    )
    seed: int = param(1, "of what is random", low=0, high=4_294_967_295)
    all_stores: str = param("", "also write every store, seen by the ring or not, to this trace")


def check(config: Config) -> None:
    """Raise UsageError for sizes that do not go together."""
    if config.memory % (PAGE * config.vcpus) or config.memory // PAGE // config.vcpus < MIN_SHARE_PAGES:
        raise UsageError(
            f"kvm-microvm: memory {config.memory} does not give {config.vcpus} vCPUs the same number of pages of 4096 "
            f"bytes, at least {MIN_SHARE_PAGES} each"
        )
    if chunk_stores(config) > MAX_CHUNK:
        raise UsageError(
            f"kvm-microvm: interval / pace is {chunk_stores(config):,} stores between two harvests, more than "
            f"{MAX_CHUNK:,}: take a shorter interval or a longer pace"
        )
    if config.writer == "hot-cold" and not 0 < hot_pages(config) < config.memory // PAGE // config.vcpus:
        raise UsageError("kvm-microvm: hot must leave at least one page hot and one cold in a vCPU's share")


def chunk_stores(config: Config) -> int:
    """Stores of a vCPU between two harvests."""
    return max(1, config.interval // config.pace)


def hot_pages(config: Config) -> int:
    """Hot pages of each vCPU."""
    return int(config.memory // PAGE // config.vcpus * config.hot)


def ready(config: Config, command: list[str]) -> None:
    """Raises TraceError where KVM is not there, or not for us."""
    from replay.capturing import kvm

    if why := kvm.unavailable():
        raise TraceError(why)


def describe(config: Config, command: list[str]) -> list[str]:
    """What it will do, and what that costs."""
    rate = config.vcpus * 10**9 // config.pace
    return [
        f"makes a guest of its own in this machine's KVM: {config.vcpus} vCPUs, {format_bytes(config.memory)}, "
        f"{config.writer} at up to {rate:,} stores/s; no other guest is touched",
        f"uses {config.vcpus} host CPUs while it runs; rings of {config.ring_size} entries are emptied every "
        f"{format_duration(config.interval)}, and when they are full",
    ]


def capture(config: Config, recorder: Recorder) -> None:
    """Run the guest until its stores are made or it is told to stop. Raises TraceError where KVM is not usable."""
    from replay.capturing.microguest import Writer
    from replay.capturing.microvm import MicroVm

    share = config.memory // PAGE // config.vcpus
    hot_per_2_32 = round(config.hot_share * 2**32)
    writers = [
        Writer(config.writer, number * share, share, hot_pages(config), hot_per_2_32, config.seed + number)
        for number in range(config.vcpus)
    ]  # fmt: skip
    _say(config, recorder)
    facts = recorder.facts
    with contextlib.ExitStack() as opened:
        vm = opened.enter_context(MicroVm(writers, config.memory // PAGE, config.ring_size, config.pace))
        recorder.begin(0, reorder_ns=10**9)
        truth = opened.enter_context(_AllStores(config.all_stores, recorder)) if config.all_stores else None
        begun_ns, done, epochs, odd, gap_ns = time.monotonic_ns(), 0, 0, 0, 0
        armed = [0] * config.vcpus
        while not recorder.stop.asked and (not config.stores or done < config.stores):
            count = min(chunk_stores(config), config.stores - done if config.stores else MAX_CHUNK)
            all_armed_ns = 0
            found = vm.run(count)
            for epoch in found:
                at = vm.ns(epoch.vcpu, epoch.armed_tsc)
                times = np.minimum(vm.ns(epoch.vcpu, epoch.entry_tsc()), at)
                order = np.argsort(times, kind="stable")  # CPUs that log pages themselves turn batches round
                recorder.append(times[order], epoch.entries[order], epoch.vcpu)
                if truth is not None:
                    truth.add(vm.ns(epoch.vcpu, epoch.tsc), epoch)
                gap_ns, armed[epoch.vcpu] = max(gap_ns, at - armed[epoch.vcpu]), at
                epochs, odd = epochs + 1, odd + (not epoch.is_as_expected())
                name = "full_rings" if epoch.full else "harvests"
                facts.note(
                    name, [at, epoch.vcpu, epoch.first + len(epoch.stores) - epoch.unfinished, len(epoch.entries)]
                )
                all_armed_ns = max(all_armed_ns, at)
            done += count
            recorder.rearmed(all_armed_ns)
            recorder.finish(all_armed_ns)
        facts.rearm_gap_ns = gap_ns
        facts.notes |= {
            "columns_of_harvests_and_full_rings": ["t_ns", "vcpu", "stores finished", "entries taken"],
            "stores_of_each_vcpu": done, "epochs": epochs, "epochs_unlike_the_stores": odd, "tsc_khz": vm.tsc_khz,
            "wall_ns": time.monotonic_ns() - begun_ns, "longest_unarmed_ns": gap_ns,
        }  # fmt: skip
    if max(facts.notes.get("n_harvests", 0), facts.notes.get("n_full_rings", 0)) > MAX_NOTED:
        facts.limits.append(f"of harvests and full rings the first {MAX_NOTED:,} are listed")
    if odd:
        facts.limits.append(
            f"in {odd:,} of {epochs:,} epochs the ring's entries were not those, in that order, that write protection "
            "gives for the stores made"
        )


class _AllStores:
    """Every store in a trace of its own, which is there when the capture's is about to be."""

    def __init__(self, path: str, recorder: Recorder) -> None:
        from replay.trace.writer import TraceWriter

        if os.path.realpath(path) == os.path.realpath(recorder.path):
            raise UsageError("kvm-microvm: all-stores is the same file as the output")
        self._recorder = recorder
        self._writer = TraceWriter(path, recorder.metadata(), reorder_ns=10**9, extend=True)
        self._unfinished: set[int] = set()  # vCPUs whose last store is the first of their next epoch too

    def add(self, times: Any, epoch: Epoch) -> None:
        """The stores of an epoch, at these times, each once."""
        first = int(epoch.vcpu in self._unfinished)
        self._writer.append(times[first:], epoch.stores[first:], epoch.vcpu)
        (self._unfinished.add if epoch.unfinished else self._unfinished.discard)(epoch.vcpu)

    def __enter__(self) -> _AllStores:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._writer.abandon()
            return
        self._writer.metadata = dataclasses.replace(
            self._recorder.metadata(), rearm_times_ns=None, rearm_gap_ns=1, limits="none: computed, not observed",
            capture="all stores, known by construction; times are those that the guest read before each store",
        )  # fmt: skip
        self._writer.close()


def _say(config: Config, recorder: Recorder) -> None:
    facts = recorder.facts
    facts.n_vcpus = config.vcpus
    facts.blocks = (RamBlock("ram", 0, config.memory // PAGE),)
    facts.guest = (
        f"micro-VM under KVM on Linux {os.uname().release}, {config.vcpus} vCPUs, {format_bytes(config.memory)}, "
        f"no operating system, dirty rings of {config.ring_size} entries"
    )
    hot = f", {config.hot_share:.0%} of them to {config.hot:.0%} of the pages" if config.writer == "hot-cold" else ""
    facts.workload = (
        f"{config.writer} stores, one every {format_duration(config.pace)} on each vCPU{hot}, seed {config.seed}"
    )
    facts.clock = "the guest's time stamp counter, read before each store; it runs on while vCPUs stand"
    facts.capture = (
        f"KVM dirty rings of {config.ring_size} entries, taken and reset every {format_duration(config.interval)} with "
        "all vCPUs standing, and by a vCPU when its own is full; times are those of the stores"
    )
    facts.limits += [
        "further stores to a page before its entry is reset are not in it",
        "the store that fills a ring is in it twice where KVM logs by write protection: its entry is made before it",
    ]
