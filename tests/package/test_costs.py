"""Cost tables: complete, exact, and refused with a reason when they are not."""

from __future__ import annotations

import pytest

from replay.errors import UsageError
from replay.migration import costs
from replay.work import COUNTERS, INDEX


@pytest.mark.parametrize("name", costs.names())
def test_shipped_tables_price_every_counter(name):
    table = costs.load(name)
    assert set(table.prices_ps) == {counter.name for counter in COUNTERS}
    assert table.description


def test_the_wire_bounds_a_page_from_below():
    table = costs.load("generic-x86")
    slow = table.price_vector(10_000_000)
    assert slow[INDEX["normal_pages"]] == 4104 * 10**12 // 10_000_000
    assert slow[INDEX["zero_pages"]] == 9 * 10**12 // 10_000_000
    assert (table.price_vector(10**15) == table.price_vector(0)).all()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("find_calls     = { ns = 8.3,", "find_cals     = { ns = 8.3,"), "find_cals.*Did you mean 'find_calls'"),
        (("find_calls     = { ns = 8.3,", "find_calls     = { us = 8.3,"), "needs find_calls"),
        (("ns = 8.3,", "ns = 8.3333,"), "more than 3 decimals"),
        (("ns = 8.3,", "ns = -8.3,"), "negative"),
        (("[fixed]", "[fixed"), "not a cost table"),
        (("ns = 8.3,", 'ns = "8",'), "needs find_calls"),
    ],
)
def test_a_broken_table_says_what_is_wrong(tmp_path, change, told):
    text = (costs._FOLDER / "generic-x86.toml").read_text()
    assert change[0] in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(*change))
    with pytest.raises(UsageError, match=told):
        costs.load(str(path))


def test_unknown_tables():
    with pytest.raises(UsageError, match="no cost table 'generic-x68'.*Did you mean 'generic-x86'"):
        costs.load("generic-x68")
    with pytest.raises(UsageError, match="no such cost table file"):
        costs.load("nowhere/mine.toml")


def test_entries_may_be_spelled_behind_a_tables_name():
    plain, changed = costs.load("generic-x86"), costs.load("generic-x86:refind_calls=0.1,device_state=5,bytes-setup=7")
    assert changed.prices_ps == plain.prices_ps | {"refind_calls": 100}
    assert changed.fixed_ps == plain.fixed_ps | {"device_state": 5000}
    assert changed.fixed_bytes == plain.fixed_bytes | {"setup": 7}
    assert changed.name == f"{plain.name}:refind_calls=0.1,device_state=5,bytes-setup=7"
    for spelled, message in (
        ("generic-x86:refind=1", "Did you mean 'refind_calls'"),
        ("generic-x86:refind_calls=fast", "is not ENTRY=NUMBER, in ns"),
        ("generic-x86:refind_calls=-1", "negative"),
        ("generic-x87:refind_calls=1", "no cost table 'generic-x87'"),
    ):
        with pytest.raises(UsageError, match=message):
            costs.load(spelled)
