"""Put a replay together: trace, log, design, parameters; run it; get a result. What `import replay` offers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replay import config as configuration
from replay.errors import UsageError
from replay.results.result import Result

if TYPE_CHECKING:
    from replay.migration.precopy import Progress
    from replay.trace.reader import Trace


def open_trace(path: str | os.PathLike[str]) -> Trace:
    """Open a trace file, or one of the shipped traces by its name.

    Raises TraceError when the file is damaged or no trace.
    """
    from replay.trace import reader, shipped

    return reader.open_trace(shipped.find(path))


def run(trace: Trace | str | os.PathLike[str], *, progress: Progress | None = None, **options: Any) -> Result:
    """Replay `trace` through one dirty log and one design.

    `options` are the fields of `replay.config.RunConfig`: log="kvm-ring:4096", design="double-ring:1024", memory="96G",
    max_bandwidth="1250MiB/s", downtime_limit="300ms", ... Raises UsageError for unknown or senseless options and
    TraceError for a damaged trace. Same trace and options: same result, bit for bit, but for `measured_*` and
    provenance.
    """
    return run_config(trace, configuration.make(options), progress=progress)


def run_config(
    trace: Trace | str | os.PathLike[str], config: configuration.RunConfig, *, progress: Progress | None = None
) -> Result:
    """The same with a ready configuration."""
    from replay.migration import costs, precopy, scale
    from replay.migration.feed import Feed
    from replay.migration.warm import warm
    from replay.plugins import parse
    from replay.results.provenance import provenance

    opened = open_trace(trace) if isinstance(trace, str | os.PathLike) else trace
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
    warm(log, design, config.formulation)
    stalls = getattr(log.module, "STALLS_VCPUS", False)
    feed = Feed(
        source,
        start_ns=config.start,
        lanes=source.shape.n_vcpus + 1 if stalls else 1,
        loop=config.at_end == "loop",
        closed_loop=not config.open_loop,
        check=config.check,
    )
    parameters = precopy.Parameters(
        max_bandwidth=config.max_bandwidth,
        downtime_limit_ms=config.downtime_limit,
        link_bandwidth=config.link,
        give_up_ns=config.give_up,
        formulation=config.formulation,
        version=config.qemu_version,
        recorded_throttled=opened.metadata.throttled,
        guest_busy_pct=max(1, round(config.guest_busy * 100)),
    )
    plugin = parse("policy", config.policy) if config.policy else None
    machine = precopy.Precopy(
        log.build(source.shape), design.build(source.shape), feed, parameters, table, source.shape.n_pages,
        None if plugin is None else plugin.module.build(plugin.config),
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
