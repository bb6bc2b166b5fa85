"""KVM's dirty rings, one a vCPU: an entry for each first write since the page was re-armed.

What: the first write to an armed page pushes an entry into the ring of the writing vCPU and disarms the page. User
space reaps the rings, sets the pages' bits in the slot bitmap (L1) and resets them, which arms the pages again. How:
everything is reaped at a sync, by a thread that wakes once a second, and whenever one vCPU's ring reaches its soft
limit: that vCPU leaves the guest and stands still until all rings have been reaped and reset; the others run on. Writes
by the hypervisor on a vCPU's thread push whether armed or not. A live design may take fewer entries than there are, or
fetch them itself; what it does not take stays here, and a vCPU whose ring is full waits for it. Under a dirty limit
(policies/dirty_limit.py) the thread measures vCPUs instead, and one whose ring is full reaps that ring only and sleeps.

Cost: O(1) a first write, O(1) an entry reaped, one re-protection for each coalesced mask of up to 64 neighbouring
pages; at a sync O(pages / 64) on top, because L1 is folded and cleared whole. Bad for a guest that dirties memory at
random and fast: small rings stop its vCPUs often, and a page reaped before it is sent is reported and sent again.

Models: virt/kvm/dirty_ring.c of Linux 6.12 (soft limit, reset with coalescing) and QEMU 10.0's reaping. The soft limit
is the size less 64 reserved entries, less 512 more where the CPU logs pages in hardware (`pml=on`: Intel). Without that
hardware the kernel logs in the write fault, before the store is made: the store that fills a ring faults again once its
page was reset, and is in the ring twice (`push-before-retire=on`: AMD, Arm, shadow paging; tests/captures compares).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from replay.errors import UsageError
from replay.jit import NONE, U0, U1, U6, U63, U64, kernel
from replay.kernels import memory, ring
from replay.kernels.bitmap import test_and_clear
from replay.kernels.prefetch import prefetch
from replay.plugins import param
from replay.verbs import (
    AGE,
    HELD,
    ROUND_ROBIN,
    GuestShape,
    Meter,
    backlog,
    expect_write,
    fetch,
    fetch_order,
    fold_slots,
    harvest,
    heeds,
    heeds_first,
    holds,
    limit_sleep_ps,
    mark_slot,
    next_wake,
    occupancy_max,
    reset,
    reset_late,
    room,
    spent_ps,
    summon,
    unblock,
    wake,
    write,
    write_faults,
    write_host,
)
from replay.work import (
    KRING_DUPLICATES,
    KRING_FULL_EXITS,
    KRING_MASKS,
    KRING_REAPED,
    KRING_RESETS,
    LOGGED_WRITES,
    REAPER_WAKES,
    VCPU_KICKS,
)

STALLS_VCPUS = True  # a full ring stops its own vCPU, so each vCPU is delayed by itself
RESERVED_ENTRIES, PML_ENTRIES = 64, 512
QUOTA_MIB, LIMIT_EVERY, LIMIT_SINCE, RATE_MAX_MIB = 0, 1, 2, 3
_PAGE, _MIB, _TOLERANCE_MIB = U64(4096), U64(1 << 20), U64(25)
_PS_PER_US, _PS_PER_MS, _US_PER_S, _MS_PER_S = U64(10**6), U64(10**9), U64(10**6), U64(1000)
_HALF_PCT, _ALL_PCT, _MOST_FILLS, _SMALL_STEPS = U64(50), U64(100), U64(99), U64(10)
SIZE, SOFT_LIMIT, N_VCPUS, NEXT_WAKE, WAKE_EVERY, USED_MAX, TURN, N_PUSHED, REPEATS = 0, 1, 2, 3, 4, 5, 6, 7, 8
PER_EXIT, FAULTS = 9, 10
_FAULTS = U64(FAULTS)


@dataclass(frozen=True, kw_only=True)
class Config:
    entries: int = param(4096, "entries of each vCPU's ring", unit="entries", low=256, high=65536, power_of_two=True)
    pml: bool = param(True, "the CPU logs pages in hardware and 512 more entries stay reserved")
    reaper_period: int = param(
        1_000_000_000, "pause of the reaper thread between two harvests", unit="ns", low=1_000_000
    )
    push_before_retire: bool = param(
        False, "the store that fills a ring is made after its reset, and logged again; with pml=off"
    )


def check(config: Config) -> None:
    """Raise UsageError for a ring without a usable entry, and for logging that no CPU does."""
    if config.pml and config.push_before_retire:
        raise UsageError("kvm-ring: push-before-retire=on needs pml=off: a CPU that logs by itself logs stores it made")
    if config.pml and config.entries < 1024:
        raise UsageError(
            f"kvm-ring: {config.entries} entries are too few with pml=on (576 stay reserved): take 1024, or pml=off"
        )


class State(NamedTuple):
    """The rings, the slots' bitmap and which pages are armed."""

    slots: np.ndarray  # uint64 (n_vcpus * entries,)  page numbers, see kernels/ring.py
    ends: np.ndarray  # uint64 (2 * n_vcpus,)  reset index and dirty index of each ring
    fetched: np.ndarray  # uint64 (n_vcpus,)  fetch index of each ring, between the two
    age: np.ndarray  # uint64 (n_vcpus * entries,)  how many entries had been pushed before each, over all rings
    armed: np.ndarray  # uint64 (n_words,)  bit set: the next write to the page is pushed
    l1: np.ndarray  # uint64 (n_words,)  KVMSlot.dirty_bmap
    unmade: np.ndarray  # uint64 (n_vcpus,)  1 + page of the store that a full ring keeps from being made; 0: none
    registers: np.ndarray  # uint64 (10 + n_vcpus,)  SIZE, SOFT_LIMIT entries; N_VCPUS; NEXT_WAKE, WAKE_EVERY ps;
    #                        USED_MAX entries; TURN the ring that is fetched from next; N_PUSHED entries;
    #                        REPEATS 1: push before retire; PER_EXIT stores logged to an exit;
    #                        from FAULTS on how many of each vCPU were logged
    reaped: np.ndarray  # uint64 (n_vcpus,)  entries of each ring reaped since the last measurement of the dirty limit
    sleep_us: np.ndarray  # uint64 (n_vcpus,)  how long each vCPU sleeps when its ring is full
    limit: np.ndarray  # uint64 (4,)  QUOTA_MIB a second and vCPU, 0: none; LIMIT_EVERY, LIMIT_SINCE ps; RATE_MAX_MIB


