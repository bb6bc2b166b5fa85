"""Write traces/index.json: name, checksum, figures and source of every shipped trace.

python tools/index_traces.py            # after a trace was added, removed or made anew
python tools/index_traces.py --check    # exit code 1 when the index is out of date
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from replay.trace.shipped import INDEX, index_text  # noqa: E402

TRACES = ROOT / "traces"


def main() -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 when it is out of date")
    args = parser.parse_args()
    path, fresh = TRACES / INDEX, index_text(TRACES)
    if args.check:
        stale = not path.is_file() or path.read_text(encoding="utf-8") != fresh
        print(f"{path.name}: {'out of date; run tools/index_traces.py' if stale else 'up to date'}")
        return int(stale)
    path.write_text(fresh, encoding="utf-8")
    print(f"{path.name}: {fresh.count(chr(10)) - 2} traces")
    return 0


if __name__ == "__main__":
    sys.exit(main())
