"""Each design's protocol: safe as intended, and each wrong order found with a schedule that does lose a page."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from replay.plugins import names
from replay.safety.explorer import explore, find_livelock, find_starvation
from replay.safety.model import EMPTY, Bounds
from tests.safety.variants import config

SMALL = Bounds(pages=2, ring=1, writes=3)
MANY = 3_000_000


def build(design, bounds=SMALL, wrong=None, **changes):
    module = importlib.import_module(f"replay.safety.protocols.{design}")
    return module.build(config(design, **changes), bounds, **(wrong or {}))


SAFE = [
    ("bitmap", {}, {}),
    ("bitmap", {}, {"log": "kvm-ring"}),
    ("bitmap", {"host_page_refind": False}, {}),
    ("hierarchical_bitmap", {}, {}),
    ("hierarchical_bitmap", {}, {"log": "kvm-ring"}),
    *[("direct_reap", {"sender": sender, "batch": batch}, {}) for sender in ("vcpu", "batches") for batch in (1, 64)],
    *[("ring_only", {"full": full, "dedupe": d}, {}) for full in ("wait", "send") for d in ("none", "queued", "round")],
    *[("ring_fallback", {"leave": leave}, {}) for leave in ("sticky", "scan", "chunks")],
    ("double_ring", {}, {}),
    ("double_ring", {"dedupe": False}, {}),
    ("double_ring", {"exact_full": True}, {}),
    ("double_ring", {"block_rescans": True}, {}),
    ("double_ring", {"boot_filled": True}, {}),
    *[("ring_background", {"filter": f}, {}) for f in ("naive", "cursor", "done-bit")],
    *[("ring_background", {"filter": f, "source": "kvm-ring"}, {}) for f in ("naive", "cursor", "done-bit")],
    *[("ring_background", {"background": k}, {}) for k in (0, 1, 2)],
    ("ring_background", {"full": "prioritise"}, {}),
]
UNSAFE = [
    ("bitmap", {}, {"read_first": True}),
    ("hierarchical_bitmap", {}, {"carry_first": True}),
    ("hierarchical_bitmap", {}, {"summary_first": True}),
    ("direct_reap", {"order": "literal"}, {}),
    ("direct_reap", {"order": "literal", "sender": "batches"}, {}),
    ("direct_reap", {}, {"read_outside_lock": True}),
    ("ring_only", {}, {"clear_after_read": True}),
    ("ring_fallback", {}, {"push_first": True}),
    ("ring_fallback", {}, {"trust_reset": True}),
    ("double_ring", {"late_inserts": True}, {}),
    ("double_ring", {"locked": False}, {}),
    ("ring_background", {"source": "kvm-ring", "rearm": "after"}, {}),
    ("ring_background", {}, {"publish_late": True}),
]
LARGER = [
    ("ring_only", {"full": "send"}, {"device_does_not_arm": True}, Bounds(pages=2, ring=1, writes=4)),
    ("ring_fallback", {"leave": "chunks"}, {"flag_last": True}, Bounds(pages=2, ring=1, writes=4)),
    ("double_ring", {"multifd_flush": False}, {}, Bounds(pages=1, ring=1, writes=4)),
    ("double_ring", {"atomic_clear": False}, {}, Bounds(pages=3, ring=1, writes=3)),
    ("double_ring", {"as_posted": True}, {}, Bounds(pages=1, ring=1, writes=3)),
]


def label(value):
    return ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else None


@pytest.mark.parametrize(("design", "changes", "wrong"), SAFE, ids=label)
def test_safe(design, changes, wrong):
    found = explore(build(design, wrong=wrong, **changes), max_states=MANY)
    assert (found.property, found.complete) == (None, True)


@pytest.mark.parametrize(
    ("design", "changes", "wrong", "bounds"), [*[(*case, SMALL) for case in UNSAFE], *LARGER], ids=label
)
def test_unsafe(design, changes, wrong, bounds):
    model = build(design, bounds, wrong, **changes)
    found = explore(model, max_states=MANY)
    assert found.property == "loss"
    replayed = model.initial()
    for step in found.schedule:
        replayed = next(child for other, child in model.moves(replayed) if other == step)
    assert model.lost(replayed)
    assert model.show(replayed)["old"] != EMPTY


def test_every_design_has_a_protocol():
    folder = Path(__file__).resolve().parents[2] / "replay/safety/protocols"
    assert {path.stem.replace("_", "-") for path in folder.glob("[a-z]*.py")} == set(names("design"))


def test_a_producer_that_waits_with_the_big_lock_is_a_deadlock():
    found = explore(build("ring_only", wrong={"wait_with_lock": True}), max_states=MANY)
    assert found.property == "deadlock"


STRICT = Bounds(pages=2, ring=1, writes=2, strict=True)


@pytest.mark.parametrize(("design", "changes", "wrong"), SAFE, ids=label)
def test_no_livelock(design, changes, wrong):
    found = find_livelock(build(design, STRICT, wrong, **changes), max_states=MANY)
    assert (found.property, found.complete) == (None, True)


@pytest.mark.parametrize("source", ["reaper", "kvm-ring"])
def test_asking_an_exhausted_background_every_time_is_a_livelock(source):
    model = build("ring_background", STRICT, background=1, third_branch=False, source=source)
    assert find_livelock(model, max_states=MANY).property == "livelock"
    model = build("ring_background", STRICT, background=2, third_branch=False, source=source)
    assert find_livelock(model, max_states=MANY).property is None


@pytest.mark.parametrize(
    ("changes", "starves"),
    [
        ({"background": 0}, True),
        ({"background": 1}, False),
        ({"background": 2}, False),
        ({"background": 8}, False),
        ({"background": 8, "full": "prioritise"}, True),
    ],
    ids=label,
)
def test_who_starves_the_background(changes, starves):
    from replay.safety.protocols.ring_background import serves_others

    model = build("ring_background", Bounds(pages=2, ring=1, writes=1, endless=True), source="kvm-ring", **changes)
    waiting = model.names.index("unvisited")
    found = find_starvation(
        model, waits=lambda state: state[waiting] != EMPTY, serves_others=serves_others, max_states=MANY
    )
    assert found.property == ("starvation" if starves else None)
    if starves:
        cycle = found.schedule[found.cycle_from :]
        assert any(serves_others(step) for step in cycle)
        assert not any(step.step.startswith("background") for step in cycle)
