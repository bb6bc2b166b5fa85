"""`replay check`: explore every interleaving of a design on small guests; print the shortest way to lose a page."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from replay.cli.options import add_json
from replay.errors import ReplayError, UnsafeError

if TYPE_CHECKING:
    from replay.safety.check import Told, Verdict

BOUNDS = (
    ("pages", 3, "pages of the largest guest"),
    ("ring", 2, "entries of the largest queue"),
    ("writes", 4, "writes in all, of vCPUs and devices"),
    ("vcpus", 1, "vCPUs that write"),
    ("devices", 1, "devices that write"),
    ("max-states", 5_000_000, "give an exploration up after so many states: not proven"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay check`."""
    parser.add_argument("design", metavar="DESIGN[:PARAMS]", help="a design, or path/to/file.py (replay list designs)")
    parser.add_argument("--log", metavar="LOG", help="one dirty log instead of all")
    for name, default, text in BOUNDS:
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{text} (default: {default})")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Explore and show. Raises UnsafeError after showing a schedule, ReplayError when states ran out."""
    if "replay.jit" not in sys.modules:
        os.environ["NUMBA_DISABLE_JIT"] = (
            "1"  # verbs are explored as plain Python: nothing to compile, nothing to wait for
        )
    from replay.safety.check import Request, check

    bounds = {name.replace("-", "_"): getattr(args, name.replace("-", "_")) for name, _, _ in BOUNDS}
    request = Request(design=args.design, log=args.log, **bounds)
    with _status_line() as told:
        verdict = check(request, told)
    if args.json:
        from replay.cli import show

        show.print_json(verdict.as_dict())
    else:
        _show(verdict)
    if verdict.property is not None:
        raise UnsafeError(f"{verdict.design} is unsafe: {verdict.property} ({_where(verdict)})")
    if not verdict.safe:
        raise ReplayError(
            f"{verdict.design}: not proven: nothing found in {verdict.states:,} states, but there are more; lower the "
            "bounds or raise --max-states"
        )
    return 0


def _where(verdict: Verdict) -> str:
    last = verdict.parts[-1]
    return f"{last.part} on {last.log}, {last.bounds}"


def _show(verdict: Verdict) -> None:
    from rich.table import Table

    from replay.cli import show

    out = show.console()
    if verdict.property is None:
        logs = {part: sorted({p.log for p in verdict.parts if p.part == part}) for part in ("protocol", "verbs")}
        for part, names in logs.items():
            mine = [p for p in verdict.parts if p.part == part]
            if mine:
                told = "safe" if all(p.complete for p in mine) else "not proven"
                largest = [p for p in mine if "loss" in p.looked_for][-1]
                out.print(
                    f"{verdict.design}: {told}: {part} on {', '.join(names)}, {sum(p.states for p in mine):,} states "
                    f"up to {largest.bounds}",
                    markup=False,
                    soft_wrap=True,
                )
        return
    table = Table(title=f"{verdict.design}: {verdict.property}, {_where(verdict)}", title_justify="left")
    for heading in ("step", "actor", "what", "page", "meaning"):
        table.add_column(heading, justify="right" if heading in ("step", "page") else "left")
    for number, step in enumerate(verdict.schedule, start=1):
        page = "" if step.page is None else str(step.page)
        again = " (and over again from here)" if verdict.cycle_from == number - 1 else ""
        table.add_row(str(number), step.actor, step.step, page, step.means + again)
    out.print(table)


@contextmanager
def _status_line() -> Iterator[Told | None]:
    """What is explored and how many states, on stderr, only on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    since, shown = time.monotonic(), 0.0

    def told(what: str, states: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown > 0.2:
            shown = now
            sys.stderr.write(f"\r\x1b[K{what}: {states:,} states, {now - since:.0f} s"[:160])
            sys.stderr.flush()

    try:
        yield told
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
