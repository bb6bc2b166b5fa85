"""Rounds out of Cloud Hypervisor's log: a summary, not a trace."""

from __future__ import annotations

import json

import pytest

from replay.errors import TraceError
from tests.importers.common import do

LINE = "cloud-hypervisor: {t}s: <vmm> DEBUG:vmm/src/lib.rs:1313 -- {text}\n"
LOG = (
    LINE.format(t=" 11.000001", text="Sending the VM's configuration")
    + LINE.format(
        t=" 12.702682",
        text="Precopy: iter=0 total=2048MiB curr=2048MiB bw=1000.5MiB/s transfer=2.05s overhead=0ms est_downtime=0ms "
        "elapsed=2.10s avg_bw=999.25MiB/s",
    )
    + LINE.format(
        t=" 13.1",
        text="Precopy: iter=1 total=2100MiB curr=52MiB bw=900MiB/s transfer=57ms overhead=3ms est_downtime=58ms "
        "elapsed=2.2s avg_bw=998MiB/s",
    )
    + LINE.format(
        t=" 13.3",
        text="Precopy converged: iter=2 total=2100MiB curr=36MiB bw=900MiB/s transfer=57ms overhead=3ms est_downtime=40ms",
    )
    + LINE.format(t=" 13.4", text="Migration completed after 2.5s with a downtime of 61ms (goal was 300ms)")
    + LINE.format(t=" 13.5", text="Downtime breakdown: 61ms (final_iter:40ms state:7ms send_state:13ms complete:1ms)")
)


def test_rounds(tmp_path):
    done = do("cloud-hypervisor", LOG, tmp_path)
    assert done.trace is None
    told = json.loads(done.path.read_text())
    assert told["rounds"] == done.rounds["rounds"]
    assert told["rounds"][1] == {
        "migration": 1, "t_ns": 13_100_000_000, "round": 1, "sent_bytes": 2100 << 20, "this_round_bytes": 52 << 20,
        "bandwidth_bytes_per_s": 900 << 20, "transfer_ns": 57_000_000, "overhead_ns": 3_000_000,
        "est_downtime_ns": 58_000_000, "elapsed_ns": 2_200_000_000, "mean_bandwidth_bytes_per_s": 998 << 20,
    }  # fmt: skip
    assert told["rounds"][0]["bandwidth_bytes_per_s"] == 1000.5 * 2**20
    assert told["completed"] == {"migration": 1, "total_ns": 2_500_000_000, "downtime_ns": 61_000_000, "downtime_limit_ns": 300_000_000}
    assert told["downtime_parts"] == {
        "final_iter_ns": 40_000_000, "state_ns": 7_000_000, "send_state_ns": 13_000_000, "complete_ns": 1_000_000,
    }  # fmt: skip
    assert done.counts["other"] == {"other messages": 1, "ends of migrations": 3}
    assert told["converged"] == {
        "migration": 1, "t_ns": 13_300_000_000, "round": 2, "this_round_bytes": 36 << 20, "est_downtime_ns": 40_000_000,
    }  # fmt: skip


def test_damage(tmp_path):
    with pytest.raises(TraceError, match="damaged: a round: 1"):
        do("cloud-hypervisor", LOG.replace("curr=52MiB", "curr=52Mi"), tmp_path)
    with pytest.raises(TraceError, match="no precopy rounds in 1 lines"):
        do("cloud-hypervisor", LOG.splitlines()[0], tmp_path)
