"""Traces from object stores: a server on this machine speaks S3 to pyarrow's own client."""

from __future__ import annotations

import shutil

import pytest

import replay
from replay.errors import TraceError, UsageError
from tests.sweeping.common import GUEST, OTHER, content, plan
from tests.sweeping.object_store import object_store


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """A folder with a bucket of three guests in it, two of them equal."""
    folder = tmp_path_factory.mktemp("store")
    guests = folder / "bucket" / "guests"
    guests.mkdir(parents=True)
    replay.generate(GUEST, guests / "busy.parquet")
    replay.generate(OTHER, guests / "calm.parquet")
    shutil.copy(guests / "busy.parquet", folder / "bucket" / "busy too.parquet")
    (guests / "notes.txt").write_text("no trace")
    return folder


def told(*traces):
    return plan(sweep={"traces": list(traces)}, axes={"design": ["bitmap", "double-ring:64"]}, baselines={})


def test_a_sweep_over_urls_is_that_over_the_files(bucket, tmp_path):
    with object_store(bucket) as store:
        given = told(store.url("bucket/guests/*.parquet"), store.url("bucket/busy%20too.parquet"))
        report = replay.sweep(given, tmp_path / "urls")
        assert (report.ran, report.failed, report.complete) == (4, {}, True)
        reads = {name: count for name, count in store.requests.items() if "GET" in name and name.endswith(".parquet")}
        assert reads == {"GET busy.parquet": 1, "GET calm.parquet": 1, "GET busy too.parquet": 1}
        assert replay.sweep(given, tmp_path / "urls", resume=True).ran == 0
        assert store.requests["GET busy.parquet"] == 1  # what was fetched is kept
    replay.sweep(told(str(bucket / "bucket" / "guests" / "*.parquet")), tmp_path / "files")
    assert content(tmp_path / "urls") == content(tmp_path / "files")


def test_file_urls_need_no_server(bucket, tmp_path):
    report = replay.sweep(told(f"file://{bucket}/bucket/guests/*.parquet"), tmp_path)
    assert (report.ran, report.complete) == (4, True)


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("bucket/guests/none.parquet", UsageError, "names no file"),
        ("bucket/guests/none*.parquet", UsageError, "names no file"),
        ("bucket/none/*.parquet", TraceError, "cannot be read"),
        ("none/guests/busy.parquet", TraceError, "cannot be read"),
        ("bucket/guests/notes.txt", TraceError, "notes.txt"),
    ],
)
def test_what_is_not_there_is_named_without_its_key(bucket, tmp_path, path, kind, words):
    with object_store(bucket) as store, pytest.raises(kind, match=words) as caught:
        replay.sweep_plan(told(store.url(path)), tmp_path)
    assert "secret" not in str(caught.value)


def test_half_a_file_is_no_file(bucket, tmp_path):
    with object_store(bucket) as store:
        store.broken = True
        with pytest.raises(TraceError, match=r"busy\.parquet.*cannot be read"):
            replay.sweep_plan(told(store.url("bucket/guests/busy.parquet")), tmp_path)
        assert not list(tmp_path.rglob("busy.parquet"))
        store.broken = False
        assert replay.sweep_plan(told(store.url("bucket/guests/busy.parquet")), tmp_path).sources[0].label == "busy"
