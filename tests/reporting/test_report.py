"""Charts, the report and the Perfetto export: what is in them, what they refuse, and what a browser makes of the page."""

from __future__ import annotations

import itertools
import json
import re
from html.parser import HTMLParser

import pytest

import replay
from replay.analysis.charts import KINDS, draw, steps
from replay.analysis.series import timeline
from replay.cli.main import main
from replay.errors import UsageError
from replay.reporting import page
from replay.reporting.perfetto import trace_events
from tests.reporting import browser

GUEST = "uniform:rate=20000,memory=64M,vcpus=2,duration=500ms"


@pytest.fixture(scope="module")
def results():
    options = {"log": "kvm-ring:1024", "downtime_limit": "5ms", "zero_share": "30%"}
    return [
        replay.run(GUEST, max_bandwidth="200MB/s", **options),
        replay.run(GUEST, max_bandwidth="40MB/s", policy="auto-converge", give_up="9s", **options),
    ]


@pytest.fixture(scope="module")
def folder(results, tmp_path_factory):
    path = tmp_path_factory.mktemp("report")
    for name, result in zip("ab", results, strict=True):
        result.save(path / f"{name}.parquet")
    replay.report(results[0], path / "one.html", trace=GUEST)
    replay.report([path / "a.parquet", path / "b.parquet"], path / "two.html")
    return path


