"""Put a replay together: trace, log, design, parameters; run it; get a result. What `import replay` offers."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replay import config as configuration
from replay.errors import UsageError, unknown_name
from replay.results.result import Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replay.analysis.phase_map import Phase
    from replay.describing.fit import Fit
    from replay.describing.heat import Heat
    from replay.describing.stat import Stat
    from replay.importing.run import Imported
    from replay.migration.precopy import Progress
    from replay.safety.check import Verdict
    from replay.synthesis.synthetic import Synthetic
    from replay.synthesis.writing import Progress as Written
    from replay.trace.reader import Trace


def open_trace(path: str | os.PathLike[str]) -> Trace | Synthetic:
    """Open a trace file, one of the shipped traces by its name, or a workload by its spelling ("zipf:rate=20000").

    Raises TraceError when the file is damaged or no trace, UsageError for a misspelt workload.
    """
    from replay.trace import reader, shipped

    if isinstance(path, str):
        from replay.synthesis import spelling, synthetic

        if spelling.is_workload(path):
            return synthetic.open_workload(path)
    return reader.open_trace(shipped.find(path))


def generate(
    workload: str,
    output: str | os.PathLike[str] | None = None,
    *,
    memory: str | int | None = None,
    vcpus: int | None = None,
    duration: str | None = None,
    rate: str | int | None = None,
    seed: int | None = None,
    progress: Written | None = None,
) -> Trace | Synthetic:
    """A generated guest: written to the trace file `output` in bounded memory, or, without one, made when it is needed.

    workload: a spelling, "hot-cold:rate=20000" or "zipf+redis-1g:on=0", or a config file, "guest.toml". rate: pages a second ("50000", "200MB/s") of
    all parts together. What is not given is as spelled, as recorded, or 1 GiB, 4 vCPUs, 10 s, seed 1. Raises UsageError and,
    for a file that cannot be written, TraceError.
    """
    from replay.synthesis import synthetic, writing

    made = synthetic.open_workload(workload, memory=memory, vcpus=vcpus, duration=duration, rate=rate, seed=seed)
    return made if output is None else writing.write(made, output, progress)


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
    progress: Written | None = None,
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
    progress: Written | None = None,
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
    progress: Written | None = None,
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
    progress: Written | None = None,
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
    progress: Written | None = None,
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
    progress: Written | None = None,
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
    progress: Written | None = None,
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
    """What the index says of each shipped trace: name, title, sha256, events, duration_ns, memory_bytes, capture, ..."""
    from replay.trace import shipped

    return shipped.index()


def _opened(trace: Trace | Synthetic | str | os.PathLike[str]) -> Any:
    return open_trace(trace) if isinstance(trace, str | os.PathLike) else trace


def _ns(time: str | int) -> int:
    """A time as ns: a number, or text with a unit ("0" needs none)."""
    from replay.units import parse_duration_ns

    return time if isinstance(time, int) else 0 if time == "0" else parse_duration_ns(time)


def import_trace(
    kind: str,
    files: str | os.PathLike[str] | list[str],
    output: str | os.PathLike[str],
    *,
    progress: Written | None = None,
    **options: Any,
) -> Imported:
    """Make a trace of a recording: kind "kvm-ftrace", "qemu-log", "qemu-simpletrace", "table", or a path to your own.

    `files`: one or several, in their order; "-" is standard input; gzip and zstd are unpacked. `options`: those of
    `replay import KIND --help`, as texts or numbers: slots="0=pc.ram@0+1G", max_dropped=0.05, memory="1G". The result
    has the counts of every line, and the trace (kind "cloud-hypervisor" gives rounds instead). Raises UsageError, and
    TraceError when more than max_dropped is missing; then nothing is written.
    """
    import dataclasses

    from replay import plugins
    from replay.importing import run as importing
    from replay.importing.options import Options

    texts = {name: spelled if isinstance(spelled, str) else str(spelled) for name, spelled in options.items()}
    common = {field.name for field in dataclasses.fields(Options)}
    settled = Options(**plugins.converted(Options, {n: t for n, t in texts.items() if n in common}, "import"))
    importer = plugins.configured("importer", kind, {n: t for n, t in texts.items() if n not in common})
    names = [os.fspath(files)] if isinstance(files, str | os.PathLike) else [os.fspath(file) for file in files]
    return importing.import_files(importer, names, output, settled, progress)


def run(
    trace: Trace | Synthetic | str | os.PathLike[str], *, progress: Progress | None = None, **options: Any
) -> Result:
    """Replay `trace` through one dirty log and one design.

    `options` are the fields of `replay.config.RunConfig`: log="kvm-ring:4096", design="double-ring:1024", memory="96G",
    max_bandwidth="1250MiB/s", downtime_limit="300ms", ... Raises UsageError for unknown or senseless options and
    TraceError for a damaged trace. Same trace and options: same result, bit for bit, but for `measured_*` and
    provenance.
    """
    return run_config(trace, configuration.make(options), progress=progress)


def run_config(
    trace: Trace | Synthetic | str | os.PathLike[str],
    config: configuration.RunConfig,
    *,
    progress: Progress | None = None,
) -> Result:
    """The same with a ready configuration."""
    from replay.migration import costs, precopy, scale
    from replay.migration.feed import Feed
    from replay.migration.parameters import Parameters
    from replay.migration.policy import attach
    from replay.migration.warm import warm
    from replay.migration.xbzrle import Settings
    from replay.plugins import parse
    from replay.results.provenance import provenance
    from replay.synthesis.synthetic import settled

    opened = open_trace(trace) if isinstance(trace, str | os.PathLike) else trace
    opened = settled(opened, config.memory, config.seed)
    log, design = parse("log", config.log), parse("design", config.design)
    table = costs.load(config.costs)
    if not 0 <= config.start < opened.metadata.duration_ns:
        raise UsageError(f"start must lie within the recording of {opened.metadata.duration_ns / 1e9:.3f} s")
    source = scale.scaled(
        opened,
        memory_bytes=config.memory,
        fit=config.fit,
        rest=config.rest,
        zero_share=config.zero_share,
        seed=config.seed,
    )
    warm(log, design, config.formulation, config.xbzrle is not None)
    stalls = any(getattr(plugin.module, "STALLS_VCPUS", False) for plugin in (log, design))
    feed = Feed(
        source,
        start_ns=config.start,
        lanes=source.shape.n_vcpus + 1 if stalls else 1,
        loop=config.at_end == "loop",
        closed_loop=not config.open_loop,
        check=config.check,
    )
    xbzrle = None
    if config.xbzrle is not None:
        xbzrle = Settings(
            cache_bytes=config.xbzrle, share_ppm=round(config.xbzrle_share * 10**6), delta_bytes=config.xbzrle_bytes
        )
    parameters = Parameters(
        max_bandwidth=config.max_bandwidth,
        downtime_limit_ms=config.downtime_limit,
        link_bandwidth=config.link,
        give_up_ns=config.give_up,
        formulation=config.formulation,
        version=config.qemu_version,
        recorded_throttled=opened.metadata.throttled,
        guest_busy_pct=max(1, round(config.guest_busy * 100)),
        zero_page_detection=config.zero_page_detection,
        mapped_ram=config.mapped_ram,
        xbzrle=xbzrle,
    )
    plugin = parse("policy", config.policy) if config.policy else None
    decides = None if plugin is None else plugin.module.build(plugin.config)
    log_state = log.build(source.shape)
    attach(decides, log.module, log_state)
    machine = precopy.Precopy(
        log_state, design.build(source.shape), feed, parameters, table, source.shape.n_pages,
        decides,
    )  # fmt: skip
    outcome = machine.run(progress)
    described = config.as_dict() | {
        "log": log.label,
        "design": design.label,
        "policy": "" if plugin is None else plugin.label,
        "memory": source.shape.n_pages * opened.metadata.page_size,
    }
    return Result(
        status=outcome.status,
        summary=outcome.summary,
        rows=outcome.rounds,
        lost_pages=outcome.lost_pages,
        redundant_pages=outcome.redundant_pages,
        unsafe=design.unsafe,
        guest=outcome.guest,
        config=described,
        provenance=provenance(opened, log, design, table),
    )


def load(path: str | os.PathLike[str]) -> Result:
    """Read a result that `Result.save` (or `replay run -o`) wrote. Raises ResultError when it is none."""
    return Result.load(Path(path))


def compare(results: list[Result]) -> Any:
    """Results side by side: a polars DataFrame, one row a result, ratios to the first. See replay.analysis.compare."""
    from replay.analysis.compare import compare as side_by_side

    return side_by_side(results)


def validate(folders: list[str | os.PathLike[str]], **options: Any) -> dict[str, Any]:
    """Predict recorded migrations and compare; what `replay validate --json` prints. See replay.validation.run."""
    from replay.validation.run import validate as predict_and_compare

    return predict_and_compare(folders, **options)


def phase(trace: Trace | Synthetic | str | os.PathLike[str], **options: Any) -> Phase:
    """Which design wins where: a grid of replays over two or three axes. See replay.grid.phase for what it takes."""
    from replay.grid import phase as run_grid

    return run_grid(trace, **options)


def check(design: str, **bounds: Any) -> Verdict:
    """Explore every interleaving of `design` on small guests: can it lose a page, or get stuck?

    `bounds` are the fields of `replay.safety.check.Request`: log, pages=3, ring=2, writes=4, vcpus=1, devices=1,
    max_states. Raises UsageError for unknown names and bounds that make no sense. The verdict says `safe` only when
    everything was explored; an unsafe one has the shortest `schedule`.
    """
    from replay.safety.check import Request
    from replay.safety.check import check as explore

    known = [field.name for field in dataclasses.fields(Request) if field.name != "design"]
    for name in bounds:
        if name not in known:
            raise unknown_name("bound", name, known)
    return explore(Request(design=design, **bounds))