def build(config: Config, shape: GuestShape) -> State:
    """Everything write-protected, as enabling the log without manual protect leaves it; rings empty."""
    reserved = RESERVED_ENTRIES + (PML_ENTRIES if config.pml else 0)
    period, repeats = config.reaper_period * 1000, int(config.push_before_retire)
    per_exit = PML_ENTRIES if config.pml else 1
    return State(
        slots=memory.pages(shape.n_vcpus * config.entries),
        ends=memory.words(2 * shape.n_vcpus),
        fetched=memory.words(shape.n_vcpus),
        age=memory.words(shape.n_vcpus * config.entries),
        armed=memory.ones_up_to(shape.n_pages, shape.n_words),
        l1=memory.words(shape.n_words),
        unmade=memory.words(shape.n_vcpus),
        registers=np.array(
            [config.entries, config.entries - reserved, shape.n_vcpus, period, period, 0, 0, 0, repeats, per_exit]
            + [0] * shape.n_vcpus,
            dtype=np.uint64,
        ),
        reaped=memory.words(shape.n_vcpus),
        sleep_us=memory.words(shape.n_vcpus),
        limit=memory.words(4),
    )


@expect_write.implement(State)
def _expect_write(log: State, page: Any) -> None:
    prefetch(log.armed, page >> U6)


@heeds.implement(State)
def _heeds(log: State, page: Any) -> Any:
    return (log.armed[page >> U6] >> (page & U63)) & U1


@heeds_first.implement(State)
def _heeds_first(log: State) -> bool:
    return True


@write.implement(State)
def _write(log: State, design: Any, page: Any, vcpu: Any, meter: Meter) -> Any:
    if not test_and_clear(log.armed, page):
        return U0
    log.registers[_FAULTS + vcpu] += U1
    held = _push(log, design, page, vcpu, meter)
    if held == HELD and log.registers[REPEATS] != U0:
        log.unmade[vcpu] = page + U1
    return held


@write_host.implement(State)
def _write_host(log: State, design: Any, page: Any, vcpu: Any, meter: Meter) -> Any:
    log.armed[page >> U6] &= ~(U1 << (page & U63))
    return _push(log, design, page, vcpu, meter)


