"""Traces made of traces, and what traces look like: part of what `replay.api` offers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replay.describing.fit import Fit
    from replay.describing.heat import Heat
    from replay.describing.stat import Stat
    from replay.synthesis.synthetic import Synthetic
    from replay.trace.reader import Trace
    from replay.trace.writer import Progress


def slice_trace(
    trace: Trace | Synthetic | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    start: str | int = 0,
    end: str | int | None = None,
    pages: Sequence[str] = (),
    within: Sequence[str] = (),
    keep_times: bool = False,
    keep_pages: bool = False,
    progress: Progress | None = None,
) -> Trace:
    """A part of a trace as a trace file: the time from `start` to `end` ("1s"; a number is ns), some pages, or both.

    pages: ranges by number ("0-65536", the end exclusive); within: ranges of memory ("0-512M", "25%-50%"). Times and
    pages count from 0 unless kept. Raises UsageError for a cut outside the trace, overlaps, or nothing left.
    """
    from replay.reshaping import ranges
    from replay.reshaping.cut import slice_trace as cut

    source = _opened(trace)
    meta = source.metadata
    chosen = [ranges.numbered(text) for text in pages]
    chosen += [ranges.within(text, meta.n_pages, meta.page_size) for text in within]
    return cut(
        source, output, from_ns=_ns(start), to_ns=None if end is None else _ns(end), pages=chosen or None,
        keep_times=keep_times, keep_pages=keep_pages, progress=progress,
    )  # fmt: skip


def sample_trace(
    trace: Trace | Synthetic | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    keep: str | float,
    by: str = "pages",
    seed: int = 1,
    progress: Progress | None = None,
) -> Trace:
    """A thinned trace as a file: a share `keep` ("10%") of its pages with all their events, or (by="events") of events.

    See replay.reshaping.thin for what each keeps of the guest. Raises UsageError.
    """
    from replay.reshaping.thin import sample_trace as thin
    from replay.units import parse_share

    return thin(_opened(trace), output, keep=parse_share(keep), by=by, seed=seed, progress=progress)


def merge_traces(
    traces: Sequence[Trace | Synthetic | str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    of: str = "guests",
    progress: Progress | None = None,
) -> Trace:
    """Several traces as one, in time order: guests side by side in memory, or (of="vcpus") vCPUs of one guest.

    Raises UsageError when they do not go together.
    """
    from replay.reshaping.join import merge_traces as merge

    return merge([_opened(trace) for trace in traces], output, of=of, progress=progress)


def scale_trace(
    trace: Trace | Synthetic | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    speed: str | float | None = None,
    memory: str | int | None = None,
    fit: str = "embed",
    rest: str = "zero",
    seed: int = 1,
    progress: Progress | None = None,
) -> Trace:
    """A trace with guest time `speed` ("4x") times as fast, in `memory` of another size, or both, as a file.

    fit: embed, tile or stretch, as replay.reshaping.sizes has them. Raises UsageError.
    """
    from replay.reshaping.scale import scale_trace as scale
    from replay.units import parse_bytes, parse_factor

    return scale(
        _opened(trace), output, speed_up=None if speed is None else parse_factor(speed),
        memory_bytes=None if memory is None else parse_bytes(memory), fit=fit, rest=rest, seed=seed, progress=progress,
    )  # fmt: skip


def stat(
    trace: Trace | Synthetic | str | os.PathLike[str],
    windows: Sequence[str | int] = ("100ms", "1s", "10s"),
    progress: Progress | None = None,
) -> Stat:
    """What a trace looks like: rate, working sets, runs, reuse, skew, period. See replay.describing.stat.

    windows: lengths of the windows of working sets. Raises UsageError, TraceError.
    """
    from replay.describing.stat import stat as describe

    return describe(_opened(trace), [_ns(window) for window in windows], progress)


def heatmap(
    trace: Trace | Synthetic | str | os.PathLike[str],
    *,
    rows: int = 400,
    columns: int = 800,
    start: str | int = 0,
    end: str | int | None = None,
    within: str | None = None,
    progress: Progress | None = None,
) -> Heat:
    """Writes by address and time: a grid of counts. replay.analysis.heat_plot.draw makes a figure of it.

    Raises UsageError, TraceError.
    """
    from replay.describing.heat import heat
    from replay.reshaping import ranges

    source = _opened(trace)
    meta = source.metadata
    pages = None if within is None else ranges.within(within, meta.n_pages, meta.page_size)
    to_ns = None if end is None else _ns(end)
    return heat(source, rows=rows, columns=columns, from_ns=_ns(start), to_ns=to_ns, pages=pages, progress=progress)


def fit(
    trace: Trace | Synthetic | str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    seed: int = 1,
    progress: Progress | None = None,
) -> Fit:
    """The mixture of workloads whose figures come nearest to a trace's; written as a generator config to `output`.

    A fit, not a model: what it was not fitted to it does not know. See replay.describing.fit. Raises UsageError.
    """
    from replay.describing.fit import fit as search

    found = search(_opened(trace), seed=seed, progress=progress)
    if output is not None:
        found.save(output)
    return found


def shipped_traces() -> list[dict[str, Any]]:
    """What the index says of each shipped trace: name, title, sha256, events, duration_ns, memory_bytes, ..."""
    from replay.trace import shipped

    return shipped.index()


def _opened(trace: Trace | Synthetic | str | os.PathLike[str]) -> Any:
    from replay.api import open_trace

    return open_trace(trace) if isinstance(trace, str | os.PathLike) else trace


def _ns(time: str | int) -> int:
    """A time as ns: a number, or text with a unit ("0" needs none)."""
    from replay.units import parse_duration_ns

    return time if isinstance(time, int) else 0 if time == "0" else parse_duration_ns(time)
