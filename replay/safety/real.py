"""The verbs themselves, in every order: a dirty log and a design as the replay runs them, driven step by step.

What: a system for the explorer whose state is the bytes of all arrays of a log and a design, plus a few bytes about
the guest: what is old at the target, writes left, which vCPUs are held, what the sender has in hand. How: the arrays
are views of one buffer, so a snapshot is one copy; a step restores a snapshot and calls a verb. Every verb call is
atomic; between any two of them vCPUs write, devices mark, the reaper wakes: also between pop, re-arming and read. A
sync is one step, as it is one instant to the engine; `SYNCS` of them are tried, because designs that count rounds
never return to a state. When the guest stops, the final sync and drain have no choices left and are one step.

Besides losses it finds a *livelock*: `pending` above 0 with nothing to pop, on which the migration loop would spin,
or a drain that does not end. KVM's rings are made tiny (`ring` entries), and a design's own queues by its `entries`.

Cost: 50 to 500 us a step, because verbs run as plain Python (NUMBA_DISABLE_JIT=1): guests of two or three pages. Bad
for state that counts up: states that differ only there are not the same.

Models: the order of calls in migration/engine.py, migration/guest.py and migration/precopy.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from replay.jit import NONE, U0, U64
from replay.plugins import Plugin
from replay.safety.explorer import LIVELOCK, LOSS, Step
from replay.safety.model import Bounds
from replay.verbs import (
    HELD,
    REFUSED,
    GuestShape,
    Meter,
    appetite,
    before_harvest,
    fetch,
    harvest,
    holds,
    live,
    mark_ram,
    next_wake,
    pending,
    pop,
    rearm,
    rearm_due,
    rearm_page,
    reset,
    reset_late,
    sync,
    unblock,
    urgent,
    wake,
    write,
    write_faults,
)
from replay.work import N_COUNTERS

OLD, LEFT, SYNCS_LEFT, PLACE, PAGE, LATE, END, IDLE, HOLDS = 0, 1, 2, 3, 4, 5, 6, 7, 8
NEXT, REARM, READ, RESET = 0, 1, 2, 3
SYNCS = 2  # before the final one
NO_PAGE = 255
RUNNING, SAFE_END, LOST_END, SPINNING = 0, 1, 2, 3
RING_SLOTS = 4
Emit = Callable[[str, str, int | None, str], None]


class Verbs:
    """A system whose steps are verb calls."""

    def __init__(self, log: Plugin, design: Plugin, bounds: Bounds):
        self.bounds = bounds
        shape = GuestShape(n_pages=bounds.pages, n_vcpus=bounds.vcpus)
        log_state = log.build(shape)
        self.tiny_ring = log.name == "kvm-ring"
        if self.tiny_ring:
            log_state = _shrink(log_state, bounds)
        self._buffer, (self.log, self.design) = _flatten((log_state, design.build(shape)))
        zeros = np.zeros(N_COUNTERS, dtype=np.uint64)
        self._faults = (write_faults(self.log) or (zeros[:0], 1))[0]
        self.meter = Meter(zeros, zeros.copy())
        self.mine = bytearray(HOLDS + bounds.vcpus)
        self.mine[OLD] = (1 << bounds.pages) - 1
        self.mine[LEFT] = bounds.writes
        self.mine[SYNCS_LEFT] = SYNCS
        self.mine[PAGE] = self.mine[LATE] = NO_PAGE
        self._drain_limit = 64 + 8 * (bounds.pages + bounds.ring + bounds.writes)
        self._start = self._save()

    # -- snapshots ----------------------------------------------------------------------------------------------------

    def _save(self) -> bytes:
        if self.tiny_ring:
            self._forget_indices()
        self._faults[:] = 0  # how often pages were written makes no difference to what comes
        return bytes(self.mine) + self._buffer.tobytes()

    def _restore(self, state: bytes) -> None:
        size = len(self.mine)
        self.mine[:] = state[:size]
        self._buffer[:] = np.frombuffer(state, dtype=np.uint8, offset=size)

    def _forget_indices(self) -> None:
        """An empty ring's indices may as well be 0: they run free, and only their differences matter."""
        log = self.log
        for vcpu in range(self.bounds.vcpus):
            if log.ends[2 * vcpu] == log.ends[2 * vcpu + 1]:
                log.ends[2 * vcpu] = log.ends[2 * vcpu + 1] = log.fetched[vcpu] = 0
                log.slots[vcpu * RING_SLOTS : (vcpu + 1) * RING_SLOTS] = 0

    # -- what the explorer asks ---------------------------------------------------------------------------------------

    def initial(self) -> bytes:
        """Before the setup's sync."""
        return self._start

    def canonical(self, state: bytes) -> bytes:
        """Pages are not alike to the code: it walks memory in order."""
        return state

    def successors(self, state: bytes) -> Sequence[bytes]:
        """Every state that one verb call leads to."""
        return [child for _, child in self.moves(state)]

    def moves(self, state: bytes) -> Sequence[tuple[Step, bytes]]:
        """The same with the steps; a step that changes nothing is left out."""
        if state[END]:
            return []
        found = []
        for act in self._choices(state):
            self._restore(state)
            told: list[Step] = []

            def emit(actor: str, step: str, page: int | None = None, means: str = "", told: list[Step] = told) -> None:
                told.append(Step(actor=actor, step=step, page=page, means=means))

            act(emit)
            if act != self._pop and self._buffer.tobytes() != state[len(self.mine) :]:
                self.mine[IDLE] = 0
            child = self._save()
            if child != state:
                found.append((told[0], child))
        return found

    def final(self, state: bytes) -> bool:
        """Whether the migration is over."""
        return state[END] != RUNNING

    def lost(self, state: bytes) -> bool:
        """Whether it is over with an old page at the target, or will never be."""
        return state[END] in (LOST_END, SPINNING)

    def what(self, state: bytes) -> str:
        """Which property a lost state violates."""
        return LIVELOCK if state[END] == SPINNING else LOSS

    def tail(self, schedule: Sequence[Step]) -> list[Step]:
        """The steps after the guest was stopped, for a schedule that ends with it."""
        told: list[Step] = []

        def emit(actor: str, step: str, page: int | None = None, means: str = "") -> None:
            told.append(Step(actor=actor, step=step, page=page, means=means))

        state = self._start
        for step in schedule[:-1]:
            state = next(child for other, child in self.moves(state) if other == step)
        self._restore(state)
        if schedule[-1].step == "stop the guest":
            self._stop(emit)
        return told[1:]

    # -- the steps ----------------------------------------------------------------------------------------------------

    def _choices(self, state: bytes) -> Iterator[Callable[[Emit], None]]:
        pages = range(self.bounds.pages)
        for vcpu in range(self.bounds.vcpus):
            if state[HOLDS + vcpu]:
                yield partial(self._unblock, vcpu)
            elif state[LEFT]:
                for page in pages:
                    yield partial(self._write, vcpu, page)
        if self.bounds.devices and state[LEFT]:
            for page in pages:
                yield partial(self._mark, page)
        yield self._wake
        yield from self._sender(state)

    def _sender(self, state: bytes) -> Iterator[Callable[[Emit], None]]:
        place = state[PLACE]
        if place == NEXT:
            if not state[IDLE]:
                yield self._pop
            if state[SYNCS_LEFT]:
                yield self._sync
            yield self._stop
        elif place == REARM:
            yield self._rearm
        elif place == READ:
            yield self._read
        else:
            yield self._reset

    def _send(self, page: Any) -> None:
        self.mine[OLD] &= ~(1 << int(page))

    def _send_urgent(self) -> None:
        page = urgent(self.design)
        while page != NONE:
            rearm_page(self.log, page, self.meter)
            self._send(page)
            page = urgent(self.design)

    def _name(self, vcpu: int) -> str:
        return f"vcpu{vcpu}" if self.bounds.vcpus > 1 else "vcpu"

    def _write(self, vcpu: int, page: int, emit: Emit) -> None:
        result = write(self.log, self.design, U64(page), U64(vcpu), self.meter)
        if result == REFUSED:
            self.mine[HOLDS + vcpu] = 1
            emit(self._name(vcpu), "write refused", page, "the vCPU waits for room")
            return
        self.mine[OLD] |= 1 << page
        self.mine[LEFT] -= 1
        if result == HELD:
            self.mine[HOLDS + vcpu] = 1
        self._send_urgent()
        emit(
            self._name(vcpu),
            "write",
            page,
            "the target's copy is old now" + ("; the vCPU is held" if result == HELD else ""),
        )

    def _unblock(self, vcpu: int, emit: Emit) -> None:
        if unblock(self.log, self.design, U64(vcpu), self.meter) != NONE:
            self.mine[HOLDS + vcpu] = 0
            self._send_urgent()
        emit(self._name(vcpu), "tries to go on", None, "it reaps, if its ring is full")

    def _mark(self, page: int, emit: Emit) -> None:
        mark_ram(self.design, U64(page), self.meter)
        self.mine[OLD] |= 1 << page
        self.mine[LEFT] -= 1
        self._send_urgent()
        emit("device", "write, mark", page, "the target's copy is old now")

    def _wake(self, emit: Emit) -> None:
        if next_wake(self.log) != NONE:
            wake(self.log, self.design, U0, self.meter)
            self._send_urgent()
        emit("reaper", "wakes up", None, "takes what the log holds")

    def _sync(self, emit: Emit) -> None:
        before_harvest(self.design, self.meter)
        harvest(self.log, self.design, self.meter)
        sync(self.design, self.meter)
        self._send_urgent()
        if self.mine[SYNCS_LEFT]:
            self.mine[SYNCS_LEFT] -= 1
        emit("sender", "sync", None, "the log is emptied; what was marked becomes pending")

    def _pop(self, emit: Emit, stopped: bool = False) -> None:
        if live(self.design):
            wanted = appetite(self.design)
            if wanted != U0 and fetch(self.log, self.design, wanted, self.meter) != U0:
                if not reset_late(self.design):
                    reset(self.log, self.meter)
                emit("sender", "fetch", None, "entries out of the log; armed unless that is left for later")
                return
        page = pop(self.design, self.meter)
        if page == NONE:
            if stopped:
                self.mine[END] = LOST_END if self.mine[OLD] else SAFE_END
            elif pending(self.design) != U0:
                self.mine[END] = SPINNING
            self.mine[IDLE] = 1  # asking again changes nothing, but for designs that count how often they are asked
            emit(
                "sender",
                "pop",
                None,
                "nothing to pop" + (" although pages are pending" if self.mine[END] == SPINNING else ""),
            )
            return
        self.mine[PLACE], self.mine[PAGE] = REARM, int(page)
        emit("sender", "pop", int(page), "no longer pending")

    def _rearm(self, emit: Emit) -> None:
        page = self.mine[PAGE]
        if rearm_due(self.log, U64(page)):
            rearm(self.log, U64(page), self.meter)
        late = live(self.design) and reset_late(self.design)
        if live(self.design) and not late:
            rearm_page(self.log, U64(page), self.meter)
        self.mine[PLACE] = READ
        emit(
            "sender", "nothing armed" if late else "re-arm", page, "read first" if late else "writes are noticed again"
        )

    def _read(self, emit: Emit) -> None:
        page = self.mine[PAGE]
        self._send(page)
        self.mine[PAGE], self.mine[PLACE] = NO_PAGE, NEXT
        if live(self.design) and reset_late(self.design):
            self.mine[LATE], self.mine[PLACE] = page, RESET
        emit("sender", "read", page, "the target has the latest version")

    def _reset(self, emit: Emit) -> None:
        if self.mine[LATE] != NO_PAGE:
            rearm_page(self.log, U64(self.mine[LATE]), self.meter)
            self.mine[LATE] = NO_PAGE
        if not holds(self.design) or not reset_late(self.design):
            reset(self.log, self.meter)
        self.mine[PLACE] = NEXT
        emit("sender", "reset", None, "what was fetched is armed again")

    def _stop(self, emit: Emit) -> None:
        """Stop, final sync, drain: nobody else does anything any more."""
        emit("sender", "stop the guest", None, "whatever is pending fits into the downtime")
        self._sync(emit)
        for _ in range(self._drain_limit):
            self._pop(emit, stopped=True)
            if self.mine[END]:
                emit("sender", "complete", None, "the target takes over")
                return
            while self.mine[PLACE] != NEXT:
                {REARM: self._rearm, READ: self._read, RESET: self._reset}[self.mine[PLACE]](emit)
        self.mine[END] = SPINNING


def _shrink(log: Any, bounds: Bounds) -> Any:
    """KVM's rings with `ring` usable entries."""
    log.registers[0], log.registers[1] = RING_SLOTS, min(bounds.ring, RING_SLOTS)
    slots = bounds.vcpus * RING_SLOTS
    return log._replace(slots=log.slots[:slots].copy(), age=log.age[:slots].copy())


def _flatten(states: tuple[Any, ...]) -> tuple[np.ndarray, list[Any]]:
    """The same states with all arrays in one buffer."""
    size = sum(-(-array.nbytes // 8) * 8 for state in states for array in state)
    buffer = np.zeros(size, dtype=np.uint8)
    at, moved = 0, []
    for state in states:
        arrays = []
        for array in state:
            view = buffer[at : at + array.nbytes].view(array.dtype).reshape(array.shape)
            view[...] = array
            arrays.append(view)
            at += -(-array.nbytes // 8) * 8
        moved.append(type(state)(*arrays))
    return buffer, moved
