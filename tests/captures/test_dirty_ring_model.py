"""The model of KVM's dirty rings against the kernel's own: same stores, same moments of reset, same entries.

(a) Live, where /dev/kvm is: the micro-VM. (b) Everywhere: recordings of a kernel, whose stores are known by their
generator, and the shipped traces of a micro-VM. All are of kernels without page modification logging: full at the size
less 64, logged before the store is made.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

import replay
from replay.capturing.microguest import Stores, Writer
from replay.capturing.microvm import MicroVm
from replay.trace.events import origin_vcpu
from tests.captures.common import needs_kvm, needs_write_protection
from tests.captures.model import Model
from tests.importers.common import sample

RECORDINGS = ["ftrace_local_1vcpu_userspace_exit", "ftrace_mono_2vcpu"]
CODE_PAGE = 1  # of the recorded guests: fetched in logged memory, so their first entry


def recorded_stores(cfg: dict, count: int) -> list[int]:
    """The stores of a recorded vCPU: as the README of the samples says."""
    state, pages = cfg["s"], []
    for index in range(count):
        if cfg["kind"] == "seq":
            pages.append(cfg["first"] + (index & cfg["mask"]))
            continue
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        page = state >> 33
        if cfg["kind"] == "hot" and state % 2**32 < cfg["thr"]:
            page &= cfg["hot"]
        pages.append(cfg["first"] + (page & cfg["mask"]))
    return pages


def replayed(truth: dict, vcpu: int, push_before_retire: str = "on") -> tuple[list[int], list[int], int]:
    """(entries of the model, entries of the kernel, stores made) of one vCPU.

    A harvest is known by its entries, a reset only by what follows: it comes before the first store that is logged
    although its page was logged and not reset, or that would fill a ring that was not full. Full rings need no guess:
    the vCPU stands.
    """
    limit = truth["ring_entries"] - 64
    batches = [[page for _, page in event[3]] for event in truth["events"] if event[1] == "reap" and event[2] == vcpu]
    kernel = [page for batch in batches for page in batch]
    model = Model(truth["ring_entries"], 1 << 14, push_before_retire=push_before_retire)
    stores = recorded_stores(truth["cfg"][str(vcpu)], truth["stores"][str(vcpu)] + 1)
    if kernel[0] == CODE_PAGE:
        stores.insert(0, CODE_PAGE)
    entries: list[int] = []
    made, fulls = 0, 0
    for page in stores:
        pushed = int(model.log.ends[1])
        if pushed == len(kernel):
            break
        harvested = pushed >= len(entries) + len(batches[0])
        logged_again = not model.is_armed(page) and kernel[pushed] == page
        if harvested and (logged_again or pushed + 1 - len(entries) == limit):
            entries += model.take(limit=len(batches.pop(0)))
            model.reset()
        model.store([page])
        made += 1
        if model.full_exits > fulls:
            fulls = model.full_exits
            assert len(batches[0]) == limit
            entries += model.take(limit=len(batches.pop(0)))
            model.reset()
            assert model.release()
    assert fulls == truth["ring_full"][str(vcpu)]
    return entries + model.take(), kernel, made


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_model_predicts_what_a_kernel_recorded(name):
    truth = json.loads(sample(f"{name}.truth.json"))
    for vcpu in map(int, truth["cfg"]):
        ours, theirs, made = replayed(truth, vcpu)
        assert ours == theirs
        assert made - (theirs[0] == CODE_PAGE) in (truth["stores"][str(vcpu)], truth["stores"][str(vcpu)] + 1)


def test_without_the_second_entry_of_a_full_ring_it_would_not():
    truth = json.loads(sample(f"{RECORDINGS[0]}.truth.json"))
    ours, theirs, _ = replayed(truth, 0, "off")
    assert ours != theirs
    again = [k for k in range(1, len(theirs)) if theirs[k] == theirs[k - 1]]
    assert len(again) == truth["ring_full"]["0"]


@pytest.mark.parametrize("name", ["microvm-hot-cold", "microvm-sequential"])
def test_the_model_predicts_the_shipped_micro_vms(name):
    """All entries of eight seconds: the trace's, from the stores and the moments of reset that it states."""
    trace = replay.open_trace(name)
    told, n_vcpus = trace.metadata.provenance["capture"], trace.metadata.n_vcpus
    made, share = told["settings"], trace.metadata.n_pages // n_vcpus
    recorded = trace.decode()
    assert len(told["harvests"]) == told["n_harvests"]
    for vcpu in range(n_vcpus):
        hot = int(share * made["hot"]), round(made["hot_share"] * 2**32)
        stores = Stores(Writer(made["writer"], vcpu * share, share, *hot, made["seed"] + vcpu))
        model, unfinished, entries = Model(made["ring_size"], trace.metadata.n_pages), False, []
        full_rings = [[*row, True] for row in told.get("full_rings", []) if row[1] == vcpu]
        harvests = [[*row, False] for row in told["harvests"] if row[1] == vcpu]
        for _, _, finished, count, full in sorted(full_rings + harvests, key=lambda row: (row[2], not row[4])):
            pages = stores.take(finished + full - stores.n_made)
            exits = model.full_exits
            assert model.store(pages) == len(pages)
            assert model.full_exits - exits == full
            taken = model.take()
            assert len(taken) == count
            entries += taken
            model.reset()
            assert not full or model.release()
            unfinished = unfinished or full
        assert entries == recorded.page[origin_vcpu(recorded.origin) == vcpu].tolist()
        assert unfinished == (name == "microvm-sequential")


