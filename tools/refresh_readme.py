"""Rewrite what is generated in README.md and in the pages beside the code.

python tools/refresh_readme.py            # all but the benchmark and the errors of predictions
python tools/refresh_readme.py --bench    # the benchmark too (minutes)
python tools/refresh_readme.py --validate CASE_DIR...   # only how wrong predictions of these cases are (minutes)
python tools/refresh_readme.py --check    # exit code 1 when one is stale; those with measured times are not looked at
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

import front_page  # noqa: E402

import replay  # noqa: E402
from replay import columns  # noqa: E402

FRONT = "README.md"
ERRORS = "replay/validation/README.md"
BENCHMARK = "tools/bench/README.md"
RECORD = "replay/results/README.md"


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


def errors_of(cases: list[str]) -> str:
    """How wrong predictions of these cases are, as Markdown."""
    from replay.validation.page import markdown
    from replay.validation.run import validate

    report = validate(cases, trace_kind="both", leave_one_out=True)
    others = validate(cases, trace_kind="others", members=5)
    report["summary_by_trace_kind"] |= others["summary_by_trace_kind"]
    for skipped in report["skipped"]:
        print(f"skipped {skipped['name']}: {skipped['error'].rpartition(': ')[2]}", file=sys.stderr)
    return markdown(report)


def main() -> int:
    """Rewrite, or check."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--bench", action="store_true", help="run the benchmark and write its table")
    parser.add_argument("--validate", nargs="+", metavar="CASE_DIR", help="write how wrong predictions of these are")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 when a table is stale")
    args = parser.parse_args()
    stored = {name: (ROOT / name).read_text() for name in (FRONT, ERRORS, BENCHMARK, RECORD)}
    fresh = dict(stored)
    if args.validate:
        fresh[ERRORS] = replace(fresh[ERRORS], "how wrong predictions have been", errors_of(args.validate))
    else:
        fresh[RECORD] = replace(fresh[RECORD], "the record's columns", columns.markdown())
        fresh[FRONT] = replace(fresh[FRONT], "the answer", front_page.answer(replay.explain_seed()))
    if not args.check and not args.validate:
        output_of("-m", "replay", "demo")  # so that the second run measures warm kernels
        demo = output_of("-m", "replay", "demo")
        fresh[FRONT] = replace(fresh[FRONT], "the demo's output", "```\n" + demo + "\n```")
        if args.bench:
            fresh[BENCHMARK] = replace(fresh[BENCHMARK], "the benchmark", output_of("tools/bench", "--markdown"))
    fresh[FRONT] = replace(fresh[FRONT], "how accurate", front_page.accuracy(fresh[ERRORS]))
    fresh[FRONT] = replace(fresh[FRONT], "how fast", front_page.speed(fresh[BENCHMARK]))
    if args.check:
        stale = [name for name, text in fresh.items() if text != stored[name]]
        print(*stale, sep="\n")
        return int(bool(stale))
    for name, text in fresh.items():
        (ROOT / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
