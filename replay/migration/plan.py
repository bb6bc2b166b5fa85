"""What the sender will read, and when: written by a sender that runs ahead of the guest, used up as the guest follows.

What: an entry is some pages of one 64-page word, read one after the other. How: the guest's events are applied in bulk
up to the sender's time; only an event on a word that has an entry must first have those of its pages read whose time
comes before it. A table finds the entries of a word, and a chain leads from one to the next, because a queue may hold
a word's pages apart. When the guest has followed, what is left is read. Reads of different words do not touch each
other, and two reads without a write between them come to the same in either order, so this is the order of time.

Cost: O(1) an entry, O(1) an event; events outside the range of the plan's words cost a comparison for eight of them.
Bad when most events hit a planned word: each of them makes its reads one by one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from replay.jit import U0, U1, U6, U64, kernel

PLAN_ENTRIES = 8192
N_PLANNED, FIRST_WORD, LAST_WORD = 0, 1, 2


class Plan(NamedTuple):
    """Reads that the sender will make, in the order of time."""

    word: np.ndarray  # uint64 (8192,)  which word
    bits: np.ndarray  # uint64 (8192,)  which of its pages are still to be read, lowest first
    begin_ps: np.ndarray  # uint64 (8192,)  when the first of them is read
    find_ps: np.ndarray  # uint64 (8192,)  the first one's step less its page price
    next_ps: np.ndarray  # uint64 (8192,)  the same for each further one
    earlier: np.ndarray  # uint16 (8192,)  1 + the entry before it of the same word; 0: none
    latest: np.ndarray  # uint16 (n_words,)  1 + the last entry of the word; 0: none
    ends: np.ndarray  # uint64 (3,)  N_PLANNED entries; the least and the greatest word of those that are chained


def new_plan(n_words: int) -> Plan:
    """An empty plan for a guest of `n_words` 64-page words."""
    columns = {name: np.zeros(PLAN_ENTRIES, dtype=np.uint64) for name in Plan._fields[:5]}
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
