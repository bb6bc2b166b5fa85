"""How time and peak memory of a replay grow with its events (10^5 to 10^9) and with its guest (1G to 12T).

Each point is a process of its own: a generated guest, made in windows by a thread ahead of the replay, migrated with
TCG's log and bitmaps. The time is the CPU time of the replaying thread, to which making the events does not count. The
exponent is the slope of a line through all points, and of the last two, in log-log: 1 is linear, below 1 a part that
does not grow is still in it.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.bench.harness import Row, measured

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 100
EVENTS, QUICK_EVENTS = (10**5, 10**6, 10**7, 10**8, 10**9), (10**4, 10**5)
GUESTS, QUICK_GUESTS = ("1G", "10G", "100G", "1000G", "12T"), ("128M", "1G")
SPARSE_EVENTS = 10**5  # in 100 s; the smaller guests have moved after the first of them
MOST_MB = (1000.0, 500.0)
PROGRAM = """
import json, sys, time
from replay import api

def peak_mb():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000

memory, count, seconds, whole = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "whole"
options = dict(log="tcg", design="bitmap", at_end="hold", max_bandwidth=0 if whole else "1250MiB/s")
options["give_up"] = "1000000s" if whole else f"{seconds}s"
api.run("idle-1g", **options | {"give_up": "1s"})
rate = max(1, count // seconds)
trace = api.generate(f"hot-cold:rate={rate},hot=0.008", memory=memory, duration=f"{seconds}s")
if count <= 1 << 26:  # more are made while they are replayed
    trace.decode()
begin = time.thread_time()
result = api.run(trace, memory=memory, **options)
spent = time.thread_time() - begin
events = sum(row["guest_writes"] for row in result.rows)
print(json.dumps({"s": spent, "mb": peak_mb(), "events": events, "lost": result.lost_pages}))
"""


def measure(quick: bool) -> list[Row]:
    """Rows: time and memory of each point, and the exponents."""
    by_events = [_point("96G", count, "part") for count in (QUICK_EVENTS if quick else EVENTS)]
    by_guest = [_point(memory, SPARSE_EVENTS, "whole") for memory in (QUICK_GUESTS if quick else GUESTS)]
    rows = []
    for label, points, sizes in (
        ("events", by_events, [point["events"] for point in by_events]),
        ("memory", by_guest, [point["pages"] for point in by_guest]),
    ):
        for point in points:
            rows.append(measured(f"growth, {label}: {point['what']}", [point["s"] * 1e3], None, unit="ms"))
            target = MOST_MB if point["what"].startswith("1e+09") else None
            what = f"growth, {label}: {point['what']}, peak"
            rows.append(measured(what, [point["mb"]], None, unit="MB", target=target, of_ratio=False))
        for which, some in (("all", slice(None)), ("last two", slice(-2, None))):
            exponent = slope(sizes[some], [point["s"] for point in points[some]])
            rows.append(measured(f"growth, {label}: exponent, {which}", [exponent], None, unit="power"))
    return rows


def _point(memory: str, count: int, how: str) -> dict[str, Any]:
    from replay.units import parse_bytes

    command = [sys.executable, "-c", PROGRAM, memory, str(count), str(SECONDS), how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    if found["lost"] or (how == "part" and found["events"] < count * 0.5):
        raise AssertionError(f"{memory}, {count} events: {found}")
    what = f"{count:.0e} events, {memory}" if how == "part" else f"{memory}, {count:.0e} events"
    return found | {"what": what, "pages": parse_bytes(memory) // 4096}


def slope(sizes: Sequence[float], times: Sequence[float]) -> float:
    """Least squares in log-log."""
    xs, ys = ([math.log(value) for value in values] for values in (sizes, times))
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def plot(rows: Sequence[Row], path: str) -> None:
    """Both growths, side by side, as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panes = plt.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    for pane, label in zip(panes, ("events", "memory"), strict=True):
        own = [row for row in rows if row.what.startswith(f"growth, {label}: ")]
        found = [row for row in own if row.unit == "ms"]
        names = [row.what.split(": ")[1].split(", ")[0].removesuffix(" events") for row in found]
        exponents = [row.ours for row in own if row.unit == "power"]
        pane.plot(range(len(found)), [row.ours for row in found], "o-")
        pane.set(yscale="log", ylabel="ms", xlabel=label, xticks=range(len(found)), xticklabels=names)
        pane.set_title("exponent {:.2f}, of the last two {:.2f}".format(*exponents))
        pane.grid(True, which="both", alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)
