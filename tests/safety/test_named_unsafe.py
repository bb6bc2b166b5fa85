"""What a plug-in says of itself (`unsafe`) is what exploration finds."""

from __future__ import annotations

import pytest

import replay
from replay.plugins import parse

SPELLINGS = [
    "double-ring:2,locked=off", "double-ring:2,late-inserts=on", "double-ring:2,atomic-clear=off",
    "double-ring:2,multifd-flush=off", "double-ring:2,as-posted=on", "double-ring:2,exact-full=on",
    "double-ring:2,boot-filled=on", "double-ring:2,block-rescans=on", "double-ring:2,dedupe=off",
    "direct-reap:literal", "direct-reap:literal,sender=batches", "direct-reap:safe,sender=batches",
    "ring-only:2,full=send", "ring-only:2,dedupe=round", "ring-only:2,dedupe=none",
    "ring-fallback:2,leave=sticky", "ring-fallback:2,leave=chunks",
    "ring-background:2,source=kvm-ring,batch=1,rearm=after", "ring-background:2,background=1,third-branch=off",
    "ring-background:2,filter=naive", "ring-background:2,filter=done-bit", "ring-background:2,source=kvm-ring,batch=2",
]  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_plugin_says_what_exploration_finds(spelling):
    verdict = replay.check(spelling, pages=2, ring=2, writes=2)
    assert verdict.proven
    assert verdict.safe == (parse("design", spelling).unsafe is None), verdict.property