@kernel
def _push(log: State, design: Any, page: Any, vcpu: Any, meter: Meter) -> Any:
    """An entry for `page`; HELD when the ring has reached its soft limit."""
    registers, size = log.registers, log.registers[SIZE]
    if fetch_order(design) == U64(AGE):
        log.age[vcpu * size + (log.ends[U64(2) * vcpu + U1] & (size - U1))] = registers[N_PUSHED]
        registers[N_PUSHED] += U1
    ring.push(log.slots, log.ends, vcpu, size, page)
    meter.work[LOGGED_WRITES] += U1
    used = ring.used(log.ends, vcpu)
    registers[USED_MAX] = max(registers[USED_MAX], used)
    if used < registers[SOFT_LIMIT]:
        return U0
    meter.work[KRING_FULL_EXITS] += U1
    return HELD


@unblock.implement(State)
def _unblock(log: State, design: Any, vcpu: Any, meter: Meter) -> Any:
    """The vCPU that left the guest reaps, if the design has room, and goes on when its ring is below the limit."""
    before, limit = spent_ps(meter), log.registers[SOFT_LIMIT]
    if ring.used(log.ends, vcpu) >= limit and not holds(design):
        if log.limit[QUOTA_MIB] != U0 and room(design) == NONE:
            _fetch_run(log, design, vcpu, NONE, meter)
            if not reset_late(design):
                reset(log, meter)
        else:
            _reap(log, design, meter)
    if holds(design) or ring.used(log.ends, vcpu) >= limit:
        return NONE
    if log.unmade[vcpu] != U0:
        page = log.unmade[vcpu] - U1
        log.unmade[vcpu] = U0
        if test_and_clear(log.armed, page):
            log.registers[_FAULTS + vcpu] += U1
            _push(log, design, page, vcpu, meter)
    return spent_ps(meter) - before + meter.price[KRING_FULL_EXITS] + log.sleep_us[vcpu] * _PS_PER_US


@limit_sleep_ps.implement(State)
def _limit_sleep_ps(log: State, vcpu: Any) -> Any:
    return log.sleep_us[vcpu] * _PS_PER_US


@write_faults.implement(State)
def _write_faults(log: State) -> Any:
    return log.registers[FAULTS:], int(log.registers[PER_EXIT])


@harvest.implement(State)
def _harvest(log: State, design: Any, meter: Meter) -> None:
    meter.work[VCPU_KICKS] += log.registers[N_VCPUS]
    _reap(log, design, meter)
    fold_slots(design, log.l1, False, meter)


@next_wake.implement(State)
def _next_wake(log: State) -> Any:
    return log.registers[NEXT_WAKE]


@wake.implement(State)
def _wake(log: State, design: Any, now: Any, meter: Meter) -> None:
    before = spent_ps(meter)
    meter.work[REAPER_WAKES] += U1
    _reap(log, design, meter)
    every = log.registers[WAKE_EVERY]
    if log.limit[QUOTA_MIB] != U0:
        fold_slots(design, log.l1, False, meter)
        measure_vcpus(log, now)
        every = log.limit[LIMIT_EVERY]
    log.registers[NEXT_WAKE] = now + (spent_ps(meter) - before) + every


