"""Tables of the stand-in portal: what the indexes find is what going through all rows would find."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dialog_assets.sandbox.bitrix24_filter import STATISTIC_OPERATORS, Kind, RowTest, read_filter, sort_key
from dialog_assets.sandbox.bitrix24_rows import DictRows, rows_of
from dialog_assets.sandbox.bitrix24_table import Sort, Table
from dialog_assets.sandbox.world.model import Call

from .bitrix24_portal import MIDNIGHT, ZONE, make_calls, statistic_row

KINDS: dict[str, Kind] = {
    "ID": "number",
    "CALL_START_DATE": "date",
    "CALL_DURATION": "number",
    "CALL_FAILED_CODE": "text",
    "CONTACT_ID": "number",
}
IDS = st.integers(-2, 40)
MINUTES = st.integers(-15, 300)


def at(minutes: int) -> str:
    return (MIDNIGHT + timedelta(minutes=minutes)).isoformat()


FILTERS = st.fixed_dictionaries(
    {},
    optional={
        **{f"{operator}ID": IDS for operator in ("", "=", ">", ">=", "<", "<=", "!")},
        "><ID": st.tuples(IDS, IDS).map(list),
        "=ID": st.lists(IDS, max_size=6),
        **{f"{operator}CALL_START_DATE": MINUTES.map(at) for operator in ("", ">", ">=", "<", "<=", "!")},
        "><CALL_START_DATE": st.tuples(MINUTES, MINUTES).map(lambda pair: [at(one) for one in pair]),
        "CALL_FAILED_CODE": st.sampled_from(["200", "304", ["200", "304"]]),
        ">CALL_DURATION": st.integers(0, 200),
        "CONTACT_ID": st.sampled_from([3, [1, 2], "", 0]),
    },
)
SORTS: st.SearchStrategy[list[tuple[str, bool]] | None] = st.one_of(
    st.none(),
    st.just([]),
    st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.booleans()), min_size=1, max_size=2),
)
CHANGES = st.lists(
    st.tuples(st.sampled_from(["put", "remove"]), st.integers(1, 45), st.integers(0, 60).map(lambda n: n * 5)),
    max_size=6,
)


def _key(rows: dict[int, dict[str, Any]], sort: Sort, number: int) -> tuple[Any, ...]:
    return sort_key(rows[number], sort.field, sort.kind, sort.zone)


def row(number: int, minutes: int) -> dict[str, Any]:
    return statistic_row(
        number, MIDNIGHT + timedelta(minutes=minutes), CONTACT_ID=str(number % 5) if number % 7 else None
    )


@settings(max_examples=300)
@given(
    filter_=FILTERS,
    sorts=SORTS,
    changes=CHANGES,
    minutes=st.permutations(range(30)),
    until=st.one_of(st.none(), MINUTES),
)
def test_found_is_what_a_scan_finds(
    filter_: dict[str, Any],
    sorts: list[tuple[str, bool]] | None,
    changes: list[tuple[str, int, int]],
    minutes: list[int],
    until: int | None,
) -> None:
    """Any filter and order, over rows of any start, before and after any changes, pages and totals included."""
    rows = {number: row(number, minutes[number - 1] * 10) for number in range(1, 31)}
    calls = [Call(number, datetime.fromisoformat(one["CALL_START_DATE"]), one) for number, one in rows.items()]
    table = Table(rows_of(calls), moment="CALL_START_DATE", links=("CONTACT_ID",), seed=3)
    tests: list[RowTest] = list(read_filter(filter_, STATISTIC_OPERATORS, KINDS.get, ZONE))
    order = None if sorts is None else [Sort(field, KINDS[field], ZONE, down) for field, down in sorts]
    now = None if until is None else MIDNIGHT + timedelta(minutes=until)
    table.find(tests, order, 0, until=now)
    for kind, number, minute in changes:
        if kind == "put":
            rows[number] = row(number, minute)
            table.put(number, rows[number])
        elif number in rows:
            del rows[number]
            table.remove(number)
    expected = [
        number
        for number, one in sorted(rows.items())
        if all(test.holds(one) for test in tests)
        and (now is None or datetime.fromisoformat(one["CALL_START_DATE"]) <= now)
    ]
    found = table.find(tests, order, 0, until=now)
    assert found.total == len(expected)
    keyset = table.find(tests, order, -1, until=now)
    assert list(keyset.ids) == list(found.ids)
    if order is None:
        assert sorted(found.ids) == expected
        return
    keys = [tuple(_key(rows, sort, number) for sort in order) for number in found.ids]
    best = list(expected)
    for sort in reversed(order):
        best.sort(key=partial(_key, rows, sort), reverse=sort.descending)
    assert keys == [tuple(_key(rows, sort, number) for sort in order) for number in best]
    assert sorted(found.ids) == expected
    for number in expected:
        assert table.row(number) == rows[number]


def test_offset_pages() -> None:
    """Offsets count all rows, also in an order that an index gives backwards."""
    table = Table(rows_of(make_calls(120)), moment="CALL_START_DATE")
    down = [Sort("ID", "number", ZONE, True)]
    page = table.find([], down, 50)
    assert (list(page.ids), page.total, page.next, page.skipped) == (list(range(70, 20, -1)), 120, 100, 50)
    last = table.find([], [Sort("CALL_START_DATE", "date", UTC, False)], 100)
    assert (list(last.ids), last.next) == (list(range(101, 121)), None)


def test_links_follow_changes() -> None:
    """Rows are found by a link field after they came, moved and went."""
    table = Table(
        DictRows({1: {"ID": "1", "CONTACT_ID": "5"}, 2: {"ID": "2", "CONTACT_ID": "6"}}), links=("CONTACT_ID",)
    )
    table.put(3, {"ID": "3", "CONTACT_ID": 5})
    table.put(2, {"ID": "2", "CONTACT_ID": "5"})
    table.remove(1)
    assert table.linked("CONTACT_ID", 5) == [2, 3]
    assert table.linked("CONTACT_ID", 6) == []
    assert "CONTACT_ID" in table.fields
