"""How wrong others' predictions were, beside ours of recorded migrations that are given."""

from __future__ import annotations

import os
from collections.abc import Sequence

from replay.errors import UsageError
from replay.reproducing.report import PREDICTION, Figure, Report
from replay.reproducing.scenario import Scenario
from replay.results.provenance import machine


def judged(scenario: Scenario, folders: Sequence[str | os.PathLike[str]]) -> Report:
    """Predict the migrations recorded in `folders`; their errors stand beside the published ones.

    Raises UsageError without folders, or when none of their migrations has a total time to compare.
    """
    from replay.validation.run import validate

    if not folders:
        raise UsageError(
            f"{scenario.name} compares predictions of recorded migrations: give some with --cases CASE_DIR..."
        )
    report = validate(list(folders))
    found = [case["metrics"]["total-time"]["error_pct"] for case in report["cases"] if "metrics" in case]
    errors = [abs(error) for error in found if error is not None]
    if not errors:
        raise UsageError("none of these cases has a total time to compare with a prediction")
    errors.sort()
    ours = {
        "90th percentile": errors[min(len(errors) - 1, -(-9 * len(errors) // 10) - 1)],
        "mean": sum(errors) / len(errors),
    }
    figures = tuple(
        Figure(place=(table.label(row), column), published=value, replayed=max(ours[row], 1e-9), kind=PREDICTION)
        for table in scenario.tables
        for (row, column), value in table.published.items()
    )
    return Report(
        experiment=scenario.name, title=scenario.title, source=scenario.source, unit=scenario.unit,
        conclusion=scenario.conclusion, measured=False, figures=figures, signs=(), assumptions=scenario.assumptions,
        provenance=machine() | {"cases": len(errors)},
    )  # fmt: skip