@kernel
def measure_vcpus(log: State, now: Any) -> None:
    """Set each vCPU's sleep by what it has dirtied since the last measurement."""
    spent_ms = max(U1, (now - log.limit[LIMIT_SINCE]) // _PS_PER_MS)
    log.limit[LIMIT_SINCE] = now
    for vcpu in range(log.registers[N_VCPUS]):
        rate_mib = log.reaped[vcpu] * _PAGE // _MIB * _MS_PER_S // spent_ms
        log.reaped[vcpu] = U0
        log.sleep_us[vcpu] = _adjusted(log, log.sleep_us[vcpu], rate_mib)


@kernel
def _adjusted(log: State, sleep_us: Any, rate_mib: Any) -> Any:
    """A vCPU's sleep at its next full rings, given how fast it dirtied memory with the present one."""
    quota_mib = log.limit[QUOTA_MIB]
    more = max(rate_mib, quota_mib)
    gap = more - min(rate_mib, quota_mib)
    if gap <= _TOLERANCE_MIB:
        return sleep_us
    if rate_mib == U0:
        return U0
    log.limit[RATE_MAX_MIB] = max(log.limit[RATE_MAX_MIB], rate_mib)
    fill_us = log.registers[SIZE] * _PAGE // _MIB * _US_PER_S // log.limit[RATE_MAX_MIB]
    pct = gap * _ALL_PCT // more
    step_us = fill_us * pct // (_ALL_PCT - pct) if pct > _HALF_PCT else fill_us // _SMALL_STEPS
    if rate_mib > quota_mib:
        return min(sleep_us + step_us, _MOST_FILLS * fill_us)
    return sleep_us - min(step_us, sleep_us)


def limit_vcpus(log: State, quota_mib: int, period_ps: int, now_ps: int) -> None:
    """From now on each vCPU is held to `quota_mib` MiB/s, measured every `period_ps`. Mutates `log`."""
    log.limit[QUOTA_MIB], log.limit[LIMIT_EVERY], log.limit[LIMIT_SINCE] = quota_mib, period_ps, now_ps
    log.registers[NEXT_WAKE] = now_ps + period_ps
    log.reaped[:] = 0


@occupancy_max.implement(State)
def _occupancy_max(log: State) -> Any:
    most = log.registers[USED_MAX]
    log.registers[USED_MAX] = U0
    return most


@backlog.implement(State)
def _backlog(log: State) -> Any:
    total = U0
    for vcpu in range(log.registers[N_VCPUS]):
        total += log.ends[U64(2) * vcpu + U1] - log.fetched[vcpu]
    return total


@kernel
def _reap(log: State, design: Any, meter: Meter) -> None:
    """Mark every entry of every ring, or as many as the design takes, then reset them."""
    allowed = room(design)
    if allowed == NONE:
        for vcpu in range(log.registers[N_VCPUS]):
            _fetch_run(log, design, vcpu, NONE, meter)
    elif allowed != U0:
        fetch(log, design, allowed, meter)
    else:
        summon(design)
    if not reset_late(design):
        reset(log, meter)


@kernel
def _fetch_run(log: State, design: Any, vcpu: Any, limit: Any, meter: Meter) -> Any:
    """Mark up to `limit` entries of one ring, oldest first; how many they were."""
    size = log.registers[SIZE]
    first = log.fetched[vcpu]
    count = min(limit, log.ends[U64(2) * vcpu + U1] - first)
    for index in range(first, first + count):
        if not mark_slot(design, log.l1, ring.entry(log.slots, vcpu, size, index), meter):
            meter.work[KRING_DUPLICATES] += U1
    log.fetched[vcpu] = first + count
    log.reaped[vcpu] += count
    meter.work[KRING_REAPED] += count
    return count


@fetch.implement(State)
def _fetch(log: State, design: Any, limit: Any, meter: Meter) -> Any:
    """Up to `limit` entries one by one: from each ring in turn, from the longest, or the oldest of all."""
    fetched, n_vcpus = U0, log.registers[N_VCPUS]
    while fetched < limit:
        vcpu = _choose(log, fetch_order(design))
        if vcpu == NONE:
            break
        fetched += _fetch_run(log, design, vcpu, U1, meter)
        log.registers[TURN] = (vcpu + U1) % n_vcpus
    if fetched == limit and backlog(log) != U0:
        summon(design)
    return fetched


@kernel
def _choose(log: State, order: Any) -> Any:
    """The ring whose oldest entry is fetched next; NONE when all are empty. Ties: the first from TURN on."""
    n_vcpus, size = log.registers[N_VCPUS], log.registers[SIZE]
    best, chosen = U0, NONE
    for step in range(n_vcpus):
        vcpu = (log.registers[TURN] + step) % n_vcpus
        waiting = log.ends[U64(2) * vcpu + U1] - log.fetched[vcpu]
        if waiting == U0:
            continue
        if order == U64(ROUND_ROBIN):
            return vcpu
        worth = waiting
        if order == U64(AGE):
            worth = NONE - log.age[vcpu * size + (log.fetched[vcpu] & (size - U1))]
        if worth > best:
            best, chosen = worth, vcpu
    return chosen


@reset.implement(State)
def _reset(log: State, meter: Meter) -> None:
    """Re-arm what was fetched, neighbouring pages of one ring in one mask, and give the entries back."""
    size, work = log.registers[SIZE], meter.work
    masks, given_back = U0, U0
    for vcpu in range(log.registers[N_VCPUS]):
        base, mask = U0, U0
        first = log.ends[U64(2) * vcpu]
        for index in range(first, log.fetched[vcpu]):
            page = ring.entry(log.slots, vcpu, size, index)
            log.armed[page >> U6] |= U1 << (page & U63)
            if mask != U0 and page >= base and page - base <= U63:
                mask |= U1 << (page - base)
            elif mask != U0 and page < base and base - page <= U63 and (mask << (base - page)) >> (base - page) == mask:
                mask = (mask << (base - page)) | U1
                base = page
            else:
                masks += U1
                base, mask = page, U1
        given_back += log.fetched[vcpu] - first
        log.ends[U64(2) * vcpu] = log.fetched[vcpu]
    work[KRING_MASKS] += masks
    if given_back > U0:
        work[KRING_RESETS] += U1
