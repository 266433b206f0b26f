"""What is kept about entities and users that change: each change once, with its times, and what follows from them."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dialog_assets.portals import Portal
from dialog_assets.store import entities, entity_changes, schema, users
from dialog_assets.store.pool import Connection
from dialog_assets_tests.store.bulk import NOON, PORTAL, entity, on, rows

CHANGES = "SELECT entity_type, entity_id, field, before, after FROM entity_changes ORDER BY id"


def test_what_changed_is_kept_once(database: str) -> None:
    """Stage, category, amount, responsible and title are kept with both values; an equal row and first sight write nothing."""

    async def work(connection: Connection) -> None:
        first = entity("deal", 1, amount=Decimal("100.00"))
        await entities.write(connection, PORTAL, [first, entity("contact", 1)])
        stamps = "SELECT xmin::text, ctid::text FROM entities ORDER BY entity_type"
        before = await rows(connection, stamps)
        await entities.write(connection, PORTAL, [first, entity("contact", 1)])
        assert await rows(connection, stamps) == before
        assert await rows(connection, CHANGES) == []

        moved = entity(
            "deal", 1, amount=Decimal("100"), stage="C5:WON", category="5", responsible_id=11, title="Балкон", phones=["2"]
        )  # fmt: skip
        await entities.write(connection, PORTAL, [moved, entity("contact", 1, phones=["3"])])
        await entities.write(connection, PORTAL, [{**moved, "amount": Decimal("250.50")}])
        assert sorted(await rows(connection, CHANGES)) == [
            ("deal", 1, "amount", "100", "250.50"),
            ("deal", 1, "category", "0", "5"),
            ("deal", 1, "responsible_id", "10", "11"),
            ("deal", 1, "stage", "NEW", "C5:WON"),
            ("deal", 1, "title", "Окна на дачу", "Балкон"),
        ]

    on(database, work)


def test_the_crms_own_time_is_kept_beside_ours(database: str) -> None:
    """A stage's change has MOVED_TIME, other changes DATE_MODIFY; without them only the time when we saw it."""

    async def work(connection: Connection) -> None:
        await entities.write(connection, PORTAL, [entity("deal", 1), entity("lead", 2)])
        hour = timedelta(hours=1)
        told = entity("deal", 1, stage="WON", title="Б", modified_at=NOON, moved_at=NOON - hour)
        untold = entity("lead", 2, stage="JUNK", modified_at=None)
        await entities.write(connection, PORTAL, [told, untold])
        found = await rows(
            connection,
            "SELECT field, modified_at, changed_at > now() - '1 hour'::interval FROM entity_changes ORDER BY 1, 2",
        )
        assert found == [("stage", NOON - hour, True), ("stage", None, True), ("title", NOON, True)]

    on(database, work)


def test_missing_and_returned(database: str) -> None:
    """An entity that the CRM stops to show keeps what was known, and both its going and its return are kept."""

    async def work(connection: Connection) -> None:
        await entities.write(connection, PORTAL, [entity("contact", 1)])
        for _ in range(2):
            await entities.mark_missing(connection, PORTAL, "contact", [1, 2])
        assert await rows(connection, "SELECT entity_id, found, title FROM entities ORDER BY 1") == [
            (1, False, "Окна на дачу"),
            (2, False, None),
        ]
        await entities.write(connection, PORTAL, [entity("contact", 1), entity("contact", 2)])
        assert await rows(connection, CHANGES) == [
            ("contact", 1, "found", "true", "false"),
            ("contact", 1, "found", "false", "true"),
            ("contact", 2, "found", "false", "true"),
        ]

    on(database, work)


def test_links_to_deals(database: str) -> None:
    """Deals that come and go are kept for their entity; those of an entity seen for the first time came with it."""

    async def deals(connection: Connection, *found: int, entities_too: bool = False) -> None:
        async with connection.transaction():
            if entities_too:
                await entities.write(connection, PORTAL, [entity("contact", 1)])
            await entities.set_deals(connection, PORTAL, "contact", {1: found, 7: []})

    async def work(connection: Connection) -> None:
        await deals(connection, 3, 4, entities_too=True)
        assert await rows(connection, CHANGES) == []
        await deals(connection, 4, 5)
        await deals(connection, 4, 5)
        assert sorted(await rows(connection, CHANGES), key=str) == [
            ("contact", 1, "deal", "3", None),
            ("contact", 1, "deal", None, "5"),
        ]
        assert await rows(connection, "SELECT deal_id FROM entity_deals ORDER BY 1") == [(4,), (5,)]

    on(database, work)


