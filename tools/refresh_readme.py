"""Rewrite the generated parts of README.md: the demo's output, the record's columns, the benchmark, the errors.

python tools/refresh_readme.py            # all but the benchmark
python tools/refresh_readme.py --bench    # the benchmark too (minutes)
python tools/refresh_readme.py --validate CASE_DIR...   # only how wrong predictions of these cases are (minutes)
python tools/refresh_readme.py --check    # exit code 1 when the columns are stale
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from replay import columns  # noqa: E402

README = ROOT / "README.md"


def replace(text: str, section: str, body: str) -> str:
    """`text` with what stands between the two marks of `section` replaced by `body`."""
    pattern = re.compile(rf"(<!-- {section} -->\n).*?(<!-- end of {section} -->)", re.DOTALL)
    assert pattern.search(text), section
    return pattern.sub(lambda match: match.group(1) + body.rstrip("\n") + "\n" + match.group(2), text)


def output_of(*command: str) -> str:
    """What a command prints on stdout."""
    environment = os.environ | {"NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=True, env=environment
    )
    return "\n".join(line.rstrip() for line in done.stdout.splitlines())


def main() -> int:
    """Rewrite, or check."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--bench", action="store_true", help="run the benchmark and write its table")
    parser.add_argument("--validate", nargs="+", metavar="CASE_DIR", help="write how wrong predictions of these are")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 when the columns are stale")
    args = parser.parse_args()
    text = README.read_text()
    fresh = replace(text, "the record's columns", columns.markdown())
    if args.validate:
        from replay.validation.page import markdown
        from replay.validation.run import validate

        report = validate(args.validate, trace_kind="both", leave_one_out=True)
        others = validate(args.validate, trace_kind="others", members=5)
        report["summary_by_trace_kind"] |= others["summary_by_trace_kind"]
        for skipped in report["skipped"]:
            print(f"skipped {skipped['name']}: {skipped['error'].rpartition(': ')[2]}", file=sys.stderr)
        README.write_text(replace(text, "how wrong predictions have been", markdown(report)))
        return 0
    if args.check:
        return int(fresh != text)
    output_of("-m", "replay", "demo")  # so that the second run measures warm kernels
    fresh = replace(fresh, "the demo's output", "```\n" + output_of("-m", "replay", "demo") + "\n```")
    if args.bench:
        fresh = replace(fresh, "the benchmark", output_of("tools/bench", "--markdown"))
    README.write_text(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
