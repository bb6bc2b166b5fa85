"""The figures of a round are the differences of these sums."""

from __future__ import annotations

from collections import Counter

FINDING = (
    "find_calls", "find_words", "summary_words", "refind_calls", "ring_pops", "stale_pops", "clear_ioctls",
    "clear_words", "clear_pages", "background_pops", "background_skips", "tlb_resets", "ring_refills", "producer_sends",
)  # fmt: skip


def lost(m, vcpu):
    """Picoseconds that a vCPU did not run, by cause."""
    why = Counter(m.guest.why[vcpu if m.guest.per_vcpu else 0])
    why["throttle"] += m.guest.napped
    why["fault"] += m.log.noticed[vcpu] // m.log.per_exit * m.case.fixed["write_fault"]
    return why


def totals(m):
    """What a migration comes to so far, by the columns of a round."""
    both = m.counts + m.aside
    lanes = len(m.guest.lanes)
    stalled = sum(m.guest.stalled)
    ran = m.now if m.stopped is None else m.stopped
    if m.resumed is not None:
        ran += max(0, m.now - m.resumed)
    pages = (
        m.case.prices["normal_pages"] * m.counts["normal_pages"]
        + m.case.prices["zero_pages"] * m.counts["zero_pages"]
        + sum(price * m.counts[name] for name, price in m.case.prices.items() if name.startswith("xbzrle"))
    )
    found = {name: both[name] for name in m.case.prices}
    for cause in ("full", "sync", "throttle", "fault", "fetch"):
        found[f"modelled_{cause}_stall_ns"] = sum(lost(m, vcpu)[cause] for vcpu in range(m.case.n_vcpus)) // 1000
    found["flushes"] = m.stream.flushes
    found.update(
        guest_ns=(ran * lanes - stalled - lanes * m.guest.napped) // (1000 * lanes),
        sent_bytes=m.stream.flushed + m.stream.queued,
        redundant_pages=m.redundant,
        iterate_calls=m.iterate_calls,
        modelled_stall_ns=stalled // 1000,
        modelled_find_ns=sum(m.case.prices[name] * m.counts[name] for name in FINDING) // 1000,
        modelled_send_ns=(pages + m.spent["first copies"]) // 1000,
        modelled_aside_ns=(m.worth(m.aside) + m.spent["first copies aside"]) // 1000,
    )
    spent = m.spent + Counter(harvest=m.fetching, wait=m.locked_out)
    found.update({f"modelled_{name}_ns": spent[name] // 1000 for name in ("harvest", "sync", "wait", "other")})
    return found
