"""Records the shipped traces that `replay capture` made, on this machine: `tools/capture_traces.py [NAME...]`.

Writes traces/NAME.parquet and its data card traces/NAME.md. These are recordings: each run gives another one. Needs
/dev/kvm for the micro-VMs, Linux 6.7 for the programs, and python3 and sqlite in it.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from replay.cli.main import main as replay  # noqa: E402
from replay.trace.documentation import data_card  # noqa: E402

TRACES = ROOT / "traces"
_SORT = (
    "import random; random.seed(1)\n"
    "for _ in range(8):\n"
    "    numbers = [random.random() for _ in range(500_000)]; numbers.sort()\n"
    "    texts = sorted(map(str, numbers[:200_000]))"
)
_SQLITE = (
    "import random, sqlite3, time; random.seed(1)\n"
    "base = sqlite3.connect(':memory:'); base.execute('create table t (k integer primary key, v text)')\n"
    "base.executemany('insert into t values (?, ?)', ((k, 'x' * 200) for k in range(100_000)))\n"
    "end = time.monotonic() + 5\n"
    "while time.monotonic() < end:\n"
    "    k = int(random.paretovariate(1) * 100) % 100_000\n"
    "    base.execute('update t set v = ? where k = ?', (str(k) * 40, k)); base.commit()"
)
CAPTURES = {
    "microvm-hot-cold": (
        "kvm-microvm", "--title", "micro-VM under KVM, hot and cold pages, rings of 1024 entries",
        "--writer", "hot-cold", "--vcpus", "2", "--memory", "64M", "--pace", "50us", "--duration", "8s",
    ),
    "microvm-sequential": (
        "kvm-microvm", "--title", "micro-VM under KVM, sequential, rings of 256 entries that fill up",
        "--writer", "sequential", "--memory", "32M", "--pace", "40us", "--ring-size", "256", "--duration", "8s",
    ),
    "process-sort": (
        "process", "--title", "a Python program that builds and sorts lists", "--workload",
        "python3: eight times 500,000 random numbers in a list, sorted, 200,000 of them sorted again as texts",
        "--", "python3", "-c", _SORT,
    ),
    "process-sqlite": (
        "process", "--title", "a Python program that updates an SQLite database in memory", "--workload",
        "python3 with sqlite3: 100,000 rows of 200 bytes, then updates of single rows, few of them often, for 5 s",
        "--", "python3", "-c", _SQLITE,
    ),
}  # fmt: skip


def main() -> int:
    """Record those named, or all."""
    for name in sys.argv[1:] or CAPTURES:
        kind, *rest = CAPTURES[name]
        path = TRACES / f"{name}.parquet"
        if code := replay(["capture", kind, "-o", str(path), "--licence", "CC0-1.0", *rest]):
            return code
        (TRACES / f"{name}.md").write_text(data_card(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
