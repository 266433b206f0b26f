"""A step's figures: counts that add up, and tables that people read."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import dagster as dg
from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.assets import figures
from dialog_assets.assets.figures import STATES, Figures
from dialog_assets.store import ledger
from dialog_assets_tests.store.rows import MONDAY, PORTAL, Pool, call, day, put_calls, put_step, with_pool

counted = st.lists(
    st.tuples(st.sampled_from(STATES), st.sampled_from(["a", "b", "not_run"]), st.integers(1, 50)), max_size=8
)


def build(rows: list[tuple[str, str, int]]) -> Figures:
    out = Figures()
    for state, reason, calls in rows:
        out.add(state, None if state == "done" else reason, calls)
    return out


def cells(table: str) -> list[list[str]]:
    """The cells of the first of the tables, without its rule."""
    lines = table.partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]


@given(counted)
def test_the_table_adds_up(rows: list[tuple[str, str, int]]) -> None:
    """The lines of the table are all calls, each counted once, in order of state, with the sum at the end."""
    found = build(rows)
    lines = cells(found.table())
    assert lines[0] == ["state", "reason", "calls"]
    body, last = lines[1:-1], lines[-1]
    assert last == ["**all**", "", f"**{found.calls}**"]
    assert sum(int(line[2]) for line in body) == found.calls == sum(calls for _, _, calls in rows)
    assert {line[0] for line in body} == {"done", *(state for state, _, _ in rows)}
    places = [STATES.index(line[0]) for line in body]
    assert places == sorted(places)


@given(st.lists(counted, max_size=4))
def test_a_range_is_the_sum_of_its_days(parts: list[list[tuple[str, str, int]]]) -> None:
    """The total of a run has the states, reasons and roubles of its days, and the days stay as they are."""
    days = [build(rows) for rows in parts]
    for number, one in enumerate(days):
        one.cost_rub = Decimal(number) / 3
    total = figures.total(days)
    whole = build([row for rows in parts for row in rows])
    assert (total.calls, total.states, total.reasons) == (whole.calls, whole.states, whole.reasons)
    assert total.cost_rub == sum((one.cost_rub for one in days), Decimal(0))
    assert [build(rows).calls for rows in parts] == [one.calls for one in days]
    assert total.is_accounted == all(one.is_accounted for one in days)


@given(counted)
def test_accounted_means_seen_by_the_step(rows: list[tuple[str, str, int]]) -> None:
    """A call that the step never saw leaves the day unaccounted, whatever the other calls are."""
    assert build(rows).is_accounted == (("waiting", "not_run") not in {(state, reason) for state, reason, _ in rows})


def test_an_empty_day() -> None:
    """A day without calls has figures too: zeroes, and a table that says so."""
    found = Figures()
    assert found.sentence() == "0 calls: nothing to do; 0.0000 RUB"
    assert found.is_accounted
    metadata = found.metadata()
    assert {name: metadata[name] for name in ("calls", *STATES)} == dict.fromkeys(("calls", *STATES), 0)
    assert cells(found.table())[1:] == [["done", "", "0"], ["**all**", "", "**0**"]]


def test_the_sentence_leaves_out_what_there_is_none_of() -> None:
    """One line for the log."""
    found = build([("done", "", 3), ("failed", "a", 1)])
    found.cost_rub = Decimal("1.23456")
    assert found.sentence() == "4 calls: 3 done, 1 failed; 1.2346 RUB"
    assert "| cost, RUB | 1.2346 |" in found.table()


def test_the_table_of_failures() -> None:
    """Each failed call with reason, detail and attempts; nothing failed says `none`."""
    row: dict[str, Any] = {"day": MONDAY, "call_id": 5, "reason": "bad", "detail": None, "attempts": 2}
    text = figures.failure_table([row, {**row, "call_id": 6, "detail": "why"}]).value
    assert isinstance(text, str)
    assert cells(text)[1:] == [["2026-03-02", "5", "bad", "", "2"], ["2026-03-02", "6", "bad", "why", "2"]]
    assert figures.failure_table([]) == dg.MetadataValue.md("none")


def test_figures_of_days_from_the_database(database: str) -> None:
    """Every day asked for has its figures, an empty one too; costs are booked on the call's day."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, call(1), call(2), call(3, day(2)))
        await put_step(pool, 1, "transcripts", "done", output_key="a")
        await put_step(pool, 3, "transcripts", "failed", reason="bad", next_try=datetime.now(UTC))
        async with pool.connection() as connection:
            intent = {"vendor": "v", "model": "m", "step": "transcripts", "day": MONDAY, "rub_rate": Decimal(1)}
            await ledger.ask(connection, PORTAL, "k", intent)
            await ledger.answered(connection, PORTAL, "k", cost=Decimal("0.18"), currency="RUB", vendor_request_id="x")
            found = await figures.read(connection, PORTAL, "transcripts", MONDAY, day(2))
        assert list(found) == [day(0), day(1), day(2)]
        assert (found[day(0)].calls, found[day(0)].states["done"], found[day(0)].cost_rub) == (2, 1, Decimal("0.18"))
        assert not found[day(0)].is_accounted
        assert (found[day(1)].calls, found[day(1)].is_accounted) == (0, True)
        assert found[day(2)].reasons == {("failed", "bad"): 1}

    with_pool(database, work)
