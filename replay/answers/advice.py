"""What advice is made of: probes of settings, the least bandwidth of each, and what would make a guest converge."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replay.analysis import share
from replay.config import RunConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One setting from every start moment. `kept`: from how many both limits were kept; None: not all were run, because
    too many failed already. figures: means over those that completed, in ns, bytes and shares."""

    enough: bool
    kept: int | None
    starts: int
    completed: int
    figures: dict[str, float | None]

    def interval(self) -> tuple[float, float] | None:
        """Of the share of moments from which limits are kept."""
        return None if self.kept is None else share.interval(self.kept, self.starts)


@dataclass(frozen=True, kw_only=True)
class Found:
    """A setting and the least bandwidth at which it is enough. bandwidth: bytes/s; None: none up to the most that was
    tried. more_than: what was not enough (the bisection's lower end). beside: (bandwidth, enough) off the path."""

    name: str
    config: RunConfig
    bandwidth: int | None
    more_than: int
    probe: Probe | None
    beside: list[tuple[int, bool]]
    refused: str | None = None

    @property
    def monotone(self) -> bool:
        """Whether no probe contradicts that more bandwidth is never worse."""
        return all((at >= (self.bandwidth or 0)) == fine for at, fine in self.beside)

    @property
    def surely_from(self) -> int | None:
        """The least bandwidth from which on all probes were enough."""
        failed = [at for at, fine in self.beside if not fine]
        above = [at for at, fine in [*self.beside, (self.bandwidth or 0, True)] if fine and at > max(failed, default=0)]
        return min(above, default=None) if self.bandwidth is not None else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        told = {
            "name": self.name, "log": self.config.log, "design": self.config.design, "policy": self.config.policy,
            "bandwidth": self.bandwidth, "more_than": self.more_than, "refused": self.refused,
            "beside": [{"bandwidth": at, "enough": fine} for at, fine in self.beside],
            "monotone": self.monotone, "surely_from": self.surely_from,
        }  # fmt: skip
        return told | ({"probe": None} if self.probe is None else {"probe": _told(self.probe)})


def _told(probe: Probe) -> dict[str, Any]:
    return dataclasses.asdict(probe) | {"interval": probe.interval(), "interval_of": share.NAME}


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """A thing changed at the bandwidth that there is. value: what it takes, in words; None: it does not help."""

    name: str
    value: str | None
    probe: Probe | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"name": self.name, "value": self.value, "probe": None if self.probe is None else _told(self.probe)}


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What `replay.advise` returns.

    now: the guest at the bandwidth there is; remedies: what would make it converge, empty if it does. settings: what
    was searched, in order; best: the least bandwidth without slowing the guest by a policy, slowed: with one (None
    where none was found, or a policy needs no less).
    """

    now: Probe
    config: RunConfig
    limits: dict[str, Any]
    remedies: list[Remedy]
    settings: list[Found]
    best: Found | None
    slowed: Found | None
    probes: int
    provenance: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The object that `replay advise --json` prints."""
        return {
            "limits": self.limits,
            "now": {"max_bandwidth": self.config.max_bandwidth, "link": self.config.link, **_told(self.now)},
            "converges": self.now.enough,
            "remedies": [remedy.as_dict() for remedy in self.remedies],
            "best": None if self.best is None else self.best.as_dict(),
            "slowed": None if self.slowed is None else self.slowed.as_dict(),
            "settings": [found.as_dict() for found in self.settings],
            "probes": self.probes,
            "provenance": self.provenance,
        }

    def plot(self) -> Figure:
        """The least bandwidth of every setting, and what was probed. Needs matplotlib."""
        from replay.analysis.answer_plots import advice_figure

        return advice_figure(self.as_dict())
