"""Will a guest converge, and what would make it: a search over replays from many moments of the recording.

A setting *is enough* when, from at least the wanted share of the start moments, the migration completes within the
total time, loses no page and could not have, and keeps max_downtime where that is given (QEMU's downtime-limit, which
decides when the guest is stopped, is met but for some ms by itself); without a policy, the guest must also not lose
more than max_slowdown of its time to full rings and to pages that its vCPUs send. The least bandwidth of a setting is
found by bisection, to within `tolerance`; it is at once the wire's and QEMU's max-bandwidth, or, where the wire is
given (link), only the latter. Settings are tried in turn: every design as it comes, then the best one's rings, then
policies. One that is not enough at a little less than the best so far is no better, and is left at that after one
probe: of such only a lower end is known ("more than").

Bisection takes for granted that more bandwidth is never worse. It can be: a little more moves every sync, and an
unlucky one meets a burst. So the result is probed beside the path, above and below; where a probe contradicts, the
answer says so, and the bandwidth from which on all probes were enough.

The share of start moments that converge is given with the interval of Clopper and Pearson (95 %), which covers the true
share at least that often if moments are drawn independently. Here they are spread evenly over the recording, and that
it is like the guest's future is assumed.

A guest that does not converge at the bandwidth it has is asked what would make it (replay.answers.remedies).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from replay import plugins
from replay.answers.advice import Advice
from replay.answers.remedies import remedies
from replay.answers.search import Limits, Search
from replay.answers.trials import Told, Trials
from replay.config import make
from replay.errors import UsageError
from replay.units import parse_duration_ns, parse_share

STARTS = 8
_SEARCHED = ("design", "policy", "start")


def advise(
    trace: Any,
    *,
    downtime_limit: Any = "300ms",
    max_total_time: Any = "60s",
    max_downtime: Any = None,
    max_slowdown: Any = 0.05,
    designs: list[str] | None = None,
    policies: list[str] | None = None,
    starts: int = STARTS,
    wanted: Any = 1.0,
    tolerance: Any = 0.02,
    threads: int | None = None,
    progress: Told | None = None,
    **options: Any,
) -> Advice:
    """What it takes for `trace` to be migrated within its limits.

    downtime_limit: QEMU's parameter. max_total_time, max_downtime ("310ms", None), max_slowdown (a share): what must
    be kept. designs, policies: spellings to search (default: every safe design; auto-converge; [] for no policy).
    starts: moments of the recording at which a migration begins. wanted: share of them from which limits must be kept.
    tolerance: of the bandwidth. options: those of `replay.run`; max_bandwidth (128 MiB/s unless given) is what the
    guest has now. Raises UsageError, and TraceError for a damaged trace.
    """
    from replay.grid import safe_designs

    for taken in ("start", "give_up"):
        if taken in options:
            raise UsageError(f"advise chooses {taken.replace('_', '-')} itself: leave it out")
    total_ns, share_wanted, step = parse_duration_ns(max_total_time), parse_share(wanted), parse_share(tolerance)
    if not share_wanted or not 0.001 <= step <= 1:
        raise UsageError("the wanted share must be above 0, and the tolerance from 0.1% to 100%")
    limits = Limits(
        max_downtime_ns=None if max_downtime is None else parse_duration_ns(max_downtime),
        max_slowdown=parse_share(max_slowdown),
    )
    base = make({**options, "downtime_limit": downtime_limit, "give_up": total_ns})
    if not base.max_bandwidth and not base.link:
        base = dataclasses.replace(base, max_bandwidth=make({}).max_bandwidth)
    names = safe_designs() if designs is None else list(designs)
    if not names:
        raise UsageError("advise searches designs: give at least one")
    if designs is not None and "design" not in options:
        base = dataclasses.replace(base, design=names[0])
    names.sort(key=lambda name: name != base.design)
    slowing = ["auto-converge"] if policies is None else list(policies)
    for kind, spelled in [("design", name) for name in names] + [("policy", name) for name in slowing]:
        plugins.parse(kind, spelled)
    with Trials(trace, threads=threads, progress=progress) as trials:
        search = Search(trials, base, trials.starts(starts), share_wanted, step, limits)
        now = search.probe(search.at(base, base.max_bandwidth), whole=True)
        found = search.settings(names, slowing)
        calm = [entry for entry in found if entry.bandwidth is not None and not entry.config.policy]
        best = min(calm, key=lambda entry: entry.bandwidth or 0, default=None)
        slowed = min(
            (entry for entry in found if entry.bandwidth is not None and entry.config.policy),
            key=lambda entry: entry.bandwidth or 0, default=None,
        )  # fmt: skip
        if best is not None and slowed is not None and (slowed.bandwidth or 0) >= (best.bandwidth or 0):
            slowed = None
        best, slowed = (None if entry is None else search.checked(entry) for entry in (best, slowed))
        helpful = [] if now.enough else remedies(search, names, slowing, best)
        meta = trials.guest.metadata
        return Advice(
            now=now,
            config=search.at(base, base.max_bandwidth),
            limits={
                "downtime_ms": base.downtime_limit, "total_ns": total_ns, "starts": starts, "wanted": share_wanted,
                "tolerance": step, **dataclasses.asdict(limits),
            },
            remedies=helpful,
            settings=found,
            best=best,
            slowed=slowed,
            probes=search.probes,
            provenance={
                "trace": {"name": trials.guest.path.name, "title": meta.title, "sha256": trials.guest.digest},
                "options": {key: value for key, value in base.as_dict().items() if key not in _SEARCHED},
            },
        )  # fmt: skip
