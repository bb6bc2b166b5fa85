"""Rewrite tests/golden/results.json and work.json from what the engine says now, and print what moved.

    python tools/update_golden.py           # rewrite
    python tools/update_golden.py --check   # only print; exit code 1 when something moved

Golden results are modelled results only: the same on every machine. Read the printed difference before you commit it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import replay  # noqa: E402
from replay.plugins import names  # noqa: E402
from replay.trace import shipped  # noqa: E402
from tools import golden_work  # noqa: E402

GOLDEN = ROOT / "tests" / "golden" / "results.json"
LOGS = ("tcg", "kvm-bitmap", "kvm-ring:4096")
ON_EVERY_LOG = ("bitmap", "double-ring:16384")
SETTINGS: dict[str, dict[str, Any]] = {
    "own memory, 50 MB/s": {"max_bandwidth": "50MB/s", "downtime_limit": "50ms", "give_up": "60s"},
    "96G, 1250 MiB/s": {"memory": "96G", "max_bandwidth": "1250MiB/s"},
}


def figures(result: replay.Result) -> dict[str, Any]:
    """What is kept of a result: its summary, and a digest of every modelled column of every round."""
    rows = [
        {k: v for k, v in row.items() if not k.startswith("measured_") and k != "formulation"} for row in result.rows
    ]
    digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    kept = {key: result.summary[key] for key in ("status", "total-time", "downtime", "setup-time")}
    ram = {key: result.summary["ram"][key] for key in ("transferred", "duplicate", "normal", "dirty-sync-count")}
    return {**kept, **ram, "lost_pages": result.lost_pages, "redundant_pages": result.redundant_pages, "rounds": digest}


def all_cases() -> Iterator[tuple[str, str, str, str]]:
    """(trace, setting, log, design): every design; in much memory on KVM's rings, and two of them on every log."""
    for trace in shipped.names():
        for setting in SETTINGS:
            for log in LOGS:
                for design in names("design"):
                    plain = design if design != "double-ring" else ON_EVERY_LOG[1]
                    if "memory" not in SETTINGS[setting] or log == LOGS[-1] or plain in ON_EVERY_LOG:
                        yield trace, setting, log, plain


def run_case(trace: Any, setting: str, log: str, design: str) -> dict[str, Any]:
    """One golden case, run now."""
    return figures(replay.run(trace, log=log, design=design, **SETTINGS[setting]))


def main() -> int:
    """Run all, print what moved, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="do not write; exit with 1 when something moved")
    args = parser.parse_args()
    old = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    new: dict[str, Any] = {}
    opened: dict[str, Any] = {}
    for trace, setting, log, design in all_cases():
        if trace not in opened:
            opened = {trace: replay.open_trace(trace)}
        key = " | ".join((trace, setting, log, design))
        new[key] = run_case(opened[trace], setting, log, design)
        before = old.get(key, {})
        moved = {name: (before.get(name), value) for name, value in new[key].items() if before.get(name) != value}
        if moved:
            print(f"{key}\n    " + "\n    ".join(f"{name}: {was} -> {now}" for name, (was, now) in moved.items()))
    for key in old.keys() - new.keys():
        print(f"{key}\n    gone")
    changed = old != new
    old_work = json.loads(golden_work.FILE.read_text()) if golden_work.FILE.exists() else {}
    work = golden_work.all_of_it()
    for line in golden_work.moved(old_work, work):
        print(line)
    changed = changed or old_work != work
    print(f"{len(new)} cases, {'some moved' if changed else 'nothing moved'}")
    if not args.check:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n")
        golden_work.FILE.write_text(json.dumps(work, indent=1, sort_keys=True) + "\n")
    return int(changed and args.check)


if __name__ == "__main__":
    sys.exit(main())
