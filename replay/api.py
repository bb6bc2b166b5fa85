"""Put a replay together: trace, log, design, parameters; run it; get a result. What `import replay` offers."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replay import config as configuration
from replay.analysis_api import doctor, explain, explain_rounds, explain_seed, export_perfetto, plot, report
from replay.answers_api import advise, bound, fleet, pareto
from replay.errors import UsageError, unknown_name
from replay.results.result import Result
from replay.traces_api import (
    fit,
    heatmap,
    merge_traces,
    sample_trace,
    scale_trace,
    shipped_traces,
    slice_trace,
    stat,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from replay.analysis.phase_map import Phase
    from replay.capturing.run import Captured
    from replay.capturing.stop import Stop
    from replay.importing.run import Imported
    from replay.migration.precopy import Progress
    from replay.reproducing.report import Report as Reproduction
    from replay.safety.check import Verdict
    from replay.sweeping.dataset import Sweep
    from replay.sweeping.plan import Plan
    from replay.sweeping.run import Report, Standing
    from replay.synthesis.synthetic import Synthetic
    from replay.trace.reader import Trace
    from replay.trace.writer import Progress as Written

# What `replay` offers, by the names of its own `__all__`.
__all__ = [
    "Result", "advise", "bound", "capture_trace", "check", "compare", "doctor", "explain", "explain_rounds",
    "explain_seed", "export_perfetto", "fit", "fleet", "generate", "heatmap", "import_trace", "load", "load_sweep",
    "merge_traces", "open_trace", "pareto", "phase", "plot", "rank_sweep", "report", "reproduce", "run",
    "sample_trace", "scale_trace", "shipped_traces", "slice_trace", "stat", "sweep", "sweep_plan", "validate",
]  # fmt: skip


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

    workload: a spelling, "hot-cold:rate=20000" or "zipf+redis-1g:on=0", or a config file, "guest.toml". rate: pages a
    second ("50000", "200MB/s") of all parts together. What is not given is as spelled, as recorded, or 1 GiB, 4 vCPUs,
    10 s, seed 1. Raises UsageError and, for a file that cannot be written, TraceError.
    """
    from replay.synthesis import synthetic, writing

    made = synthetic.open_workload(workload, memory=memory, vcpus=vcpus, duration=duration, rate=rate, seed=seed)
    return made if output is None else writing.write(made, output, progress)


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
    from replay.importing import run as importing
    from replay.importing.options import Options

    importer, settled = _of_kind("importer", kind, Options, "import", options)
    names = [os.fspath(files)] if isinstance(files, str | os.PathLike) else [os.fspath(file) for file in files]
    return importing.import_files(importer, names, output, settled, progress)


def capture_trace(
    kind: str,
    output: str | os.PathLike[str],
    command: Sequence[str] = (),
    *,
    announce: Callable[[list[str]], None] | None = None,
    progress: Written | None = None,
    stop: Stop | None = None,
    to_stderr: bool = False,
    **options: Any,
) -> Captured:
    """Record a trace of something that runs now: kind "qemu", "process", "kvm-microvm", or a path to your own.

    `command`: the program to run, for the kinds that take one. `options`: those of `replay capture KIND --help`, as
    texts or numbers: duration="5s". `announce` is called once with lines that say what will be done, `progress` with
    (ns so far, ns in all or 0). It ends by itself, after `duration`, with Ctrl-C (in the main thread), or when `stop`
    (a replay.capturing.stop.Stop) is asked to; the trace is then complete up to there. `to_stderr`: a program's
    standard output goes to standard error. Raises UsageError, and TraceError when nothing was or can be captured.
    """
    from replay.capturing import run as capturing
    from replay.capturing.options import Options

    plugin, settled = _of_kind("capture", kind, Options, "capture", options)
    return capturing.capture(
        plugin, output, command, settled, announce=announce, progress=progress, stop=stop, to_stderr=to_stderr
    )


