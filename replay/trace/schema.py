"""Trace format, version 1: the metadata fields and the columns.

`TraceMetadata` is the one table of fields. Kind, unit and meaning of each stand beside it; the checks of a
file's metadata and the table in traces/README.md are derived from them, so that a field is described once.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from replay.errors import TraceError
from replay.trace.metadata_checks import (
    FORMAT_VERSION,
    KINDS,
    MAX_VCPUS,
    REQUIRED_PROVENANCE,
    PageRun,
    RamBlock,
    is_integer,
    largest_gap,
    short,
    value_faults,
)

METADATA_KEY = "replay.trace"
VERSION_KEY = "replay.trace.version"
ROW_GROUP_ROWS = 1 << 20

SOURCE_CODES: dict[str, int] = {"vcpu": 0, "host": 1, "dma": 2, "vhost": 3, "vfio": 4}
SOURCE_NAMES: tuple[str, ...] = tuple(SOURCE_CODES)
SOURCE_SHIFT = 13

# Arrow types a column may have, the first being the one that TraceWriter writes.
COLUMN_TYPES: dict[str, tuple[str, ...]] = {
    "t_ns": ("int64",),
    "page": ("uint32",),
    "vcpu": ("uint16", "uint8"),
    "source": ("string", "large_string", "dictionary of string"),
}
OPTIONAL_COLUMNS = ("source",)


def _field(kind: str, unit: str, meaning: str, **default: Any) -> Any:
    return dataclasses.field(metadata={"kind": kind, "unit": unit, "meaning": meaning}, **default)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TraceMetadata:
    """What a trace says about itself. Checked when made: TraceError names every field that is wrong."""

    format_version: int = _field("integer", "", "version of this format: 1", default=FORMAT_VERSION)
    title: str = _field("text", "", "one line: what was recorded")
    guest: str = _field("text", "", "machine, accelerator, kernel, memory and vCPUs of the guest")
    workload: str = _field("text", "", "what ran in the guest")
    page_size: int = _field("integer", "bytes", "size of a page, a power of two", default=4096)
    memory_bytes: int = _field("integer", "bytes", "all RAM blocks; `page` < memory_bytes / page_size")
    ram_blocks: tuple[RamBlock, ...] = _field(
        "list of {name, first_page, n_pages}", "pages",
        "RAMBlock table: in ascending order, without gaps, covering all pages",
    )  # fmt: skip
    n_vcpus: int = _field("integer", "", f"vCPUs of the guest, 1 to {MAX_VCPUS}; `vcpu` < n_vcpus")
    duration_ns: int = _field(
        "integer", "ns", "length of the recording, at least the last `t_ns`; a loop repeats after it"
    )
    clock: str = _field("text", "", "which clock `t_ns` is from, and what it does while the guest is stopped")
    capture: str = _field("text", "", "how writes were noticed: method, tool, interval")
    limits: str = _field("text", "", "what that method can miss or distort")
    rearm_times_ns: tuple[int, ...] | None = _field(
        "list of integers or null", "ns",
        "when the recording re-armed (write-protected again) all pages; null: unknown or by page",
        default=None,
    )  # fmt: skip
    rearm_gap_ns: int | None = _field(
        "integer or null", "ns",
        "longest time for which writes to a page could go unseen after its first; null: unknown",
        default=None,
    )  # fmt: skip
    throttled: bool = _field("boolean", "", "whether vCPUs were throttled while recording", default=False)
    page_classes: tuple[PageRun, ...] | None = _field(
        "list of [first_page, n_pages, class] or null", "pages",
        'run-length list, class "zero" or "data", covering all pages; null: unknown', default=None,
    )  # fmt: skip
    page_classes_at_ns: int = _field("integer", "ns", "the time at which page_classes holds", default=0)
    migration_start_ns: int | None = _field(
        "integer or null",
        "ns",
        "when a real migration was started in the recorded run; null: none",
        default=None,
    )
    provenance: dict[str, Any] = _field(  # noqa: RUF009 - a dataclasses.field behind a helper
        "object", "", f"texts {', '.join(REQUIRED_PROVENANCE)} (required), source_digest, anything else"
    )
    licence: str = _field("text", "", "licence of the data, as an SPDX identifier such as CC0-1.0")

    def __post_init__(self) -> None:
        faults = _type_faults(self.to_plain()) or value_faults(self)
        if faults:
            raise TraceError("metadata: " + "; ".join(faults))
        if self.rearm_gap_ns is None and self.rearm_times_ns is not None:
            object.__setattr__(self, "rearm_gap_ns", largest_gap(self.rearm_times_ns, self.duration_ns))

    @property
    def n_pages(self) -> int:
        """Number of pages of the guest's memory."""
        return self.memory_bytes // self.page_size

    def to_plain(self) -> dict[str, Any]:
        """The metadata as a JSON-ready dict, in the order of the fields."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name, value in plain.items():
            if isinstance(value, tuple):
                plain[name] = [_plain_item(item) for item in value]
        return plain

    def to_json(self) -> str:
        """The text stored under `METADATA_KEY`. Same metadata, same text."""
        return json.dumps(self.to_plain(), ensure_ascii=False, separators=(",", ":"))


def _plain_item(item: object) -> object:
    if isinstance(item, RamBlock):
        return item._asdict()
    return list(item) if isinstance(item, tuple) else item


FIELDS = dataclasses.fields(TraceMetadata)
REQUIRED_FIELDS = tuple(
    field.name
    for field in FIELDS
    if field.default is dataclasses.MISSING or field.name in ("format_version", "page_size", "throttled")
)


def parse_metadata(text: str | bytes) -> TraceMetadata:
    """Metadata from the JSON text of a file. Raises TraceError naming every wrong or missing field."""
    plain = _load_json(text)
    faults = plain_faults(plain)
    if faults:
        raise TraceError("metadata: " + "; ".join(faults))
    return _from_plain(plain)


def metadata_faults(text: str | bytes) -> list[str]:
    """Every fault of a file's metadata text, one sentence each; empty when it is right."""
    try:
        plain = _load_json(text)
    except TraceError as error:
        return [str(error)]
    return plain_faults(plain)


