"""The books of an import: every line read is an event, known and of no use here, or dropped for a stated reason.

`read == events + sum(dropped) + sum(other)` holds at the end of every import. What the recording itself lost before it
reached us (a gap in a ring's index, a LOST mark, a dropped-events record) is no line; it is counted apart, in `lost`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from replay.importing.streams import quoted

SHOWN_REASONS = 6
GAP = "gaps in a ring's index"


class Tally:
    """Counts of one import. `unit` is what is counted: "line", "record" or "row"."""

    def __init__(self, unit: str = "line") -> None:
        self.unit = unit
        self.read = 0
        self.events = 0
        self.dropped: Counter[str] = Counter()
        self.other: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def drop(self, reason: str, where: str, text: bytes | str = b"", count: int = 1) -> None:
        """A line (or `count` of them) that gives no event; the first of each reason is kept as an example."""
        if reason not in self.first:
            self.first[reason] = where + (f": {quoted(text)}" if text else "")
        self.dropped[reason] += count

    def undo(self, reason: str, count: int) -> None:
        """`count` events turn out to be none: dropped after all."""
        self.events -= count
        self.dropped[reason] += count

    @property
    def n_dropped(self) -> int:
        return sum(self.dropped.values())

    @property
    def n_lost(self) -> int:
        """Events lost before the file was written. Gaps are another way to notice what else is counted as lost."""
        gaps = self.lost[GAP]
        return max(gaps, sum(self.lost.values()) - gaps)

    @property
    def share(self) -> float:
        """Dropped lines and lost events, as a share of them and the events."""
        gone = self.n_dropped + self.n_lost
        return gone / max(gone + self.events, 1)

    def to_plain(self) -> dict[str, Any]:
        """All counts, ready for JSON."""
        return {
            "unit": self.unit,
            "read": self.read,
            "events": self.events,
            "dropped": dict(self.dropped),
            "other": dict(self.other),
            "lost": {reason: count for reason, count in self.lost.items() if count},
            "notes": dict(self.notes),
            "dropped_share": round(self.share, 9),
            "first": self.first,
        }

    def sentence(self) -> str:
        """What is missing, in words, for a trace's limits; what was dropped and why."""
        parts = [
            f"{count:,} {self.unit}{'s'[: count != 1]} dropped ({reason})" for reason, count in _largest(self.dropped)
        ]
        parts += [f"{count:,} events lost in the recording ({reason})" for reason, count in _largest(self.lost)]
        return "; ".join(parts)

    def complaint(self) -> str:
        """The same with the first place of each reason, for an error message."""
        parts = [
            f"{reason}: {count:,}" + (f" (first: {self.first[reason]})" if reason in self.first else "")
            for reason, count in [*_largest(self.dropped), *_largest(self.lost)]
        ]
        return "; ".join(parts)


def _largest(counts: Counter[str]) -> list[tuple[str, int]]:
    found = [(reason, count) for reason, count in counts.most_common() if count]
    rest = sum(count for _, count in found[SHOWN_REASONS:])
    return found[:SHOWN_REASONS] + ([("other reasons", rest)] if rest else [])
