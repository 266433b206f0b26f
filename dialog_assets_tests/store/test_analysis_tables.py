"""Tables classifications, criteria_scores and entity_summaries: what follows from a changed criterion, and only that."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from dialog_assets.portals import Portal
from dialog_assets.store import classifications, criteria_scores, entity_summaries, schema
from dialog_assets_tests.store.rows import (
    MONDAY,
    PORTAL,
    Pool,
    Row,
    all_rows,
    call,
    day,
    put_calls,
    put_step,
    step,
    with_pool,
)


def category(name: str, *criteria: str) -> Row:
    common: Row = {"category_version": "1", "confidence": 90, "reason": "r", "prompt_version": "1", "model": "m"}
    return {**common, "category": name, "criteria": list(criteria), "cost_rub": Decimal(0)}


async def classify(pool: Pool, call_id: int, *rows: Row) -> None:
    key = classifications.output_key({row["category"]: row["criteria"] for row in rows})
    async with pool.connection() as connection:
        await classifications.replace(connection, PORTAL, call_id, rows)
    await put_step(pool, call_id, "classifications", "done", input_key="dialog", output_key=f"dialog/{key}")


async def select(pool: Pool, criteria: dict[str, list[str]], last: int = 0) -> None:
    async with pool.connection() as connection:
        await classifications.select_criteria(connection, PORTAL, MONDAY, day(last), criteria)


async def selected(pool: Pool, call_id: int) -> set[str]:
    async with pool.connection() as connection:
        return await classifications.selected(connection, PORTAL, call_id)


async def keys(pool: Pool) -> list[str]:
    rows = await all_rows(pool, "SELECT output_key FROM call_steps WHERE step = 'classifications' ORDER BY call_id")
    return [row["output_key"] for row in rows]


def test_criteria_follow_the_configuration_and_only_what_changed(database: str) -> None:
    """A new wording reaches the calls whose categories select it; the others' keys, and their scores, stay."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, *(call(number) for number in (1, 2, 3)), call(4, day(1)))
        await classify(pool, 1, category("order", "a@1", "b@1"), category("price", "b@1"))
        await classify(pool, 2, category("price", "b@1"))
        await classify(pool, 3, category("gone", "c@1"))
        await classify(pool, 4, category("order", "a@1", "b@1"))
        before = await keys(pool)
        now = {"order": ["a@2", "b@1"], "price": ["b@1"], "new": ["d@1"]}
        await select(pool, now)
        after = await keys(pool)
        assert [new != old for new, old in zip(after, before, strict=True)] == [True, False, False, False]
        assert await selected(pool, 1) == {"a@2", "b@1"}
        assert await selected(pool, 3) == {"c@1"}, "a category that is configured no more keeps what it selected"
        expected = classifications.output_key({"order": ["a@2", "b@1"], "price": ["b@1"]})
        assert after[0] == f"dialog/{expected}", "the same key as classifying afresh would leave"
        rows = await all_rows(
            pool, "SELECT xmin::text FROM call_steps UNION ALL SELECT xmin::text FROM classifications"
        )
        await select(pool, now)
        assert rows == await all_rows(
            pool, "SELECT xmin::text FROM call_steps UNION ALL SELECT xmin::text FROM classifications"
        ), "a second time changes nothing"
        await select(pool, {**now, "order": ["a@1", "b@1"]})
        assert await keys(pool) == before, "going back to the old wording goes back to its key"

    with_pool(database, work)


def test_a_category_without_criteria(database: str) -> None:
    """A category may select nothing, and may begin and cease to."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, call(1))
        await classify(pool, 1, category("order", "a@1"))
        before = await keys(pool)
        await select(pool, {"order": []})
        assert await selected(pool, 1) == set()
        assert await keys(pool) != before
        await select(pool, {"order": []})
        await select(pool, {"order": ["a@1"]})
        assert await keys(pool) == before

    with_pool(database, work)


def test_a_step_that_is_not_done_keeps_its_state(database: str) -> None:
    """Following the configuration makes nothing done that is not."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, call(1))
        await classify(pool, 1, category("order", "a@1"))
        await put_step(pool, 1, "classifications", "failed", input_key="other")
        await select(pool, {"order": ["a@2"]})
        row = await step(pool, 1, "classifications")
        assert (row["state"], row["output_key"]) == ("failed", None)

    with_pool(database, work)