def test_dismissed_users(database: str) -> None:
    """A dismissal, a new position or department, and going out of sight are kept; mere logins are not."""

    def user(**fields: Any) -> dict[str, Any]:
        row = {
            "user_id": 7,
            "name": "Анна Ким",
            "email": None,
            "phone": None,
            "departments": [1, 2],
            "position": "менеджер",
            "active": True,
            **fields,
        }
        return {**row, "raw": {"ID": "7", **{name: str(value) for name, value in fields.items()}}}

    async def work(connection: Connection) -> None:
        await users.write(connection, PORTAL, [user()])
        await users.write(connection, PORTAL, [user(email="a@b.example")])
        assert await rows(connection, CHANGES) == []
        await users.write(connection, PORTAL, [user(active=False, departments=[3])])
        for _ in range(2):
            await users.mark_missing(connection, PORTAL, [7, 8])
        assert sorted(await rows(connection, CHANGES)) == [
            ("user", 7, "active", "true", "false"),
            ("user", 7, "departments", "{1,2}", "{3}"),
            ("user", 7, "found", "true", "false"),
        ]
        assert await rows(connection, "SELECT active, found FROM users WHERE user_id = 7") == [(False, False)]

    on(database, work)


def test_open_deals(database: str) -> None:
    """The deals to read again are those that were open and there, in either family's words."""

    async def work(connection: Connection) -> None:
        some = [entity("deal", number) for number in range(1, 6)]
        some[1]["raw"] = {"CLOSED": "Y"}
        some[2]["raw"] = {"closed": "Y"}
        await entities.write(connection, PORTAL, [*some, entity("contact", 9)])
        await entities.mark_missing(connection, PORTAL, "deal", [5])
        assert await entities.open_deals(connection, PORTAL) == [1, 4]

    on(database, work)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(1, 50), st.sampled_from(["NEW", "PREP", "WON", "LOSE"]), st.booleans()), max_size=8)
)
def test_the_stage_at_any_moment(database: str, steps: list[tuple[int, str, bool]]) -> None:
    """A deal's stage at every hour is the one that its moves imply; the function and the view agree."""
    created = NOON - timedelta(days=200)
    moves: list[tuple[datetime, str]] = [(created, "NEW")]
    seen: list[dict[str, Any]] = [entity("deal", 1, created_at=created, modified_at=created)]
    for hours, stage, told in steps:
        at = moves[-1][0] + timedelta(hours=hours)
        moved_at = at if told and stage != moves[-1][1] else None
        seen.append(entity("deal", 1, stage=stage, created_at=created, modified_at=at, moved_at=moved_at))
        moves.append((at, stage))

    async def work(connection: Connection) -> None:
        await connection.execute("TRUNCATE entities, entity_changes")
        for row in seen:
            await entities.write(connection, PORTAL, [row])
        for at, _ in moves:
            for moment in (at - timedelta(minutes=1), at, at + timedelta(minutes=30)):
                expected = [stage for since, stage in moves if since <= moment][-1:]
                known = await entity_changes.deal_stage_at(connection, PORTAL, 1, moment)
                assert [known.value] == expected if known else not expected
                view = await rows(
                    connection,
                    "SELECT stage FROM okna_sever_stages WHERE since <= %s AND coalesce(until, 'infinity') > %s",
                    moment,
                    moment,
                )
                assert [stage for (stage,) in view] == expected
        now = await entity_changes.deal_stage_at(connection, PORTAL, 1, datetime.now(NOON.tzinfo))
        assert now is not None and now.seen and now.value == moves[-1][1]
        assert await entity_changes.deal_stage_at(connection, PORTAL, 2, NOON) is None

    on(database, work)


def test_changes_go_with_their_row(database: str) -> None:
    """A change that was rolled back with its row is not kept."""

    async def work(connection: Connection) -> None:
        await entities.write(connection, PORTAL, [entity("deal", 1)])
        async with connection.transaction(force_rollback=True):
            await entities.write(connection, PORTAL, [entity("deal", 1, stage="WON")])
            assert len(await entity_changes.of_entity(connection, PORTAL, "deal", 1)) == 1
        assert await entity_changes.of_entity(connection, PORTAL, "deal", 1) == []

    on(database, work)


def test_portals_from_before_get_the_table(database: str, portals: list[Portal]) -> None:
    """Setup gives portals that were set up before this table its partition, and keeps what is in the others."""
    with psycopg.connect(database) as connection:
        connection.execute("DROP TABLE okna_sever_entity_changes")
    schema.setup_portals(database, portals)
    with psycopg.connect(database) as connection:
        found = connection.execute("SELECT to_regclass('okna_sever_entity_changes') IS NOT NULL").fetchone()
    assert found == (True,)


def test_only_one_head() -> None:
    """The migrations are one chain."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    assert len(ScriptDirectory.from_config(config).get_heads()) == 1
