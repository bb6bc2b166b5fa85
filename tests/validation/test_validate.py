"""Predictions of two real migrations, what may enter them, and what happens to a broken case."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import replay
from replay.cli.main import main
from replay.errors import TraceError, UsageError
from replay.jit import DISABLED
from replay.validation.case import read_case

CASES = Path(__file__).parent / "cases"
CHURN, IDLE = CASES / "churn-1g-bw100-dt100", CASES / "idle-1g-bw60"
MULTIFD, POSTCOPY = CASES / "rand128-10k-bw60-dt100-multifd2", CASES / "rand128-20k-bw50-postcopy"

pytestmark = pytest.mark.skipif(DISABLED, reason="guests of a real size would take hours as plain Python")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CHURN, tmp_path / "case"))


def change(folder: Path, **fields) -> None:
    path = folder / "case.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_real_migrations_are_predicted():
    report = replay.validate([CHURN, IDLE], trace_kind="both", members=5)
    kinds = [(case["name"], case["trace_kind"]) for case in report["cases"]]
    assert kinds == [(CHURN.name, "event"), (IDLE.name, "store"), (IDLE.name, "event")]
    for case in report["cases"]:
        metrics = case["metrics"]
        assert abs(metrics["total-time"]["error_pct"]) < 1
        assert abs(metrics["normal"]["error_pct"]) < 1
        assert abs(metrics["transferred"]["error_pct"]) < 1
        assert metrics["dirty-sync-count"]["error_pct"] == 0
        assert metrics["converged"] == {"actual": True, "predicted": True}
        assert case["p_converged"] == 1
        assert not case["knife_edge"]
        low, high = case["interval_ms"]
        assert low <= metrics["total-time"]["predicted"] <= high
    assert report["summary"]["total-time"]["cases"] == 3
    assert report["summary_by_trace_kind"]["event"]["converged"] == {"right": 2, "of": 2}


def test_a_migration_through_two_channels_is_predicted_to_a_window():
    """Predicted as a plain precopy it would take 40 % longer."""
    (case,) = replay.validate([MULTIFD], members=5)["cases"]
    total = case["metrics"]["total-time"]
    assert abs(total["predicted"] - total["actual"]) <= 110
    assert abs(case["metrics"]["normal"]["error_pct"]) < 1.5
    assert case["not_modelled"] == []


def test_a_switch_to_postcopy_is_predicted(capsys):
    (case,) = replay.validate([POSTCOPY], members=5)["cases"]
    metrics = case["metrics"]
    assert abs(metrics["total-time"]["error_pct"]) < 1
    assert abs(metrics["postcopy-pages"]["error_pct"]) < 2
    assert abs(metrics["postcopy-time"]["error_pct"]) < 10
    assert metrics["postcopy-faults"]["predicted"] > 50
    assert abs(metrics["downtime"]["predicted"] - metrics["downtime"]["actual"]) <= 5
    assert any(text.startswith("postcopy asked for after 6.027 s") for text in case["inputs"])
    assert main(["validate", str(POSTCOPY), "--members", "2"]) == 0
    assert "postcopy: predicted/actual pages 249" in capsys.readouterr().out


def test_guests_of_other_cases(copied):
    change(copied, name="twin")
    report = replay.validate([CHURN, copied, IDLE, MULTIFD], trace_kind="others", members=3)
    assert [(case["name"], case["trace_of"]) for case in report["cases"]] == [(CHURN.name, copied.name), ("twin", CHURN.name)]
    assert abs(report["cases"][0]["metrics"]["total-time"]["error_pct"]) < 1
    assert report["summary_by_trace_kind"].keys() == {"others"}
    with pytest.raises(UsageError, match="leave out --trace"):
        replay.validate([CHURN], trace_kind="others", trace=CHURN)


def test_the_same_twice_and_other_seeds_differ():
    first, again, other = (replay.validate([CHURN], members=3, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first["cases"][0]["interval_ms"] != other["cases"][0]["interval_ms"]


def test_nothing_of_the_outcome_enters_a_prediction(copied):
    data = json.loads((copied / "case.json").read_text())
    told = {
        "result",
        "rounds",
        "events",
        "polls",
        "trace_events_src",
        "trace_events_dst",
        "src_stop_ms",
        "dst_resume_ms",
    }
    lied = {key: value for key, value in data.items() if key not in told}
    ram = dict.fromkeys(data["result"]["ram"], 1)
    lied |= {"result": {"status": "completed", "total-time": 1, "downtime": 1, "ram": ram}, "rounds": []}
    true = replay.validate([copied], members=2)["cases"][0]
    (copied / "case.json").write_text(json.dumps(lied))
    blind = replay.validate([copied], members=2)["cases"][0]
    assert blind["metrics"]["total-time"]["predicted"] == true["metrics"]["total-time"]["predicted"]
    assert [row["predicted"] for row in blind["rounds"]] == [
        row["predicted"] for row in true["rounds"] if row["predicted"]
    ]
    assert blind["inputs"] == true["inputs"]
    assert blind["metrics"]["total-time"]["actual"] == 1


def test_a_case_without_a_result_is_predicted_all_the_same(copied):
    data = json.loads((copied / "case.json").read_text())
    blank = {key: value for key, value in data.items() if key not in ("result", "result_before_cancel", "rounds")}
    (copied / "case.json").write_text(json.dumps(blank))
    report = replay.validate([copied], members=2)
    case = report["cases"][0]
    assert case["metrics"]["converged"] == {"actual": None, "predicted": True}
    assert case["metrics"]["total-time"]["predicted"] > 2000
    assert "no result: nothing to compare with" in case["notes"]
    assert report["summary"]["converged"] == {"right": 0, "of": 0}


def test_parameters_enter_a_prediction(copied):
    data = json.loads((copied / "case.json").read_text())
    change(copied, parameters=data["parameters"] | {"max-bandwidth": 50_000_000})
    slow = replay.validate([copied], members=1)["cases"][0]
    assert slow["metrics"]["total-time"]["predicted"] > 1.8 * slow["metrics"]["total-time"]["actual"]
    assert any("outlives its trace" in note for note in slow["notes"])


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (lambda folder: (folder / "case.json").write_text("{"), "not JSON"),
        (lambda folder: (folder / "case.json").unlink(), "cannot be read"),
        (lambda folder: (folder / "case.json").write_text("[]"), "not of the expected kind"),
        (lambda folder: change(folder, parameters={}), "has no 'max-bandwidth'"),
        (lambda folder: change(folder, rounds=[{"sync": 1}]), "has no 'dirty_pages'"),
        (lambda folder: (folder / "trace.parquet").write_bytes(b"PAR1"), "trace.parquet: not a readable Parquet"),
        (lambda folder: (folder / "trace.parquet").unlink(), "has no trace of kind store or event"),
    ],
)
def test_a_broken_case_is_named_and_skipped(copied, capsys, fault, told):
    fault(copied)
    assert main(["validate", str(copied), str(IDLE), "--members", "1", "--json"]) == 4
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert [case["name"] for case in report["cases"]] == [IDLE.name]
    assert told in report["skipped"][0]["error"]
    assert "skipped" in err
    assert told in err


def test_json_has_the_promised_fields(capsys):
    assert main(["validate", str(IDLE), "--members", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    case = report["cases"][0]
    for name in ("total-time", "downtime", "dirty-sync-count", "normal", "transferred"):
        assert set(case["metrics"][name]) == {"actual", "predicted", "error_pct"}
        assert {"median_abs_error_pct", "p90_abs_error_pct"} <= set(report["summary"][name])
    assert set(case["metrics"]["converged"]) == {"actual", "predicted"}
    assert case["trace_kind"] == "store"
    assert len(case["rounds"]) == 3
    assert case["fluid"]["converged"]


def test_tables_fit_the_screen(capsys):
    assert main(["validate", str(IDLE), str(CHURN), "--members", "2", "--rounds", "--inputs"]) == 0
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines()) <= 100
    for word in ("fluid model", "zero map", "cost table", "zero_start.parquet"):
        assert word in out


def test_a_picture(tmp_path):
    path = tmp_path / "v.svg"
    assert main(["validate", str(CHURN), "--members", "1", "-o", str(path)]) == 0
    assert b"</svg>" in path.read_bytes()
    assert main(["validate", str(CHURN), "--members", "1", "-o", str(tmp_path / "v.txt")]) == 2


def test_the_trace_of_another_boot():
    report = replay.validate([IDLE], trace_kind="recording", trace=IDLE / "stores.parquet", members=4)
    case = report["cases"][0]
    assert case["trace_kind"] == "recording"
    assert abs(case["metrics"]["total-time"]["error_pct"]) < 2
    assert "trace: stores.parquet" in case["inputs"]


def test_senseless_options():
    with pytest.raises(UsageError, match="recording needs"):
        replay.validate([IDLE], trace_kind="recording")
    with pytest.raises(UsageError, match="no trace kind 'stores'.*Did you mean 'store'"):
        replay.validate([IDLE], trace_kind="stores")
    with pytest.raises(UsageError, match="members"):
        replay.validate([IDLE], members=0)
    with pytest.raises(UsageError, match="at least 3 usable cases"):
        replay.validate([IDLE, CHURN], leave_one_out=True)


def test_inputs_and_actual_are_apart():
    case = read_case(CHURN)
    assert case.actual.total_ms == 2108
    assert not set(vars(case.inputs)) & set(vars(case.actual))
    assert int(case.inputs.zero.sum()) == json.loads((CHURN / "case.json").read_text())["guest_at_start"]["zero_pages"]


def test_a_zero_map_that_reaches_beyond_memory(tmp_path):
    folder = Path(shutil.copytree(IDLE, tmp_path / "case"))
    data = json.loads((folder / "case.json").read_text())
    change(folder, ramblocks=data["ramblocks"][:1], memory_bytes=4096 * 1000)
    with pytest.raises(TraceError, match="beyond the guest's memory"):
        read_case(folder)
