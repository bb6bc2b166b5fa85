"""`replay import` at the command line and from Python."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest

import replay
from replay.cli.main import main
from replay.errors import UsageError
from replay.importing.streams import Sources
from replay.importing.tally import Tally
from replay.plugins import names, parse
from tests.importers.common import SAMPLES, rows, sample

RING = str(SAMPLES / "perf_script.txt.gz")


def test_a_trace_and_what_became_of_every_line(tmp_path, capsys):
    output = tmp_path / "guest.parquet"
    assert main(["import", "kvm-ftrace", RING, "-o", str(output), "--title", "a guest", "--licence", "CC0-1.0"]) == 0
    told = capsys.readouterr()
    assert "1,647 events in 60.6 ms" in told.out
    assert "ring-full exits" in told.out
    assert not told.err
    assert main(["trace", "validate", str(output)]) == 0
    trace = replay.open_trace(output)
    assert (trace.metadata.title, trace.metadata.licence) == ("a guest", "CC0-1.0")
    assert trace.metadata.provenance["made_by"] == "replay import kvm-ftrace"
    assert trace.metadata.provenance["importer"] == {
        "name": "kvm-ftrace",
        "slots": "",
        "vcpus": "",
        "reverse_batches": 0,
    }


def test_json(tmp_path, capsys):
    assert main(["import", "kvm-ftrace", RING, "-o", str(tmp_path / "a.parquet"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"]["events"] == told["n_events"] == 1647
    assert told["provenance"]["import"] == told["counts"] | told["provenance"]["import"]


def test_too_much_missing_is_an_error_and_leaves_what_was_there(tmp_path, capsys):
    output = tmp_path / "a.parquet"
    output.write_text("what was there")
    lost = str(SAMPLES / "trace_pipe_lost.txt.gz")
    assert main(["import", "kvm-ftrace", lost, "-o", str(output)]) == 4
    assert "45.59%" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]
    assert output.read_text() == "what was there"
    assert main(["import", "kvm-ftrace", lost, "-o", str(output), "--max-dropped", "50%"]) == 0


def test_standard_input(tmp_path, monkeypatch):
    class Stdin:
        buffer = io.BytesIO(sample("perf_script.txt"))

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert main(["import", "kvm-ftrace", "-", "-o", str(tmp_path / "a.parquet")]) == 0


@pytest.mark.parametrize("kind", names("importer"))
def test_help_of_a_kind_says_how_to_record_it(kind, capsys):
    with pytest.raises(SystemExit) as done:
        main(["import", kind, "--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert "how to record" in text
    assert "--max-dropped" in text
    assert f"replay import {kind} " in text


@pytest.mark.parametrize("kind", names("importer"))
def test_an_importer_opens_with_an_essay(kind):
    text = " ".join(parse("importer", kind).module.__doc__.split())
    assert text.startswith(f"{kind}: ")
    for part in ("What:", "How:", "Cost:", "Bad for", "Models:"):
        assert part in text


def test_help_shows_all_kinds_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom replay.cli.main import main\ntry:\n    main(['import', '--help'])\nexcept SystemExit:\n"
        "    pass\nassert not {'numpy', 'polars', 'pyarrow', 'numba'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for kind in names("importer"):
        assert kind in done.stdout
    assert "trace_pipe" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["kvm-ftrac", RING, "-o", "a"], "Did you mean 'kvm-ftrace'"),
        (["kvm-ftrace", RING, "-o", "a", "--memory", "5000"], "multiple of 4096"),
        (["kvm-ftrace", RING, "-o", "a", "--max-dropped", "2"], "between 0 and 1"),
        (["kvm-ftrace", "-", "-", "-o", "a"], "once"),
        (["table", RING, "-o", "a", "--time-unit", "h"], "time-unit"),
    ],
)
def test_wrong_options(arguments, why, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["import", *arguments]) == 2
    assert why in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_files_that_are_not_there(tmp_path, capsys):
    assert main(["import", "qemu-log", str(tmp_path / "no"), "-o", str(tmp_path / "a")]) == 4
    assert main(["import", "kvm-ftrace", RING, "-o", str(tmp_path / "no" / "a")]) == 4
    assert "cannot be written" in capsys.readouterr().err


def test_an_input_is_not_overwritten(tmp_path):
    path = tmp_path / "ring.txt"
    path.write_bytes(sample("perf_script.txt"))
    with pytest.raises(UsageError, match="would be overwritten"):
        replay.import_trace("kvm-ftrace", path, path)


def test_progress_is_told_in_bytes(tmp_path):
    told = []
    replay.import_trace("kvm-ftrace", RING, tmp_path / "a", progress=lambda *at: told.append(at))
    size = (SAMPLES / "perf_script.txt.gz").stat().st_size
    assert told[-1] == (size, size)


def test_an_importer_of_ones_own(tmp_path):
    """A file with an essay, a Config and one function."""
    (tmp_path / "mine.py").write_text(
        '"""mine: one write a line, "PAGE at SECONDS"."""\n'
        "from dataclasses import dataclass\n"
        "from replay.importing.places import Extent\n"
        "from replay.importing.report import Batch\n"
        "from replay.plugins import param\n"
        '@dataclass(frozen=True, kw_only=True)\nclass Config:\n    plus: int = param(0, "added to pages")\n'
        "def read(config, sources, report):\n"
        "    ram = report.places.number(Extent('ram'))\n"
        "    for chunk in sources.chunks(report.tally):\n"
        "        batch = Batch()\n"
        "        for line in chunk.lines:\n"
        "            page, _, seconds = line.split()\n"
        "            t_ns = int(float(seconds) * 1e9)\n"
        "            assert report.late(t_ns) is None\n"
        "            batch.add(t_ns, ram, int(page) + config.plus, 0)\n"
        "        yield batch\n"
    )
    (tmp_path / "in.txt").write_text("5 at 1.0\n6 at 1.5\n")
    output = tmp_path / "a.parquet"
    assert main(["import", str(tmp_path / "mine.py"), str(tmp_path / "in.txt"), "-o", str(output), "--plus", "2"]) == 0
    assert rows(output) == [(0, 7, 0), (500_000_000, 8, 0)]


def test_lines_are_told_apart_whatever_the_blocks(tmp_path, monkeypatch):
    data = b"".join(b"%d\n" % k * (k % 3) + b"\n" for k in range(500)) + b"end"
    (tmp_path / "x").write_bytes(data)
    for block in (1, 7, 4096):
        monkeypatch.setattr("replay.importing.streams.BLOCK_BYTES", block)
        tally = Tally()
        chunks = list(Sources([str(tmp_path / "x")]).chunks(tally))
        assert [line for chunk in chunks for line in chunk.lines] == data.split(b"\n")
        numbers = [chunk.first for chunk in chunks]
        assert numbers == sorted(numbers)
        assert tally.read == len(data.split(b"\n"))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(tmp_path):
    peaks = []
    for n in (20_000, 400_000):
        path = tmp_path / f"{n}.log"
        with path.open("w") as file:
            for k in range(n):
                time = f"{1718876847 + k // 100_000}.{k % 100_000 * 10:06}"
                file.write(f"7@{time}:memory_notdirty_write_access 0x0 ram_addr {k * 4096 % (1 << 30):#x} size 8\n")
        code = (
            "import resource, sys, replay\nreplay.import_trace('qemu-log', sys.argv[1], sys.argv[1] + '.parquet')\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 60_000  # KiB; the file is 30 MB, its events 10