@needs_write_protection
@pytest.mark.parametrize("kind", ["sequential", "random", "hot-cold"])
@pytest.mark.parametrize(("n_vcpus", "ring_entries"), [(1, 256), (2, 256), (1, 512), (2, 4096)])
def test_the_model_predicts_what_this_kernel_does(kind, n_vcpus, ring_entries):
    """Entry for entry: which, in which order, how often a ring is full, and what is in it twice."""
    share = 2048
    writers = [Writer(kind, vcpu * share, share, 100, 3 << 30, 7 + vcpu) for vcpu in range(n_vcpus)]
    model = Model(ring_entries, n_vcpus * share, n_vcpus)
    unfinished = [False] * n_vcpus
    doubles = entries = 0
    with MicroVm(writers, n_vcpus * share, ring_entries, 1_000) as vm:
        for chunk in (1000, 1, 63, 192, 193, 3000, 2048, 500):
            for epoch in vm.run(chunk):
                pages = epoch.stores[1:] if unfinished[epoch.vcpu] else epoch.stores
                before = model.full_exits
                assert model.store(pages, epoch.vcpu) == len(pages)
                assert model.full_exits - before == epoch.full
                ours = model.take(epoch.vcpu)
                assert ours == epoch.entries.tolist()
                assert epoch.is_as_expected()
                doubles += unfinished[epoch.vcpu] and ours[0] == epoch.stores[0]
                entries += len(ours)
                model.reset()
                assert not epoch.full or len(ours) == ring_entries - 64
                assert not epoch.full or model.release(epoch.vcpu)
                unfinished[epoch.vcpu] = epoch.unfinished
    assert doubles == model.full_exits
    assert entries > 1000
    assert bool(doubles) == (ring_entries < 4096)


@needs_kvm
def test_the_stores_are_those_computed_here():
    """Times of stores go up, are paced, and there is one for each."""
    with MicroVm([Writer("random", 0, 4096, 0, 0, 3)], 4096, 1024, 20_000) as vm:
        found = [epoch for _ in range(3) for epoch in vm.run(200)]
        times = np.concatenate([vm.ns(0, epoch.tsc) for epoch in found])
    assert len(times) == 600
    assert [epoch.first for epoch in found] == [0, 200, 400]
    assert np.diff(times).min() >= 19_990
    assert np.median(np.diff(times)) < 40_000