def test_replacing_forgets_the_former_categories(database: str) -> None:
    """A dialog that is classified again has the new categories alone."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, call(1))
        await classify(pool, 1, category("order", "a@1"), category("price"))
        await classify(pool, 1, category("complaint", "c@1"))
        rows = await all_rows(pool, "SELECT category FROM classifications")
        assert [row["category"] for row in rows] == ["complaint"]
        assert await selected(pool, 1) == {"c@1"}

    with_pool(database, work)


def score(criterion: str, version: str, value: int | None, text: str = "текст") -> Row:
    common: Row = {"quotes": [{"line": "L001"}], "prompt_version": "1", "model": "m", "cost_rub": Decimal(0)}
    return {
        **common,
        "criterion": criterion,
        "version": version,
        "applicable": value is not None,
        "score": value,
        "text": text,
    }


async def put_scores(pool: Pool, call_id: int, *rows: Row, dialog: str = "dialog") -> None:
    async with pool.connection() as connection:
        await criteria_scores.put(connection, PORTAL, call_id, dialog, rows)


async def scored(pool: Pool, call_id: int, dialog: str = "dialog") -> set[tuple[str, str]]:
    async with pool.connection() as connection:
        return await criteria_scores.scored(connection, PORTAL, call_id, dialog)


def test_scores_of_every_version_are_known(database: str) -> None:
    """A score, or a not-applicable, of a version counts as scored; another score of it takes its place."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, call(1), call(2))
        await put_scores(pool, 1, score("a", "1", 5), score("a", "2", None))
        await put_scores(pool, 1, score("a", "1", 7))
        await put_scores(pool, 2, score("b", "1", 5))
        assert await scored(pool, 1) == {("a", "1"), ("a", "2")}
        assert await scored(pool, 2) == {("b", "1")}
        rows = await all_rows(pool, "SELECT version, score FROM criteria_scores WHERE call_id = 1 ORDER BY 1")
        assert [tuple(row.values()) for row in rows] == [("1", 7), ("2", None)]

    with_pool(database, work)