def plain_faults(plain: dict[str, Any]) -> list[str]:
    """Faults of decoded metadata. Of an unknown version nothing else is said: its fields may differ."""
    version = plain.get("format_version")
    if is_integer(version) and version != FORMAT_VERSION:
        return [f"format version {version} is unknown; this program reads version {FORMAT_VERSION}"]
    faults = [f"field {name!r} is missing" for name in REQUIRED_FIELDS if name not in plain]
    known = {field.name for field in FIELDS}
    strange = [name for name in plain if name not in known]
    faults += [f"unknown field {short(name)}; notes of your own belong into 'provenance'" for name in strange]
    faults += _type_faults(plain)
    if faults:
        return faults
    try:
        metadata = _from_plain(plain)
    except TraceError as error:
        return [str(error).removeprefix("metadata: ")]
    return [
        f"provenance: {key!r} is missing or not a text"
        for key in REQUIRED_PROVENANCE
        if not isinstance(metadata.provenance.get(key), str)
    ]


def _load_json(text: str | bytes) -> dict[str, Any]:
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"metadata: not readable as JSON ({error})") from None
    if not isinstance(plain, dict):
        raise TraceError("metadata: expected one JSON object")
    return plain


def _from_plain(plain: dict[str, Any]) -> TraceMetadata:
    values = dict(plain)
    values["ram_blocks"] = tuple(RamBlock(**block) for block in plain["ram_blocks"])
    if plain.get("rearm_times_ns") is not None:
        values["rearm_times_ns"] = tuple(plain["rearm_times_ns"])
    if plain.get("page_classes") is not None:
        values["page_classes"] = tuple(PageRun(*run) for run in plain["page_classes"])
    return TraceMetadata(**values)


def _type_faults(plain: dict[str, Any]) -> list[str]:
    return [
        f"{field.name}: expected {field.metadata['kind']}, got {short(plain[field.name])}"
        for field in FIELDS
        if field.name in plain and not KINDS[field.metadata["kind"]](plain[field.name])
    ]


def whole_memory(memory_bytes: int, page_size: int = 4096, name: str = "ram") -> tuple[RamBlock, ...]:
    """A RAMBlock table of one block."""
    return (RamBlock(name, 0, memory_bytes // page_size),)


def markdown_table() -> str:
    """The table of metadata fields in traces/README.md."""
    lines = ["| field | JSON type | unit | required | meaning |", "|---|---|---|---|---|"]
    for field in FIELDS:
        about = field.metadata
        need = "yes" if field.name in REQUIRED_FIELDS else "no"
        lines.append(f"| `{field.name}` | {about['kind']} | {about['unit']} | {need} | {about['meaning']} |")
    return "\n".join(lines)
