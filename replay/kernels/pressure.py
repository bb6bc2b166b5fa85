"""Pressure: how far the writes of any window are ahead of a channel that takes so long for each page.

What: with D(a, T) the distinct pages that events from number a up to time T wrote, t(a) the time of event a and c the
cost of a page, `press` keeps the largest D(a, T) c + t(a) over all a, after each event. Less T, it is the time that a
channel must still work after T, if it sends each page after its last write (replay.answers.hindsight has the proof).

How: every event is a candidate a. One more write of a page adds c to all candidates behind the page's write before,
and to no other: a candidate that is no better than a later one never will be again, for what is added to it is added to
the later one too. So only candidates of falling value are kept, each with how much it is below the one before (its
gap). An event appends a candidate, and takes c off one gap; a gap that closes removes the candidate before it. The
first candidate that is left at or behind a place is found by union-find with path halving.

Cost: O(1) an event but for the union-find, which is nearly that; 24 bytes a place on the line. A full line is
compacted by who called. Bad when nearly all candidates stay (every page written once, faster than it is sent): then
the line must grow to as many places as there are events.

Times are int64 picoseconds: 106 days.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from replay.jit import U1, U6, U63, U64, kernel

NEXT, LAST, TOP, TAIL, TURNED = range(5)
NOTHING = -(1 << 62)
"""TOP before the first event."""


class Line(NamedTuple):
    """Candidates in time order. `state`: NEXT place; LAST candidate (-1: none); TOP, TAIL: the values of the first and
    the last candidate in ps; TURNED: pages that were zero and hold data by now."""

    follow: np.ndarray  # int64 (places,)  itself, or a later place on the way to the candidate that replaced it
    before: np.ndarray  # int64 (places,)  the candidate before; -1: none
    gap_ps: np.ndarray  # int64 (places,)  how much less than that one it is worth
    state: np.ndarray  # int64 (5,)


@kernel
def _find(follow: np.ndarray, place: Any) -> Any:
    while follow[place] != place:
        follow[place] = follow[follow[place]]
        place = follow[place]
    return place


@kernel
def _settle(line: Line, place: Any) -> None:
    """Remove the candidates before `place` that are worth no more than it."""
    while line.before[place] >= 0 and line.gap_ps[place] <= 0:
        gone = line.before[place]
        line.follow[gone] = place
        line.before[place] = line.before[gone]
        if line.before[gone] < 0:
            line.state[TOP] -= line.gap_ps[place]
            line.gap_ps[place] = 0
        else:
            line.gap_ps[place] += line.gap_ps[gone]


@kernel
def press(
    t_ps: np.ndarray,
    page: np.ndarray,
    row: Any,
    cost_ps: Any,
    lag_ps: Any,
    zero: np.ndarray,
    first_ps: np.ndarray,
    behind: np.ndarray,
    line: Line,
    tops: np.ndarray,
    turned: np.ndarray,
) -> Any:
    """Go through events from `row` on until the line is full; returns the row that is next.

    t_ps (int64), page (uint32): the events. tops, turned (int64): TOP and TURNED before each event are written there.
    behind (uint32, a page): 1 + the place of its last write, 0 before there is one. zero (uint64 bitmap): pages of
    zeros; a write counts only when it comes `lag_ps` or more after the page's first one (first_ps, int64, a page: its
    time plus 1), and clears the bit then. Mutates zero, first_ps, behind and line.
    """
    state = line.state
    while row < t_ps.size:
        tops[row], turned[row] = state[TOP], state[TURNED]
        if state[NEXT] == line.follow.size:
            return row
        now, number = t_ps[row], U64(page[row])
        row += 1
        word, bit = number >> U6, U1 << (number & U63)
        if zero[word] & bit:
            if first_ps[number] == 0:
                first_ps[number] = now + 1
            if now < first_ps[number] - 1 + lag_ps:
                continue
            zero[word] &= ~bit
            state[TURNED] += 1
        place = state[NEXT]
        state[NEXT] = place + 1
        line.follow[place], line.before[place] = place, state[LAST]
        if state[LAST] < 0:
            line.gap_ps[place], state[TOP] = 0, now
        else:
            line.gap_ps[place] = state[TAIL] - now
            _settle(line, place)
        state[LAST], state[TAIL] = place, now + cost_ps
        found = _find(line.follow, np.int64(behind[number]))
        if line.before[found] < 0:
            state[TOP] += cost_ps
        else:
            line.gap_ps[found] -= cost_ps
            _settle(line, found)
        behind[number] = place + 1
    return row