def _of_kind(plugin: str, kind: str, common: Any, command: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """A plug-in and the dataclass `common` of what every kind takes, both from `options`: texts or numbers."""
    from replay import plugins

    texts = {name: str(value) for name, value in options.items()}
    names = {field.name for field in dataclasses.fields(common)}
    settled = common(**plugins.converted(common, {n: t for n, t in texts.items() if n in names}, command))
    return plugins.configured(plugin, kind, {n: t for n, t in texts.items() if n not in names}), settled


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
    from replay.migration.multifd import Channels
    from replay.migration.parameters import Parameters
    from replay.migration.policy import attach
    from replay.migration.postcopy import Switch
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
    stalls = any(getattr(plugin.module, "STALLS_VCPUS", False) for plugin in (log, design))
    feed = Feed(
        source,
        start_ns=config.start,
        lanes=source.shape.n_vcpus + 1 if stalls or config.postcopy_after is not None else 1,
        loop=config.at_end == "loop",
        closed_loop=not config.open_loop,
        check=config.check,
    )
    xbzrle = None
    if config.xbzrle is not None:
        xbzrle = Settings(
            cache_bytes=config.xbzrle, share_ppm=round(config.xbzrle_share * 10**6), delta_bytes=config.xbzrle_bytes
        )
    channels = None
    if config.multifd_channels:
        channels = Channels(count=config.multifd_channels, find_zeros=config.zero_page_detection == "multifd")
    switch = None
    if config.postcopy_after is not None:
        switch = Switch(after_ms=config.postcopy_after // 10**6, max_bandwidth=config.postcopy_bandwidth)
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
        multifd=channels,
        postcopy=switch,
    )
    warm(
        log, design, config.formulation,
        cached=xbzrle is not None, channels=channels is not None, switches=switch is not None,
    )  # fmt: skip
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
    """Predict recorded migrations and compare; what `replay validate --json` prints. See replay.validation.run.

    One file instead of folders is the summary that import_trace("cloud-hypervisor", ...) wrote; `trace` is then needed.
    """
    from replay.validation.run import validate as predict_and_compare

    return predict_and_compare(folders, **options)


def phase(trace: Trace | Synthetic | str | os.PathLike[str], **options: Any) -> Phase:
    """Which design wins where: a grid of replays over two or three axes. See replay.grid.phase for what it takes."""
    from replay.grid import phase as run_grid

    return run_grid(trace, **options)


def reproduce(
    experiment: str,
    *,
    sensitivity: bool = True,
    cases: Sequence[str | os.PathLike[str]] = (),
    progress: Callable[[int, str], None] | None = None,
) -> Reproduction:
    """Replay a published experiment ("imamura-2024", or a path to a scenario of your own) and compare cell by cell.

    sensitivity: also ask what the conditions are worth that the source leaves open. cases: folders of recorded
    migrations, for the experiment "accuracy". progress is called with (replays done, the last one's cell). The report
    has `.figures`, `.frame` (polars), `.fits`, `.what_ifs`, `.sign_agreement`, `.as_dict()`. Raises UsageError.
    """
    from replay.reproducing import accuracy, scan, scenario
    from replay.reproducing import experiment as replays

    found = scenario.load(os.fspath(experiment))
    if found.kind == "scan":
        return scan.scanned(found, progress)
    if found.kind == "accuracy":
        return accuracy.judged(found, cases)
    return replays.replayed(found, sensitivity=sensitivity, progress=progress)


def sweep(
    plan: str | os.PathLike[str] | dict[str, Any],
    output: str | os.PathLike[str],
    *,
    executor: Executor | str | None = None,
    jobs: int | None = None,
    shard: str | None = None,
    resume: bool = False,
    fail_fast: bool = False,
    merge: Sequence[str | os.PathLike[str]] = (),
    best: str = "total-time",
    progress: Callable[[Standing], None] | None = None,
) -> Report:
    """Run a plan's replays into the folder `output`; `load_sweep` reads what they came to.

    plan: a TOML file, or a dict of the same form (replay.sweeping.plan). executor: any of concurrent.futures, or
    "threads", "processes:N", "dask:tcp://HOST:PORT", "dask:local:N". jobs: runs at once. shard: "I/N", every N-th run
    from the I-th. resume: go on with what is there. merge: folders of sweeps whose runs are taken over. best: the
    figure of the best run that `progress` is told of. Raises UsageError before the first run, StoreError when results
    cannot be kept, and with fail_fast ReplayError.
    """
    from replay.analysis.phase import figure_of
    from replay.sweeping import run
    from replay.sweeping.store import WHOLE, Shard

    part = WHOLE if shard is None else Shard.parse(shard)
    return run.sweep(
        sweep_plan(plan, output), Path(output), figure=figure_of(best), executor=executor, jobs=jobs, shard=part,
        resume=resume, fail_fast=fail_fast, merge=[Path(folder) for folder in merge], progress=progress,
    )  # fmt: skip


def sweep_plan(plan: str | os.PathLike[str] | dict[str, Any], output: str | os.PathLike[str]) -> Plan:
    """What `sweep` would run: a plan with its traces found. Those from object stores are fetched into `output`."""
    from replay.sweeping import plan as planning
    from replay.sweeping.store import FETCHED

    fetched = Path(output) / FETCHED
    return planning.make(plan, fetched) if isinstance(plan, dict) else planning.read(os.fspath(plan), fetched)


def load_sweep(folder: str | os.PathLike[str]) -> Sweep:
    """A finished sweep: `.runs`, `.rounds`, `.points` and `.measured` are polars LazyFrames. Raises ResultError."""
    from replay.sweeping.dataset import load as load_dataset

    return load_dataset(Path(folder))


def rank_sweep(
    folder: str | os.PathLike[str],
    by: Sequence[str] | None = None,
    best: str = "total-time",
    baseline: str | None = None,
) -> Any:
    """The settings of a finished sweep, best first: a polars DataFrame. See replay.analysis.rank.

    by: axes or columns of `runs` (default: every axis but seed and start, and the trace where there are several).
    """
    from replay.analysis.phase import figure_of
    from replay.sweeping.summary import ranking

    return ranking(load_sweep(folder), None if by is None else list(by), figure_of(best), baseline)


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
