"""Metadata: one table of fields, checked on the way in and out."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from replay.errors import TraceError
from replay.trace.schema import (
    FIELDS,
    METADATA_KEY,
    REQUIRED_FIELDS,
    PageRun,
    RamBlock,
    TraceMetadata,
    metadata_faults,
    parse_metadata,
)


def test_round_trips_through_json(make_metadata: Any) -> None:
    metadata = make_metadata(
        ram_blocks=(RamBlock("a", 0, 990), RamBlock("b", 990, 10)),
        page_classes=(PageRun(0, 1, "data"), PageRun(1, 999, "zero")),
        rearm_times_ns=(10, 500_000),
        migration_start_ns=5,
        throttled=True,
    )
    assert metadata.rearm_gap_ns == 500_000
    assert parse_metadata(metadata.to_json()) == metadata
    assert metadata.n_pages == 1000


def test_optional_fields_may_be_left_out(make_metadata: Any) -> None:
    plain = make_metadata().to_plain()
    short = {name: plain[name] for name in REQUIRED_FIELDS}
    assert len(short) < len(plain)
    assert parse_metadata(json.dumps(short)) == make_metadata()


@pytest.mark.parametrize("name", REQUIRED_FIELDS)
def test_each_required_field_is_missed(make_metadata: Any, name: str) -> None:
    plain = make_metadata().to_plain()
    del plain[name]
    faults = metadata_faults(json.dumps(plain))
    assert any(repr(name) in fault and "missing" in fault for fault in faults)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_each_field_refuses_a_wrong_json_type(make_metadata: Any, field: dataclasses.Field[Any]) -> None:
    plain = make_metadata().to_plain() | {field.name: {"a": [1.5]} if field.name != "provenance" else 3}
    with pytest.raises(TraceError, match=field.name):
        parse_metadata(json.dumps(plain))


HUGE = 10**30


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"memory_bytes": HUGE}, "memory_bytes"),
        ({"memory_bytes": HUGE * 4096}, "memory_bytes.*2\\*\\*32 pages"),
        ({"memory_bytes": -4096}, "memory_bytes"),
        ({"memory_bytes": 0}, "memory_bytes"),
        ({"memory_bytes": 4097}, "memory_bytes"),
        ({"memory_bytes": 1.5e9}, "memory_bytes: expected integer"),
        ({"page_size": 4095}, "page_size.*power of two"),
        ({"page_size": 0}, "page_size"),
        ({"page_size": HUGE}, "page_size"),
        ({"page_size": True}, "page_size: expected integer"),
        ({"n_vcpus": 0}, "n_vcpus"),
        ({"n_vcpus": 8192}, "n_vcpus"),
        ({"duration_ns": 0}, "duration_ns"),
        ({"duration_ns": HUGE}, "duration_ns"),
        ({"ram_blocks": []}, "ram_blocks: cover 0 pages"),
        ({"ram_blocks": [{"name": "a", "first_page": 0, "n_pages": 999}]}, "ram_blocks: cover 999 pages"),
        ({"ram_blocks": [{"name": "a", "first_page": 1, "n_pages": 999}]}, "start at page 0"),
        ({"ram_blocks": [{"name": "a", "first_page": 0, "n_pages": HUGE}]}, "ram_blocks: cover"),
        ({"ram_blocks": [{"name": "a", "first_page": 0, "n_pages": 600},
                         {"name": "b", "first_page": 500, "n_pages": 500}]}, "entry 1 .*start at page 600"),
        ({"ram_blocks": [{"name": "a", "first_page": 0, "n_pages": 500},
                         {"name": "a", "first_page": 500, "n_pages": 500}]}, "not unique"),
        ({"ram_blocks": [{"name": "a", "first_page": 0, "n_pages": 0},
                         {"name": "b", "first_page": 0, "n_pages": 1000}]}, "at least one page"),
        ({"ram_blocks": [{"name": "a", "first_page": 0}]}, "ram_blocks: expected"),
        ({"page_classes": [[0, 1000, "full"]]}, "unknown class"),
        ({"page_classes": [[0, 999, "zero"]]}, "page_classes: cover 999"),
        ({"page_classes": [[0, 1 << 60, "zero"]]}, "page_classes: cover"),
        ({"page_classes": [[0, 1000]]}, "page_classes: expected"),
        ({"rearm_times_ns": [5, 4]}, "rearm_times_ns: must not decrease"),
        ({"rearm_times_ns": [-1, 4]}, "rearm_times_ns: outside"),
        ({"rearm_times_ns": [1_000_001]}, "rearm_times_ns: outside"),
        ({"rearm_times_ns": [4], "rearm_gap_ns": 5}, "less than the gap of 999996"),
        ({"rearm_gap_ns": 0}, "rearm_gap_ns"),
        ({"migration_start_ns": 1_000_001}, "migration_start_ns"),
        ({"page_classes_at_ns": -1}, "page_classes_at_ns"),
        ({"licence": "  "}, "licence: must not be blank"),
        ({"provenance": {"made_by": "x", "made_from": "y", "tool": "z"}}, "provenance: 'made_at'"),
        ({"lisence": "CC0"}, "unknown field 'lisence'"),
        ({"format_version": 2}, "format version 2 is unknown"),
        ({"format_version": "1"}, "format_version: expected integer"),
    ],
)  # fmt: skip
def test_absurd_values_are_named(make_metadata: Any, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(TraceError, match=says):
        parse_metadata(json.dumps(make_metadata().to_plain() | changes))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", b"\xff\xfe", "[" * 100_000, "1" * 10_000])
def test_not_a_json_object(text: str | bytes) -> None:
    with pytest.raises(TraceError, match="metadata: "):
        parse_metadata(text)


def test_an_unknown_version_is_the_only_fault_named(make_metadata: Any) -> None:
    plain = make_metadata().to_plain() | {"format_version": 7, "n_vcpus": -1, "future": 1}
    assert len(metadata_faults(json.dumps(plain))) == 1


def test_several_faults_come_together(make_metadata: Any) -> None:
    plain = make_metadata().to_plain() | {"n_vcpus": 0, "duration_ns": -1}
    assert len(metadata_faults(json.dumps(plain))) >= 1
    with pytest.raises(TraceError, match=r"n_vcpus.*duration_ns"):
        parse_metadata(json.dumps(plain))


def test_construction_checks_too(make_metadata: Any) -> None:
    with pytest.raises(TraceError, match="n_vcpus"):
        make_metadata(n_vcpus="two")
    with pytest.raises(TraceError, match="provenance"):
        make_metadata(provenance={"x": object()})
    with pytest.raises(TraceError, match="n_vcpus"):
        dataclasses.replace(make_metadata(), n_vcpus=0)


def test_every_field_has_kind_and_meaning() -> None:
    assert METADATA_KEY == "replay.trace"
    for field in dataclasses.fields(TraceMetadata):
        assert field.metadata["kind"]
        assert field.metadata["meaning"]
