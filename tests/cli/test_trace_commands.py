"""The subcommands of `replay trace` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.cli.calls import call

PNG = b"\x89PNG"


@pytest.fixture
def part(capsys: Any, tmp_path: Path) -> Path:
    """A second of redis-1g."""
    path = tmp_path / "part.parquet"
    assert call(capsys, "trace", "slice", "redis-1g", "--from", "1s", "--to", "2s", "-o", str(path))[0] == 0
    return path


def told_of(capsys: Any, *arguments: str) -> dict[str, Any]:
    code, out, err = call(capsys, "trace", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_a_chain_of_reshapes(capsys: Any, part: Path, tmp_path: Path) -> None:
    thin, both, slow = (str(tmp_path / f"{name}.parquet") for name in ("thin", "both", "slow"))
    assert told_of(capsys, "sample", str(part), "--keep", "20%", "-o", thin)["n_events"] > 1000
    assert told_of(capsys, "merge", str(part), thin, "-o", both)["n_vcpus"] == 4
    code, out, _ = call(capsys, "trace", "scale", both, "--speed", "0.5x", "--memory", "4G", "-o", slow)
    assert code == 0
    assert "4 GiB, 4 vCPUs" in out
    assert "scale speed=0.5x memory=4294967296 fit=embed rest=zero of both.parquet" in out
    assert "[part.parquet] slice from=1s to=2s of redis-1g.parquet" in out
    assert call(capsys, "trace", "validate", slow)[0] == 0
    assert "reshaped" in call(capsys, "trace", "info", slow)[1]
    assert call(capsys, "run", slow, "--max-bandwidth", "1250MiB/s", "--log", "tcg")[0] == 0


def test_stat_fits_the_terminal_and_writes_curves(capsys: Any, part: Path, tmp_path: Path) -> None:
    csv, parquet, png = (str(tmp_path / f"curves.{suffix}") for suffix in ("csv", "parquet", "png"))
    code, out, _ = call(capsys, "trace", "stat", str(part), "-o", csv, "--plot", png)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    for word in ("rate", "runs", "reuse", "skew", "working set", "▇"):
        assert word in out
    assert Path(png).read_bytes().startswith(PNG)
    assert call(capsys, "trace", "stat", str(part), "--windows", "100ms,1s", "-o", parquet)[0] == 0
    frame = pl.read_parquet(parquet)
    assert frame.columns == ["window_ns", "begin_ns", "events", "unique_pages", "extents"]
    assert frame.height == 11
    told = told_of(capsys, "stat", str(part), "--windows", "100ms,1s")
    assert told["curves"][0]["unique_pages"] == frame.filter(pl.col("window_ns") == 10**8)["unique_pages"].to_list()
    assert pl.read_csv(csv).height == 12


def test_stat_against_another(capsys: Any, part: Path) -> None:
    code, out, _ = call(capsys, "trace", "stat", "redis-1g", "--against", str(part))
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    assert "part.parquet against redis-1g" in out
    rows = told_of(capsys, "stat", "redis-1g", "--against", str(part))["rows"]
    assert all(row["error"] is None or isinstance(row["error"], float) for row in rows)


def test_stat_of_a_workload(capsys: Any) -> None:
    told = told_of(capsys, "stat", "zipf:rate=5000,memory=64M,duration=2s")
    assert told["rate"]["mean"] == 5000


def test_a_heatmap_as_a_picture_and_in_the_terminal(capsys: Any, tmp_path: Path, monkeypatch: Any) -> None:
    png = tmp_path / "heat.png"
    code, out, _ = call(capsys, "trace", "heatmap", "idle-1g", "-o", str(png))
    assert code == 0
    assert "74,252 of 74,252 writes" in out
    assert png.read_bytes().startswith(PNG)
    assert list(tmp_path.iterdir()) == [png]
    code, out, _ = call(capsys, "trace", "heatmap", "idle-1g", "--within", "0-300M", "--address", "page")
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in out, "no colours into a pipe"
    assert any(set(line) & set("#%@") for line in lines)
    assert "log scale" in lines[-1]
    told = told_of(capsys, "heatmap", "idle-1g", "--bins", "20x10")
    assert (len(told["cells"]), len(told["cells"][0])) == (10, 20)
    assert sum(map(sum, told["cells"])) == told["n_events"]


@pytest.mark.parametrize(("no_color", "colours"), [(None, True), ("1", False)])
def test_colours_only_where_they_are_wanted(monkeypatch: Any, no_color: str | None, colours: bool) -> None:
    from rich.console import Console

    import replay
    from replay.cli.trace_heatmap import text

    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", no_color)
    console = Console(force_terminal=True, color_system="truecolor", width=60)
    lines = text(replay.heatmap("idle-1g", rows=21, columns=40), console, "gib")
    assert ("▀" in "".join(line.plain for line in lines)) is colours
    assert any("rgb" in str(span.style) for line in lines for span in line.spans) is colours
    with console.capture() as capture:
        for line in lines:
            console.print(line, no_wrap=True)
    assert ("\x1b[38;2;" in capture.get()) is colours


def test_high_addresses_are_above_and_late_times_right() -> None:
    from rich.console import Console

    from replay.cli.trace_heatmap import COLOURS, text
    from replay.describing.heat import heat
    from replay.trace.reader import Trace

    t_ns, page = [0, *[9] * 100], [0, *[99] * 100]
    trace = Trace.from_arrays(t_ns, page, memory_bytes=100 * 4096, duration_ns=10)
    found = heat(trace, rows=4, columns=5)
    console = Console(force_terminal=True, color_system="truecolor", no_color=False, width=60)
    console.no_color = False
    lines = text(found, console, "page")
    pictures = [line.plain.partition("┤")[2] or line.plain.partition("│")[2] for line in lines[1:3]]
    assert pictures == ["    ▀", "▄    "], "one write at the lowest page and time 0, many at the highest and last"
    styles = [str(line.spans[-1].style) for line in lines[1:3]]
    assert styles == ["rgb({},{},{})".format(*COLOURS[-1]), "rgb({},{},{})".format(*COLOURS[0])]
    plain = text(found, Console(no_color=True, width=60), "page")
    assert [line.plain[-5:] for line in plain[1:5]] == ["    @", "     ", "     ", ".    "]


def test_a_fit_is_shown_and_generates(capsys: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capsys, "trace", "fit", "idle-1g", "-o", "idle.toml")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    assert "not the program" in out.replace("\n", " ")
    assert "distinct pages in 100 ms" in out
    assert call(capsys, "generate", "idle.toml", "-o", "made.parquet")[0] == 0
    told = told_of(capsys, "info", "made.parquet")
    assert told["n_events"] == pytest.approx(74_252, rel=0.01)
    assert call(capsys, "run", "idle.toml", "--max-bandwidth", "1250MiB/s", "--log", "tcg")[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [("stat",), ("heatmap",), ("heatmap", "-o", "x.png"), ("fit", "-o", "x.toml"), ("stat", "--plot", "x.png")],
)
def test_a_damaged_trace_is_an_error_not_a_traceback(
    capsys: Any, part: Path, tmp_path: Path, monkeypatch: Any, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = bytearray(part.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    part.write_bytes(data)
    code, _, err = call(capsys, "trace", arguments[0], str(part), *arguments[1:])
    assert code == 4
    assert "part.parquet" in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == [part]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("slice", "idle-1g", "-o", "x.parquet"), 2, "say what to keep"),
        (("slice", "idle-1g", "--from", "5", "-o", "x.parquet"), 2, "needs a unit"),
        (("slice", "idle-1g", "--from", "99s", "-o", "x.parquet"), 2, "not a part of a recording of 18.2 s"),
        (("slice", "idle-1g", "--pages", "5", "-o", "x.parquet"), 2, "write it like 0-65536"),
        (("slice", "idle-1g", "--pages", "0-5", "--pages", "4-9", "-o", "x.parquet"), 2, "overlap"),
        (("slice", "idle-1g", "--within", "0-99G", "-o", "x.parquet"), 2, "not a range of the trace's"),
        (("slice", "idle-1g", "--within", "50%-50%", "-o", "x.parquet"), 2, "not a range of the trace's"),
        (("slice", "idle-1g", "--pages", "0-1", "-o", "x.parquet"), 2, "no event in this slice"),
        (("slice", "idle-1g", "--to", "1s", "-o", "nowhere/x.parquet"), 4, "cannot be written"),
        (("slice", "nowhere.parquet", "--to", "1s", "-o", "x.parquet"), 4, "no such file"),
        (("sample", "idle-1g", "--keep", "200%", "-o", "x.parquet"), 2, "not between 0 and 1"),
        (("sample", "idle-1g", "--keep", "0", "-o", "x.parquet"), 2, "keep a share between 0 and 1"),
        (("sample", "idle-1g", "--keep", "1%", "--seed", "x", "-o", "x.parquet"), 2, "not a whole number"),
        (("merge", "idle-1g", "-o", "x.parquet"), 2, "two or more"),
        (("merge", "idle-1g", "xz-1g", "--of", "vcpus", "-o", "x.parquet"), 2, "can be merged as guests"),
        (("scale", "idle-1g", "--speed", "0x", "-o", "x.parquet"), 2, "not a factor above 0"),
        (("scale", "idle-1g", "--speed", "fast", "-o", "x.parquet"), 2, "write it like 4x"),
        (("scale", "idle-1g", "--speed", "1e9x", "-o", "x.parquet"), 2, "within a million times"),
        (("scale", "idle-1g", "--memory", "1M", "--fit", "stretch", "-o", "x.parquet"), 0, "256 pages"),
        (("scale", "idle-1g", "--memory", "512K", "--fit", "stretch", "-o", "x.parquet"), 2, "guest wrote"),
        (("stat", "idle-1g", "--windows", "1s,x"), 2, "not a duration"),
        (("stat", "idle-1g", "--windows", "1us"), 2, "choose longer ones"),
        (("stat", "idle-1g", "-o", "x.txt"), 2, "must end in .parquet, .csv"),
        (("stat", "idle-1g", "--plot", "nowhere/x.png"), 2, "no such folder"),
        (("heatmap", "idle-1g", "-o", "x.txt"), 2, "must end in .png"),
        (("heatmap", "idle-1g", "--bins", "5"), 2, "like 800x400"),
        (("heatmap", "idle-1g", "--bins", "5000x10"), 2, "columns fit here"),
        (("heatmap", "idle-1g", "--address", "mib"), 2, "gib or page"),
        (("heatmap", "idle-1g", "--from", "2s", "--to", "1s"), 2, "not a part"),
        (("fit", "idle-1g", "-o", "x.json"), 2, "must end in .toml"),
        (("card", "nothing"), 2, "no shipped trace"),
    ],
)  # fmt: skip
def test_mistakes_are_named_and_leave_nothing(
    capsys: Any, monkeypatch: Any, tmp_path: Path, arguments: tuple[str, ...], code: int, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    got, out, err = call(capsys, "trace", *arguments)
    assert got == code, err
    if code:
        assert told in err + out
        assert list(tmp_path.iterdir()) == []
    assert "Traceback" not in err


def narrow(capsys: Any, monkeypatch: Any, *arguments: str) -> list[str]:
    """Lines of a terminal of 60 columns without colours."""
    from rich.console import Console

    from replay.cli import show

    monkeypatch.setattr(show, "console", lambda: Console(width=60, highlight=False, color_system=None))
    code, out, err = call(capsys, "trace", *arguments)
    assert code == 0, err
    return out.splitlines()


def test_a_narrow_terminal_shows_whole_words(capsys: Any, monkeypatch: Any) -> None:
    for arguments in (("list",), ("stat", "microvm-hot-cold"), ("heatmap", "microvm-hot-cold"), ("info", "xz-1g")):
        lines = narrow(capsys, monkeypatch, *arguments)
        assert max(map(len, lines)) <= 60, arguments
        assert "…" not in "".join(lines), arguments
    assert "log scale" in " ".join(narrow(capsys, monkeypatch, "heatmap", "microvm-hot-cold"))
    assert "auto-converge" in " ".join(narrow(capsys, monkeypatch, "list"))


def test_a_heatmap_counts_in_units_that_fit(capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "ten.csv").write_text("us,address\n" + "".join(f"{i * 7},{i * 4096}\n" for i in range(10)))
    ten = str(tmp_path / "ten.parquet")
    columns = "t=us,page=address>>12"
    assert (
        call(
            capsys, "import", "table", str(tmp_path / "ten.csv"), "--columns", columns, "--time-unit", "us", "-o", ten
        )[0]
        == 0
    )
    for trace, said in ((ten, ("40 K ┤", "63 us")), ("microvm-hot-cold", (" M ┤", " s"))):
        code, out, err = call(capsys, "trace", "heatmap", trace)
        assert (code, err) == (0, "")
        assert "\x1b" not in out
        assert all(part in out for part in said), out


def test_few_events_are_no_workload(capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "ten.csv").write_text("t,page\n" + "".join(f"{i * 7000},{i}\n" for i in range(10)))
    ten = str(tmp_path / "ten.parquet")
    assert call(capsys, "import", "table", str(tmp_path / "ten.csv"), "-o", ten)[0] == 0
    code, out, _ = call(capsys, "trace", "fit", ten)
    assert code == 0
    assert "10 events are few" in out


def test_a_card_as_an_object(capsys: Any) -> None:
    told = told_of(capsys, "card", "redis-1g")
    assert told["card"].startswith("# redis-1g: ")
    assert told["name"] == "redis-1g"
    assert told["sha256"] in told["card"]
    for name in ("redis-1", "../redis-1g", ""):
        code, _, err = call(capsys, "trace", "card", name, "--json")
        assert code == 2
        assert "there are: " in err
