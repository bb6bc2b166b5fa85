"""Parts of README.md that are made from elsewhere: the answer to the thread, how wrong and how fast it has been.

Each is short and has no figure of its own: the answer is that of `replay explain seed-96g`, the others are rows of the
generated tables in replay/validation/README.md and tools/bench/README.md.
"""

from __future__ import annotations

import re
from typing import Any

GUESTS = {
    "store trace": "every store, since before the migration",
    "event trace": "the migration's own dirty log",
    "another case's guest": "the guest of another migration like it",
}
PEERS = {
    "busy 96G, against NumPy, a bool array": "NumPy, a bool array",
    "busy 96G, against polars": "polars",
    "busy 96G, against pyroaring": "pyroaring, compressed bitmaps",
    "busy 96G, against plain Python, rings": "plain Python, rings of deques",
    "busy 8G, against simpy": "simpy, processes and events",
    "busy 96G: batched": "C, one page at a time",
    "replay run, 96G, against a NumPy script": "a NumPy script, started cold, to its end",
}
LEAST_PEERS = 5


def answer(seed: Any) -> str:
    """The answer in lines: what accounts for the published difference, by the price of a second search."""
    gains = [price["one_find_gains_ms"] for price in seed.prices]
    prices = ", ".join(f"{price['refind_ns']:.1f}" for price in seed.prices)
    syncs = max(price["syncs_and_dequeue_ms"] for price in seed.prices)
    back = max(next(arm for arm in seed.arms if arm["arm"] == "ring without the early break")["explains_ms"].values())
    spelled = ", ".join(f"{gain:.0f}" for gain in gains[:-1])
    return f"""\
- Of the {seed.published_ms:.0f} ms, what makes the ring a ring (syncs, dequeuing) explains {syncs:.1f}.
- The posted code also leaves a loop early in which QEMU, after each page sent, searches once more. Today's bitmaps
  without that second search gain {spelled} or {gains[-1]:.0f} ms, at {prices} ns a search: three prices
  measured, of three forms of it, and the one that fits 8G and 32G.
- The ring with the second search put back gains {back:.1f} ms.
- So the ring explains none of it. Whether the second search explains all of it is open: the form that QEMU had in
  June 2024 is the cheapest, the gain a page differs from size to size, and how memory was populated in the two arms
  is not known and could outweigh everything.
- What would decide it, on one host: the bitmap with the early exit, and nothing else of the patch."""


def accuracy(page: str) -> str:
    """Rows of the page of errors: a line a kind of trace."""
    lines = [
        "| predicted from | migrations | total time: median, p90 | pages sent | syncs exact | converges, right |",
        "|---|---|---|---|---|---|",
    ]
    for kind, said in GUESTS.items():
        table = page.partition(f"| {kind} |")[2].partition("\n\n")[0]
        rows = {cells[0]: cells for cells in map(_cells, table.splitlines()) if cells and cells[0]}
        if "total time" not in rows:
            continue
        total, pages = rows["total time"], rows["normal pages"]
        lines.append(
            f"| {said} | {total[1]} | {total[2]}, {total[3]} | {pages[2]}, {pages[3]} "
            f"| {rows['syncs'][4].split(',')[0].removesuffix(' exact')} "
            f"| {rows['converged or not'][4].removesuffix(' right')} of {rows['converged or not'][1]} |"
        )
    assert len(lines) > 2, "the page of errors has none of the expected tables"
    return "\n".join(lines)


def speed(page: str) -> str:
    """Rows of the benchmark: how many times faster a replay is than each of its peers. Below 1 it is slower."""
    lines = ["| written with | takes | `replay` takes | times faster |", "|---|---|---|---|"]
    for cells in map(_cells, page.splitlines()):
        if len(cells) > 4 and cells[0] in PEERS:
            what, ours, theirs, unit = cells[0], *(float(cell.replace(",", "")) for cell in cells[1:3]), cells[3]
            times = f"{theirs / ours:,.0f}" if theirs >= 10 * ours else f"{theirs / ours:.1f}"
            lines.append(f"| {PEERS[what]} | {theirs:,g} {unit} | {ours:,g} {unit} | {times} |")
    assert len(lines) >= 2 + LEAST_PEERS, f"fewer than {LEAST_PEERS} of the benchmark's rows are known here: see PEERS"
    machine = re.search(r"^Ratio: .*?\. (.*)$", page, re.MULTILINE)
    assert machine, "the benchmark does not say on which machine it ran"
    return "\n".join([*lines, "", machine[1]])


def _cells(line: str) -> list[str]:
    """The cells of a table's row; none of any other line."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