def test_scores_belong_to_the_text_of_a_dialog(database: str) -> None:
    """A score of an earlier text does not count for the present one, and goes when the present one is scored."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, call(1), call(2))
        await put_scores(pool, 1, score("a", "1", 5), score("b", "1", 6), dialog="old")
        await put_scores(pool, 2, score("a", "1", 5), dialog="old")
        assert await scored(pool, 1, "new") == set()
        assert await scored(pool, 1, "old") == {("a", "1"), ("b", "1")}, "until then nothing is lost"
        await put_scores(pool, 1, score("a", "1", 8), dialog="new")
        assert await scored(pool, 1, "old") == set()
        assert await scored(pool, 1, "new") == {("a", "1")}
        assert await scored(pool, 2, "old") == {("a", "1")}, "another call's scores stay"
        await put_scores(pool, 1, dialog="third")
        assert await all_rows(pool, "SELECT FROM criteria_scores WHERE call_id = 1") == []

    with_pool(database, work)


async def inputs(pool: Pool, criteria: dict[str, str]) -> list[tuple[Any, ...]]:
    async with pool.connection() as connection:
        rows = await entity_summaries.inputs(connection, PORTAL, "contact", 5, criteria)
    return [(row["call_id"], row["criterion"], row["score"]) for row in rows]


def test_a_summary_is_made_of_the_scores_that_count_now(database: str, portals: list[Portal]) -> None:
    """Over all calls of the entity, oldest first: by the present wording, else the newest; not where it does not apply."""
    portal = portals[1]
    need, agreements = (next(c for c in portal.criteria if c.name == name) for name in ("client_need", "agreements"))
    changed = need.model_copy(update={"text": "Иначе?"})
    schema.setup_portals(database, [portal.model_copy(update={"criteria": (changed, *portal.criteria[1:])})])
    old, new, other = need.version, changed.version, agreements.version

    async def work(pool: Pool) -> None:
        await put_calls(pool, call(3), call(1), call(2, day(1)), call(4, entity_id=6))
        await put_scores(pool, 1, score("client_need", old, 3), score("client_need", new, 8))
        await put_scores(pool, 2, score("client_need", old, 4), score("agreements", other, 6))
        await put_scores(pool, 3, score("client_need", old, 5), score("client_need", new, None))
        await put_scores(pool, 4, score("client_need", old, 9))
        labels = [f"client_need@{old}", f"client_need@{new}", f"agreements@{other}"]
        for number in (1, 2, 3, 4):
            await classify(pool, number, category("order", *labels))
        both = [(1, "client_need", 8), (2, "agreements", 6), (2, "client_need", 4)]
        assert await inputs(pool, {"client_need": new, "agreements": other}) == both
        assert await inputs(pool, {"client_need": "third"}) == [both[0], both[2]]
        reverted = [(1, "client_need", 3), (3, "client_need", 5), (2, "client_need", 4)]
        assert await inputs(pool, {"client_need": old}) == reverted, "going back to a wording goes back to its scores"
        assert await inputs(pool, {"agreements": other}) == [both[1]]
        assert await inputs(pool, {}) == []
        await classify(pool, 2, category("order", f"client_need@{old}"))
        await classify(pool, 1, category("price"))
        assert await inputs(pool, {"client_need": new, "agreements": other}) == [both[2]], "what is selected now"

    with_pool(database, work)


def test_the_newest_summary_is_found(database: str) -> None:
    """Versions are kept, the last one counts."""

    async def work(pool: Pool) -> None:
        row: Row = {
            "text": "t",
            "average_scores": {},
            "calls": [1],
            "prompt_version": "1",
            "model": "m",
            "cost_rub": Decimal(0),
        }
        async with pool.connection() as connection:
            assert await entity_summaries.latest(connection, PORTAL, "contact", 5) is None
            for version in (1, 2, 10):
                added = {**row, "version": version, "inputs_hash": f"h{version}"}
                await entity_summaries.add(connection, PORTAL, "contact", 5, added)
            assert await entity_summaries.latest(connection, PORTAL, "contact", 5) == {
                "version": 10,
                "inputs_hash": "h10",
            }

    with_pool(database, work)


def test_entities_with_scored_calls_page_by_page(database: str) -> None:
    """Each entity of the days once, with the calls of these days that were scored, whatever the page's size."""

    async def work(pool: Pool) -> None:
        rows = [call(n, day(n % 2), entity_type=("lead", "contact")[n % 2], entity_id=n % 5 + 1) for n in range(1, 21)]
        await put_calls(pool, *rows, call(21, entity_type=None, entity_id=None), call(22, day(3)))
        for number in range(1, 23):
            await put_step(pool, number, "criteria_scores", "failed" if number == 7 else "done", output_key="k")
        expected: dict[tuple[str, int], list[int]] = {}
        for row in sorted(rows, key=lambda row: (row["entity_type"], row["entity_id"], row["started_at"])):
            if row["call_id"] != 7:
                expected.setdefault((row["entity_type"], row["entity_id"]), []).append(row["call_id"])
        for page in (1, 3, 200):
            found = entity_summaries.entities_with_scores(pool, PORTAL, MONDAY, day(1), page=page)
            assert [((row["entity_type"], row["entity_id"]), row["calls"]) async for row in found] == list(
                expected.items()
            )
        async with pool.connection() as connection:
            await entity_summaries.skip_without_entity(connection, PORTAL, MONDAY, day(1))
        row = await step(pool, 21, "entity_summaries")
        assert (row["state"], row["reason"]) == ("skipped", "no_entity")
        assert len(await all_rows(pool, "SELECT FROM call_steps WHERE step = 'entity_summaries'")) == 1

    with_pool(database, work)
