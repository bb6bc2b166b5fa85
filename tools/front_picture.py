"""Draw the front page's picture, notebooks/front-page.png, from replays of shipped traces: some 10 seconds.

python tools/front_picture.py            # draw it
python tools/front_picture.py --check    # exit code 1 when its figures are not those of today's replays

Three panels: what a recording holds, how a real migration of that guest went and what is predicted of it, and what
accounts for the difference in the thread. All modelled but for QEMU's own figures. A digest of every number that is
drawn is kept in the file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import replay  # noqa: E402
from replay.analysis.plots import COLOURS  # noqa: E402

PICTURE = ROOT / "notebooks" / "front-page.png"
MIGRATIONS = ROOT / "notebooks" / "real-migrations.json"
GUEST, CASE = "redis-1g", "redis60k-bw50-dt50"
ARMS = {
    "bitmap, one find a page": "bitmap that leaves\nout the 2nd search",
    "ring as posted": "the ring\nas posted",
    "ring without the early break": "the ring with the\n2nd search put back",
}


def figures() -> dict[str, Any]:
    """Everything that is drawn, as plain numbers."""
    case = next(m for m in json.loads(MIGRATIONS.read_text())["migrations"] if m["name"] == CASE)
    trace, asked = replay.open_trace(GUEST), case["asked"]
    result = replay.run(
        trace, log="tcg", start=trace.metadata.migration_start_ns, max_bandwidth=asked["max_bandwidth"],
        downtime_limit=f"{asked['downtime_limit_ms']}ms",
    )  # fmt: skip
    rounds = [[row["sync_begin_ns"] / 1e6, row["dirty_pages"]] for row in result.rows]
    heat = replay.heatmap(GUEST, rows=90, columns=160, within="0-140M")
    seed = replay.explain_seed()
    return {
        "heat": heat.cells.tolist(),
        "duration_s": trace.metadata.duration_ns / 1e9,
        "qemu": case["measured"],
        "replayed": {"total_ms": result.summary["total-time"], "rounds": rounds},
        "published_ms": seed.published_ms,
        "prices": [[price["price"], price["refind_ns"]] for price in seed.prices],
        "arms": {arm["arm"]: arm["explains_ms"] for arm in seed.arms if arm["arm"] in ARMS},
    }


def digest(found: dict[str, Any]) -> str:
    """A digest of the figures."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def draw(found: dict[str, Any]) -> None:
    """Write the picture."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    spines = {"axes.spines.top": False, "axes.spines.right": False}
    titles = {"axes.titlesize": 13, "axes.titleweight": "bold", "axes.titlelocation": "left"}
    with rc_context({"font.size": 11} | titles | spines):
        figure = Figure(figsize=(16, 4.5), layout="constrained")
        heat, rounds, arms = figure.subplots(1, 3, width_ratios=(1, 1, 1.05))
        _heat(heat, found)
        _rounds(rounds, found)
        _arms(arms, found)
        figure.get_layout_engine().set(w_pad=0.15, h_pad=0.1)
        figure.savefig(PICTURE, dpi=100, metadata={"Software": None, "Comment": digest(found)})


def _heat(axis: Any, found: dict[str, Any]) -> None:
    from matplotlib.colors import LogNorm

    cells = [[value or float("nan") for value in line] for line in found["heat"]]
    extent = (0, found["duration_s"], 0, 140)
    axis.imshow(cells, aspect="auto", origin="lower", extent=extent, cmap="viridis_r", norm=LogNorm())
    axis.set(xlabel="guest time, s", ylabel="guest memory, MiB")
    axis.set_title("Recorded: where Redis writes")


def _rounds(axis: Any, found: dict[str, Any]) -> None:
    real, mine = found["qemu"]["rounds"][1:], found["replayed"]["rounds"][1:]
    axis.plot([t / 1000 for t, _ in real], [n for _, n in real], "o", markersize=11, fillstyle="none",
              markeredgewidth=1.6, color=COLOURS[0], label=f"QEMU 10.0: {found['qemu']['total_ms']:,} ms")  # fmt: skip
    axis.plot([t / 1000 for t, _ in mine], [n for _, n in mine], "x", markersize=8, markeredgewidth=1.8,
              color=COLOURS[1], label=f"replay: {found['replayed']['total_ms']:,} ms")  # fmt: skip
    axis.set(yscale="symlog", ylim=(0, 40_000), xlabel="time of each sync since migrate, s")
    axis.set_ylabel("pages found dirty")
    axis.legend(frameon=False, loc="lower left", title="total time", alignment="left")
    axis.set_title("Predicted: its real migration")


def _arms(axis: Any, found: dict[str, Any]) -> None:
    for number, (price, ns) in enumerate(found["prices"]):
        ys = [y + 0.19 * (number - 1.5) for y in range(len(ARMS))]
        gains, label = [found["arms"][arm][price] for arm in ARMS], f"{ns:.1f} ns: {price}"
        axis.barh(ys, gains, height=0.17, color=COLOURS[number], label=label)
    least = found["arms"]["ring without the early break"].values()
    axis.text(3, len(ARMS) - 1, f"{max(least):.1f} ms at every price", va="center", fontsize=10)
    axis.axvline(found["published_ms"], color="black", linestyle="--", linewidth=1.2)
    axis.text(found["published_ms"] + 2, 2.2, f"published:\n{found['published_ms']:.0f} ms", va="bottom", fontsize=10)
    axis.set_yticks(range(len(ARMS)), list(ARMS.values()))
    axis.set_ylim(3.95, -0.45)
    axis.set_xlim(0, 268)
    axis.set_xlabel("ms less than today's bitmap at 96 GiB, modelled")
    axis.legend(
        frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.42, -0.03), title="price of a second search",
        alignment="left",
    )  # fmt: skip
    axis.set_title("Explained: the thread's 202 ms")


def main() -> int:
    """Draw, or check."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 when the picture is stale")
    args = parser.parse_args()
    found = figures()
    if args.check:
        return int(digest(found).encode() not in PICTURE.read_bytes())
    draw(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
