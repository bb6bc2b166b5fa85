"""What the sender will read, and when: written by a sender that runs ahead of the guest, used up as the guest follows.

What: an entry is some pages of one 64-page word, read one after the other. How: the guest's events are applied in bulk
up to the sender's time, in any order. An event on a page that has an entry is compared with the moment at which the
page is read: it comes before, or it is noted as *late*. A table finds the entries of a word, and a chain leads from one
to the one before it, because a queue may hold a word's pages apart, and a page twice. When the guest has followed, all
is read, and what was late is stale again.

Cost: O(1) an entry, O(1) an event; events outside the range of the plan's words cost a comparison for eight of them.
Bad when most events hit a planned word.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from replay.jit import U0, U1, U6, U64, kernel
from replay.kernels.bits import popcount
from replay.work import NORMAL_PAGES, ZERO_PAGES

PLAN_ENTRIES = 8192
N_PLANNED, FIRST_WORD, LAST_WORD = 0, 1, 2


class Plan(NamedTuple):
    """Reads that the sender will make, in the order of time."""

    word: np.ndarray  # uint64 (8192,)  which word
    bits: np.ndarray  # uint64 (8192,)  which of its pages are read, lowest first
    begin_ps: np.ndarray  # uint64 (8192,)  when the first of them is read
    find_ps: np.ndarray  # uint64 (8192,)  the first one's step less its page price
    next_ps: np.ndarray  # uint64 (8192,)  the same for each further one
    late: np.ndarray  # uint64 (8192,)  which of them are written after they are read
    earlier: np.ndarray  # uint16 (8192,)  1 + the entry before it of the same word; 0: none
    latest: np.ndarray  # uint16 (n_words,)  1 + the last entry of the word; 0: none
    ends: np.ndarray  # uint64 (3,)  N_PLANNED entries; the least and the greatest word of those that are chained


def new_plan(n_words: int) -> Plan:
    """An empty plan for a guest of `n_words` 64-page words."""
    columns = {name: np.zeros(PLAN_ENTRIES, dtype=np.uint64) for name in Plan._fields[:6]}
    earlier, latest = np.zeros(PLAN_ENTRIES, dtype=np.uint16), np.zeros(n_words, dtype=np.uint16)
    return Plan(**columns, earlier=earlier, latest=latest, ends=np.zeros(3, dtype=np.uint64))


@kernel
def chain(plan: Plan, count: Any) -> None:
    """Make the first `count` entries findable by their words. O(count)."""
    least, greatest = ~U0, U0
    for entry in range(count):
        word = plan.word[entry]
        plan.earlier[entry] = plan.latest[word]
        plan.latest[word] = U64(entry) + U1
        least, greatest = min(least, word), max(greatest, word)
    plan.ends[FIRST_WORD], plan.ends[LAST_WORD] = least, greatest


@kernel
def unchain(plan: Plan) -> None:
    """Forget all entries. O(entries)."""
    for entry in range(plan.ends[N_PLANNED]):
        plan.latest[plan.word[entry]] = 0
        plan.late[entry] = U0
    plan.ends[N_PLANNED] = U0
    plan.ends[FIRST_WORD], plan.ends[LAST_WORD] = ~U0, U0


@kernel
def concerns(plan: Plan, page: np.ndarray, begin: Any, stop: Any) -> bool:
    """Whether a word of the events' pages lies in the range of the planned ones."""
    if plan.ends[N_PLANNED] == U0 or plan.ends[FIRST_WORD] > plan.ends[LAST_WORD]:
        return False
    first, span = plan.ends[FIRST_WORD], plan.ends[LAST_WORD] - plan.ends[FIRST_WORD]
    near = U0
    for index in range(begin, stop):
        near |= U64((U64(page[index]) >> U6) - first <= span)
    return near != U0


@kernel
def comes_late(plan: Plan, zeros: Any, price: np.ndarray, word: Any, bit: Any, time: Any) -> bool:
    """Whether the page of a write at host time `time` is read before it, which is noted; `zeros`: of its word."""
    entry = U64(plan.latest[word])
    while entry != U0:
        entry -= U1
        if plan.bits[entry] & bit != U0 and _read_ps(plan, zeros, price, entry, bit) < time:
            plan.late[entry] |= bit
            return True
        entry = U64(plan.earlier[entry])
    return False


@kernel
def _read_ps(plan: Plan, zeros: Any, price: np.ndarray, entry: Any, bit: Any) -> Any:
    """When the entry's page `bit` is read."""
    before = plan.bits[entry] & (bit - U1)
    if before == U0:
        return plan.begin_ps[entry]
    n_all, n_zero = popcount(before), popcount(before & zeros)
    found_ps = plan.find_ps[entry] + (n_all - U1) * plan.next_ps[entry]
    return plan.begin_ps[entry] + found_ps + n_zero * price[ZERO_PAGES] + (n_all - n_zero) * price[NORMAL_PAGES]
