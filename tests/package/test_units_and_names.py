"""What people type: sizes, rates, times, plug-in names and parameters; and what they are told when it is wrong."""

from __future__ import annotations

import dataclasses

import pytest

from replay import plugins, units
from replay.config import RunConfig, make
from replay.errors import UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("96G", 96 << 30),
        ("1 GiB", 1 << 30),
        ("512MiB", 512 << 20),
        ("4096", 4096),
        ("1.5k", 1536),
        ("2MB", 2_000_000),
        ("12T", 12 << 40),
    ],
)
def test_sizes(text, value):
    assert units.parse_bytes(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("1250MiB/s", 1250 << 20), ("50MB/s", 50_000_000), ("10Gbit/s", 1_250_000_000), ("25Gbps", 3_125_000_000),
     ("60000000", 60_000_000), (0, 0), ("1GiB/s", 1 << 30), ("100Mbit/s", 12_500_000)],
)  # fmt: skip
def test_bandwidths(text, value):
    assert units.parse_bandwidth(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("300ms", 300_000_000), ("1.5s", 1_500_000_000), ("50us", 50_000), ("2min", 120 * 10**9), ("7ns", 7)],
)
def test_durations(text, value):
    assert units.parse_duration_ns(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [(units.parse_bytes, "96 apples"), (units.parse_bytes, "-1G"), (units.parse_bytes, ""), (units.parse_bytes, "0.3"),
     (units.parse_bandwidth, "fast"), (units.parse_bandwidth, "10 parsec/s"), (units.parse_duration_ns, "300"),
     (units.parse_duration_ns, "3 fortnights"), (units.parse_share, "2"), (units.parse_share, "x"), (units.parse_bytes, "1e999G")],
)  # fmt: skip
def test_nonsense_is_refused_with_an_example(parse, text):
    with pytest.raises(UsageError):
        parse(text)


def test_figures_for_people():
    assert units.format_bytes(96 << 30) == "96 GiB"
    assert units.format_duration(5_186_000_000) == "5.19 s"
    assert units.format_duration(0) == "0 ns"


@pytest.mark.parametrize("kind", ["log", "design", "workload", "importer", "capture"])
def test_every_plugin_is_described_without_being_imported(kind):
    for name in plugins.names(kind):
        told = plugins.describe(kind, name)
        loaded = plugins.parse(kind, name)
        assert told.summary
        assert len(told.summary) < 100
        assert [(p.name, p.default) for p in told.parameters] == [
            (field.name.replace("_", "-"), field.default) for field in dataclasses.fields(loaded.config)
        ]
        assert "Cost:" in (loaded.module.__doc__ or "")
        assert "Models:" in (loaded.module.__doc__ or "")


@pytest.mark.parametrize(
    ("kind", "text", "label"),
    [
        ("log", "kvm-ring", "kvm-ring:4096"),
        ("log", "kvm-ring:1k", "kvm-ring:1024"),
        ("log", "kvm-ring:256,pml=off", "kvm-ring:256,pml=off"),
        ("log", "kvm-ring:reaper-period=10ms", "kvm-ring:4096,reaper-period=10000000ns"),
        ("design", "bitmap", "bitmap"),
        ("design", "bitmap:off", "bitmap:off"),
        ("design", "double-ring:64K,host-page-refind=on", "double-ring:65536,host-page-refind=on"),
    ],
)
def test_labels_say_what_was_parsed_and_parse_again(kind, text, label):
    plugin = plugins.parse(kind, text)
    assert plugin.label == label
    assert plugins.parse(kind, label).config == plugin.config


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        (
            "design",
            "double-rings",
            "no design 'double-rings'; there are: bitmap, direct-reap, double-ring, .*Did you mean 'double-ring'",
        ),
        ("log", "kvm", "no log 'kvm'; there are: kvm-bitmap, kvm-ring, tcg"),
        (
            "log",
            "kvm-ring:entry=5",
            "entry.*there are: entries, pml, push-before-retire, reaper-period.*Did you mean 'entries'",
        ),
        ("log", "kvm-ring:1000", "must be a power of two, not 1000"),
        ("log", "kvm-ring:512", "too few with pml=on"),
        ("log", "kvm-ring:4096,push-before-retire=on", "needs pml=off"),
        ("log", "kvm-ring:1M", "at most 65536 entries"),
        ("log", "kvm-ring:4096,pml=maybe", "is on or off"),
        ("log", "kvm-ring:4096,4096", "not of the form key=value"),
        ("log", "kvm-ring:4096,entries=1024", "given twice"),
        ("log", "tcg:5", "not of the form key=value"),
        ("design", "nowhere/mine.py:5", "no such file"),
        ("design", "double-ring:0", "at least 1"),
    ],
)
def test_wrong_names_and_parameters_name_what_exists(kind, text, told):
    with pytest.raises(UsageError, match=told):
        plugins.parse(kind, text)


def test_a_configuration_takes_text_and_numbers_alike():
    told = RunConfig(memory="96G", max_bandwidth="1250MiB/s", downtime_limit="300ms", start="1s", zero_share="25%")
    assert (told.memory, told.max_bandwidth, told.downtime_limit, told.start) == (96 << 30, 1250 << 20, 300, 10**9)
    assert told.zero_share == 0.25
    assert RunConfig(memory=1 << 30, downtime_limit=300, link=0) == RunConfig(
        memory="1G", downtime_limit="300ms", link="0"
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"desing": "bitmap"}, "no option 'desing'.*Did you mean 'design'"),
        ({"fit": "stretched"}, "there are: embed, stretch, tile"),
        ({"downtime_limit": "300us"}, "whole milliseconds"),
        ({"downtime_limit": "3000s"}, "whole milliseconds"),
        ({"max_bandwidth": -1}, "cannot be -1"),
        ({"give_up": "0s"}, "longer than nothing"),
        ({"seed": "x"}, "not a whole number"),
        ({"check": "yes"}, "true or false"),
        ({"log": 5}, "is text"),
        ({"memory": "lots"}, "not a size"),
    ],
)
def test_a_senseless_configuration_is_refused(options, told):
    with pytest.raises(UsageError, match=told):
        make(options)