class Reader(HTMLParser):
    """Counts what a report holds, and collects what it refers to."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_chart_is_drawn(results, kind, tmp_path):
    things = [GUEST] if kind == "heatmap" else results
    figure = replay.plot(kind, *things)
    figure.savefig(tmp_path / "chart.svg")
    text = (tmp_path / "chart.svg").read_text()
    assert text.count("<path") > 10


def test_a_timeline_is_what_the_record_says(results):
    rows = timeline(results[1])
    assert [row["pending"] for row in rows] == [row["pending_after_pages"] for row in results[1].rows]
    assert max(row["throttle"] for row in rows) > 0
    assert rows[-1]["stall"] == pytest.approx(results[1].total("modelled_stall_ns") / 1e6, abs=1e-5)
    assert [row["bandwidth"] < 45 for row in rows[:-1]] == [True] * (len(rows) - 1)


def test_a_waterfall_ends_at_the_sum(results):
    found = replay.explain(*results)
    bars = steps(found, "total")
    assert bars[-1]["to"] == found.totals["total"]["difference"]
    assert all(a["to"] == b["from"] for a, b in itertools.pairwise(bars[:-1]))


def test_a_report_is_one_whole_file(folder):
    for name in ("one.html", "two.html"):
        text = (folder / name).read_text()
        held = Reader(text)
        assert not held.open
        assert held.links == ["data:,"]
        assert not re.search(r"https?://(?!www\.w3\.org)", text)
        assert len(text) < 3_000_000
        assert held.tags.count("figure") == held.tags.count("details") >= 7
        for spec in re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL):
            assert json.loads(spec)["type"] in ("xy", "bars", "heat")
        for title in ("Summary", "Rounds over time", "Writes by address and time", "What it went into", "Provenance"):
            assert f"<h2>{title}</h2>" in text
    assert "<h2>Side by side</h2>" in (folder / "two.html").read_text()
    assert "default-src 'none'" in text


def test_text_in_a_report_stays_text():
    chart = page.Chart(
        title="</script><b>", note="", spec={"type": "bars", "x": "</script>", "bars": []}, rows=[{"a": "<i>"}]
    )
    text = page.page("<title>", [page.Section(title="&", charts=(chart,))])
    assert "<b>" not in text.replace("<b>", "", 0).split("<body>")[1].split("<script>\n")[0]
    assert Reader(text).tags.count("script") == 2
    many = page.Chart(
        title="t", note="", spec={"type": "bars", "x": "", "bars": []}, rows=[{"n": n} for n in range(5000)]
    )
    assert "4,600 more rows" in page.page("t", [page.Section(title="s", charts=(many,))])


def test_a_sweep_is_ranked_in_ms_and_has_its_front(tmp_path):
    plan = {"sweep": {"traces": [GUEST], "starts": 2}, "axes": {"max-bandwidth": ["200MB/s", "400MB/s"]}}
    replay.sweep(plan | {"base": {"downtime-limit": "5ms", "zero-share": "30%"}}, tmp_path / "swept")
    replay.report(tmp_path / "swept", tmp_path / "sweep.html")
    text = (tmp_path / "sweep.html").read_text()
    runs = replay.load_sweep(tmp_path / "swept").runs.collect()
    ranking = text.split("<h2>Ranking</h2>")[1].split("</section>")[0]
    best = min(runs["modelled_total_ns"]) / 1e6
    assert '<th scope="col">best, ms</th>' in ranking
    assert "<td>200</td>" in ranking
    assert f"<td>{round(best, 1):.6g}</td>" in ranking
    front = text.split("<h2>Pareto front</h2>")[1].split("</section>")[0]
    fastest = runs.sort("total_ms", "downtime_ms", "sent_bytes").row(0, named=True)
    assert f"<tr><td>{fastest['run']}</td>" in front
    assert 'class="table long"' in text


def test_perfetto_has_every_round_on_its_tracks(folder, results, capsys):
    assert main(["export", "perfetto", str(folder / "b.parquet"), "-o", str(folder / "b.json")]) == 0
    told = json.loads((folder / "b.json").read_text())
    assert told == json.loads(json.dumps(trace_events(results[1])))
    events = told["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    assert all(event["dur"] > 0 and event["ts"] >= 0 for event in spans)
    tracks = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    named = {track: [e for e in spans if tracks[e["pid"], e["tid"]] == track] for track in tracks.values()}
    assert [e["name"] for e in named["rounds"]] == [f"round {row['round']}" for row in results[1].rows]
    assert all(named[track] for track in named)
    for own in named.values():
        ordered = sorted(own, key=lambda e: e["ts"])
        assert all(a["ts"] + a["dur"] <= b["ts"] + 1e-3 for a, b in itertools.pairwise(ordered))
    counters = {event["name"] for event in events if event["ph"] == "C"}
    assert counters == {"pending pages", "dirty pages/s", "bandwidth MB/s", "throttle %"}


def test_the_commands(folder, capsys, tmp_path):
    a, b = str(folder / "a.parquet"), str(folder / "b.parquet")
    assert main(["plot", "timeline", a, b, "-o", str(tmp_path / "t.png")]) == 0
    assert (tmp_path / "t.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["report", a, b, "-o", str(tmp_path / "r.html")]) == 0
    assert (tmp_path / "r.html").stat().st_size > 20_000
    (tmp_path / "empty").mkdir()
    for arguments, code, word in (
        (["plot", "time", a, "-o", "x.png"], 2, "Did you mean 'timeline'"),
        (["plot", "rounds", a, "-o", "x.gif"], 2, "must end in"),
        (["plot", "rounds", "no.parquet", "-o", "x.png"], 4, "no.parquet"),
        (["plot", "waterfall", a, a, a, "-o", "x.png"], 2, "difference of two"),
        (["report", a, "-o", "x.pdf"], 2, ".html"),
        (["report", a, "-o", "nowhere/x.html"], 2, "no such folder"),
        (["report", *[a] * 7, "-o", "x.html"], 2, "1 to 6"),
        (["report", str(tmp_path / "empty"), "-o", "x.html"], 4, "empty"),
        (["report", a, str(tmp_path), "-o", "x.html"], 2, "one folder"),
        (["export", "perfeto", a, "-o", "x.json"], 2, "Did you mean 'perfetto'"),
        (["export", "perfetto", a, "-o", "x.txt"], 2, ".json"),
    ):
        assert main(arguments) == code, arguments
        assert word in capsys.readouterr().err
    with pytest.raises(UsageError, match="of a trace"):
        draw("heatmap", [])


def test_a_sweep_has_a_report(tmp_path):
    plan = {
        "sweep": {"traces": ["uniform:rate=3000,memory=64M,duration=1s"], "repeats": 2},
        "axes": {"design": ["bitmap", "double-ring"]},
        "base": {"link": "1Gbit/s", "log": "kvm-ring:1024"},
    }
    replay.sweep(plan, tmp_path / "swept", jobs=1)
    replay.report(tmp_path / "swept", tmp_path / "sweep.html")
    text = (tmp_path / "sweep.html").read_text()
    assert "<h2>Ranking</h2>" in text
    assert "Pareto front" in text
    assert not Reader(text).open


@pytest.mark.skipif(browser.PROGRAM is None, reason="no chromium here (Debian: apt-get install chromium)")
def test_a_browser_shows_it_without_asking_for_anything(folder):
    shown = browser.Browser()
    try:
        shown.open(folder / "one.html")
        charts = shown.value("document.querySelectorAll('figure').length")
        assert shown.value("document.querySelectorAll('figure .plot > svg').length") == charts >= 7
        spot = "(() => {const b = document.querySelectorAll('figure .plot > svg')[%d]; b.scrollIntoView({block: 'center'}); const r = b.getBoundingClientRect(); return [r.left, r.top, r.width, r.height];})()"
        left, top, width, height = shown.value(spot % 0)
        shown.mouse("mouseMoved", left + width / 2, top + height / 2)
        assert re.match(r"(round \d+|end)", shown.value("document.getElementById('tip').textContent"))
        assert shown.value("getComputedStyle(document.getElementById('tip')).display") == "block"
        ticks = (
            "[...document.querySelectorAll('figure .plot')[0].querySelectorAll('text')].map(t => t.textContent).join()"
        )
        before = shown.value(ticks)
        for kind, share in (("mousePressed", 0.3), ("mouseMoved", 0.45), ("mouseReleased", 0.6)):
            shown.mouse(kind, left + width * share, top + height / 2, button="left", buttons=1, clickCount=1)
        assert shown.value(ticks) != before
        shown.value("document.querySelectorAll('figure .plot > svg')[0].dispatchEvent(new MouseEvent('dblclick'))")
        assert shown.value(ticks) == before
        bars = shown.value("[...document.querySelectorAll('figure')].findIndex(f => f.dataset.chart === 'bars')")
        left, top, width, _ = shown.value(spot % bars)
        shown.mouse("mouseMoved", left + width / 2, top + 20)
        assert re.search(r"\d+(\.\d+)? (s|ms|us)", shown.value("document.getElementById('tip').textContent"))
        shown.size(390, 844)
        shown.open(folder / "two.html")
        assert shown.value("document.documentElement.scrollWidth") <= 390
        assert all(url.startswith(("file:", "data:")) for url in shown.requests)
        assert not shown.complaints
    finally:
        shown.close()
