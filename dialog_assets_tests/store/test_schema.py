"""The schema: migrations, partitions named for people, and the flat view; all of it safe to run again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from dialog_assets.dialogs import Turn
from dialog_assets.portals import Portal
from dialog_assets.store import (
    audio_files,
    classifications,
    criteria_scores,
    entities,
    entity_summaries,
    fixed_dialogs,
    ledger,
    schema,
    server,
    transcripts,
    users,
)
from dialog_assets_tests.store.rows import (
    MONDAY,
    PORTAL,
    Pool,
    Row,
    all_rows,
    call,
    one,
    put_calls,
    put_step,
    with_pool,
)


@pytest.fixture
def empty_database(postgres: str) -> Iterator[str]:
    """A database without any table."""
    name = f"empty_{os.getpid()}"
    admin = server.with_database(postgres, "postgres")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield server.with_database(postgres, name)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def columns_of(url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(
            """
            SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
            WHERE table_schema = 'public' ORDER BY 1, ordinal_position
            """
        ).fetchall()


def test_migrating_from_several_sides_at_once(empty_database: str) -> None:
    """Two threads and two processes that start together leave one schema, and no error."""
    code = f"from dialog_assets.store.schema import migrate; migrate({empty_database!r})"
    processes = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        for ended in [threads.submit(schema.migrate, empty_database) for _ in range(2)]:
            ended.result(timeout=300)
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    with psycopg.connect(empty_database) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
    before = columns_of(empty_database)
    schema.migrate(empty_database)
    assert columns_of(empty_database) == before


def test_setting_up_a_filled_database_again_changes_nothing(database: str, portals: list[Portal]) -> None:
    """`setup-portals` may run before every start: no row and no column is touched."""

    async def fill(pool: Pool) -> None:
        await put_calls(pool, call(1), call(2))

    with_pool(database, fill)
    query = """
        SELECT tableoid::regclass::text, xmin::text, ctid::text FROM calls
        UNION ALL SELECT tableoid::regclass::text, xmin::text, ctid::text FROM criteria
    """

    async def read(pool: Pool) -> list[dict[str, object]]:
        return await all_rows(pool, query)

    before, columns = with_pool(database, read), columns_of(database)
    assert schema.setup_portals(database, portals) == []
    assert (with_pool(database, read), columns_of(database)) == (before, columns)


def test_a_new_portal_gets_its_tables(database: str, portals: list[Portal]) -> None:
    """Adding a file adds that portal's partitions and view, and is reported; the others are left alone."""
    third = portals[0].model_copy(update={"portal": "third"})
    assert schema.setup_portals(database, [*portals, third]) == ["third"]
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM third_calls").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM third_dialogs").fetchone() == (0,)


def test_a_portal_is_added_while_runs_work(database: str, portals: list[Portal]) -> None:
    """A night that has read and written in an open transaction neither holds the new portal up nor is held up by it."""
    third = portals[0].model_copy(update={"portal": "third"})
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET lock_timeout = '3s'")
    with psycopg.connect(database) as night:
        for table in schema.PARTITIONED_TABLES:
            night.execute(sql.SQL("SELECT FROM {}").format(sql.Identifier(table)))
            night.execute(sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE").format(sql.Identifier(table)))
        assert schema.setup_portals(database, [*portals, third]) == ["third"]


def test_setting_up_a_portal_that_was_broken_off(database: str, portals: list[Portal]) -> None:
    """Tables that were made and not attached, or not made at all, are completed; nothing is made twice."""
    third = portals[0].model_copy(update={"portal": "third"})
    schema.setup_portals(database, [third])
    whole = partitions_of(database, "third")
    assert len(whole) == len(schema.PARTITIONED_TABLES)
    columns = columns_of(database)
    for table in schema.PARTITIONED_TABLES:
        of_table = [row[1:] for row in columns if row[0] == table]
        assert [row[1:] for row in columns if row[0] == f"third_{table}"] == of_table, "defaults and NOT NULL too"
    with psycopg.connect(database) as connection:
        connection.execute("DROP VIEW third_dialogs")
        connection.execute("ALTER TABLE calls DETACH PARTITION third_calls")
        connection.execute("DROP TABLE third_users, third_ledger")
    assert schema.setup_portals(database, [third]) == ["third"]
    assert partitions_of(database, "third") == whole
    assert schema.setup_portals(database, [third]) == []


def test_setting_up_a_portal_from_several_sides_at_once(database: str, portals: list[Portal]) -> None:
    """One of them makes the tables, the others wait for it, and none fails."""
    third = portals[0].model_copy(update={"portal": "third"})
    with ThreadPoolExecutor(3) as threads:
        found = [threads.submit(schema.setup_portals, database, [third]) for _ in range(3)]
        assert sorted(one.result(timeout=300) for one in found) == [[], [], ["third"]]


def partitions_of(url: str, portal: str) -> set[tuple[str, str, int, int]]:
    """The portal's partitions: name, table, how many indexes, and how many of these belong to an index of the table."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            """
            SELECT c.relname, p.relname, count(*), count(*) FILTER (WHERE x.relispartition)
            FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid JOIN pg_class p ON p.oid = inhparent
            JOIN pg_index i ON i.indrelid = c.oid JOIN pg_class x ON x.oid = i.indexrelid
            WHERE p.relkind = 'p' AND pg_get_expr(c.relpartbound, c.oid) = format('FOR VALUES IN (%%L)', %s::text)
            GROUP BY 1, 2
            """,
            [portal],
        ).fetchall()
    assert all(row[2] == row[3] > 0 for row in rows), "every index is the table's, and there is no other"
    return set(rows)


def test_every_table_begins_its_key_with_the_portal(database: str) -> None:
    """One portal's rows can be found, exported or dropped by its name, in every table there is."""
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            """
            SELECT t.relname, a.attname, t.relkind FROM pg_class t
            JOIN pg_index i ON i.indrelid = t.oid AND i.indisprimary
            JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = i.indkey[0]
            WHERE t.relnamespace = 'public'::regnamespace AND NOT t.relispartition AND t.relname <> 'alembic_version'
            """
        ).fetchall()
        tables = connection.execute(
            """
            SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
                AND NOT relispartition AND relname <> 'alembic_version'
            """
        ).fetchall()
    assert {name for name, _, _ in rows} == {name for (name,) in tables}
    shared = {name: column for name, column, _ in rows if column != "portal"}
    assert shared == {"recogniser_slots": "account"}, "what an account has is shared by its portals"
    assert {name for name, _, kind in rows if kind == "p"} == set(schema.PARTITIONED_TABLES)


def test_partitions_are_named_after_portal_and_table(database: str, portals: list[Portal]) -> None:
    """`okna_sever_calls` is the portal's part of `calls`, for every table and portal."""
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            """
            SELECT c.relname, p.relname, pg_get_expr(c.relpartbound, c.oid)
            FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid JOIN pg_class p ON p.oid = inhparent
            WHERE p.relkind = 'p'
            """
        ).fetchall()
    assert {row for row in rows if row[1] in schema.PARTITIONED_TABLES} == {
        (f"{portal.portal}_{table}", table, f"FOR VALUES IN ('{portal.portal}')")
        for portal in portals
        for table in schema.PARTITIONED_TABLES
    }


def test_rows_land_in_their_portals_partition(database: str) -> None:
    """A portal's own table holds its rows and nobody else's; the common table holds all; unknown portals are refused."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, call(1), call(2))
        await put_calls(pool, call(1), portal="avto_ural")
        assert (await one(pool, "SELECT count(*) AS n FROM okna_sever_calls"))["n"] == 2
        assert (await one(pool, "SELECT count(*) AS n FROM avto_ural_calls"))["n"] == 1
        assert (await one(pool, "SELECT count(*) AS n FROM calls"))["n"] == 3
        with pytest.raises(psycopg.errors.CheckViolation):
            await put_calls(pool, call(1), portal="stranger")

    with_pool(database, work)


def test_a_changed_criterion_is_recorded_as_a_new_version(database: str, portals: list[Portal]) -> None:
    """The old wording stays for the scores that it gave; the flag is changed in place."""
    portal = portals[1]
    changed = portal.criteria[0].model_copy(update={"text": "Иначе?"})
    flagged = portal.criteria[1].model_copy(update={"include_in_entity_description": True})
    category = portal.categories[0].model_copy(update={"criteria": ("greeting",)})
    edited = portal.model_copy(
        update={
            "criteria": (changed, flagged, *portal.criteria[2:]),
            "categories": (category, *portal.categories[1:]),
            "title": "Новое имя",
        }
    )
    for _ in range(2):
        schema.setup_portals(database, [edited])
    with psycopg.connect(database) as connection:
        texts = connection.execute(
            "SELECT version, text FROM criteria WHERE portal = %s AND name = %s ORDER BY first_seen_at",
            [portal.portal, changed.name],
        ).fetchall()
        assert texts == [(portal.criteria[0].version, portal.criteria[0].text), (changed.version, "Иначе?")]
        flags = connection.execute(
            "SELECT include_in_entity_description FROM criteria WHERE portal = %s AND name = %s",
            [portal.portal, flagged.name],
        ).fetchall()
        assert flags == [(True,)]
        selected = connection.execute(
            "SELECT criteria FROM categories WHERE portal = %s AND name = %s", [portal.portal, category.name]
        ).fetchall()
        assert selected == [(["greeting"],)]
        assert connection.execute("SELECT title FROM portals WHERE portal = %s", [portal.portal]).fetchall() == [
            ("Новое имя",)
        ]


def test_what_an_analyst_built_on_the_view_survives(database: str, portals: list[Portal]) -> None:
    """Running setup again keeps the grants on the view, and the views made from it."""
    with psycopg.connect(database) as connection:
        connection.execute("GRANT SELECT ON okna_sever_dialogs TO PUBLIC")
        connection.execute("CREATE VIEW report AS SELECT day, count(*) FROM okna_sever_dialogs GROUP BY 1")
    schema.setup_portals(database, portals)
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM report").fetchone() == (0,)
        grants = connection.execute(
            """
            SELECT grantee FROM information_schema.role_table_grants
            WHERE table_name = 'okna_sever_dialogs' AND grantee = 'PUBLIC'
            """
        ).fetchall()
        assert grants == [("PUBLIC",)]


def test_a_view_of_another_shape_is_replaced(database: str, portals: list[Portal]) -> None:
    """An older release's view with other columns gives way to this release's."""
    with psycopg.connect(database) as connection:
        connection.execute("DROP VIEW okna_sever_dialogs")
        connection.execute("CREATE VIEW okna_sever_dialogs AS SELECT 1 AS old")
    schema.setup_portals(database, portals)
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(call_id) FROM okna_sever_dialogs").fetchone() == (0,)


TURNS = [Turn("operator", 0, 0, 900, "Добрый день"), Turn("client", 1, 1000, 2000, "Мне нужно окно")]


async def fill_two_calls(pool: Pool) -> None:
    """Call 1 with everything and more than one of all that can be many; call 2 with nothing."""
    await put_calls(pool, call(1), call(2, user_id=None, entity_type=None, entity_id=None, record_file_id=None))
    async with pool.connection() as connection:
        await users.write(connection, PORTAL, [{"user_id": 7, "name": "Анна", "email": None, "phone": None,
            "departments": [1], "position": "менеджер", "active": True, "raw": {}}])  # fmt: skip
        entity: Row = {"title": "Иван", "phones": [], "stage": None, "amount": None, "currency": None,
            "responsible_id": 7, "raw": {}}  # fmt: skip
        await entities.write(connection, PORTAL, [
            {**entity, "entity_type": kind, "entity_id": number} for kind, number in (("contact", 5), ("deal", 8), ("deal", 9))
        ])  # fmt: skip
        await entities.set_deals(connection, PORTAL, "contact", {5: [8, 9]})
        await audio_files.put(connection, PORTAL, 1, {"record_source": "disk", "record_file_id": 1001,
            "s3_bucket": "b", "s3_key": "k",
            "sha256": "s", "bytes": 1, "container": "mp3", "codec": "mp3", "sample_rate": 8000, "channels": 2,
            "bit_rate": None, "duration_s": Decimal("60.5"), "peak_dbfs": [-3.0, -9.0], "marks": ["crosstalk"]})  # fmt: skip
        await transcripts.put(connection, PORTAL, 1, recogniser="r", operation_id="o", sha256="s", raw={},
            turns=TURNS, talk_metrics={"silence_share": 0.1}, cost_rub=Decimal("0.18"), marks=["roles_disagree"],
            role_check={"verdict": "disagrees"}, dialog_rules="r")  # fmt: skip
        fixed = [
            TURNS[0],
            Turn("client", 1, 65_999, 67_000, "Мне нужно окно."),
            Turn("operator", 0, 6_000_000, 6_001_000, "Да"),
        ]
        await fixed_dialogs.put(connection, PORTAL, 1, turns=fixed, edits=[], prompt_version="1", model="m",
            cost_rub=Decimal(0))  # fmt: skip
        category = {"category_version": "1", "reason": "r", "prompt_version": "1", "model": "m", "cost_rub": Decimal(0)}
        await classifications.replace(connection, PORTAL, 1, [
            {**category, "category": "new_order", "confidence": 60, "criteria": ["greeting@old", "needs@1"]},
            {**category, "category": "price_talk", "confidence": 90, "criteria": ["greeting@old", "objections@1"]},
        ])  # fmt: skip
        score = {"text": "t", "quotes": [], "prompt_version": "1", "model": "m", "cost_rub": Decimal(0)}
        for name in ("greeting", "needs", "objections"):
            await connection.execute(
                "INSERT INTO criteria SELECT %s, %s, unnest(%s::text[]), 't', 't', 0, 10, false",
                [PORTAL, name, ["1", "old", "new"]],
            )
        await criteria_scores.put(connection, PORTAL, 1, "dialog", [
            {**score, "criterion": "greeting", "version": "old", "applicable": True, "score": 8},
            {**score, "criterion": "dropped", "version": "1", "applicable": True, "score": 0},
        ])  # fmt: skip
    async with pool.connection() as connection:
        await criteria_scores.put(connection, PORTAL, 1, "dialog", [
            {**score, "criterion": "greeting", "version": "new", "applicable": True, "score": 2},
            {**score, "criterion": "needs", "version": "1", "applicable": True, "score": 5},
            {**score, "criterion": "objections", "version": "1", "applicable": False, "score": None},
        ])  # fmt: skip
        for version in (1, 2):
            await entity_summaries.add(connection, PORTAL, "contact", 5, {"version": version, "text": f"Текст {version}",
                "average_scores": {}, "inputs_hash": str(version), "calls": [1], "prompt_version": "1", "model": "m",
                "cost_rub": Decimal(0)})  # fmt: skip
        for key in ("a", "b"):
            await ledger.ask(connection, PORTAL, key, {"vendor": "v", "model": "m", "step": "transcripts", "day": MONDAY,
                "call_id": 1, "rub_rate": Decimal(1)})  # fmt: skip
            await ledger.answered(connection, PORTAL, key, cost=Decimal("0.5"), currency="RUB", vendor_request_id="x")
    await put_step(pool, 1, "transcripts", "done", output_key="a")
    await put_step(pool, 2, "transcripts", "skipped", reason="not_answered")


def test_the_flat_view_has_one_row_a_call(database: str) -> None:
    """However many deals, categories, scores, versions and payments a call has, it is one row with all of them.

    Scores are those of the criteria in the wording that its categories select now, whichever was given last.
    """

    async def work(pool: Pool) -> None:
        await fill_two_calls(pool)
        await put_calls(pool, call(1), portal="avto_ural")
        full, bare = await all_rows(pool, "SELECT * FROM okna_sever_dialogs ORDER BY call_id")
        assert (full["user_name"], full["entity_title"], full["deals"]) == ("Анна", "Иван", 2)
        assert full["dialog"] == "[00:00] operator: Добрый день\n[01:05] client: Мне нужно окно.\n[100:00] operator: Да"
        assert (full["marks"], full["role_check"]) == (["roles_disagree"], {"verdict": "disagrees"})
        assert full["audio_marks"] == ["crosstalk"]
        assert full["talk_metrics"] == {"silence_share": 0.1}
        assert full["categories"] == ["price_talk", "new_order"]
        assert full["scores"] == {"greeting": 8, "needs": 5, "objections": None}
        assert full["score_percent"] == Decimal("65.0")
        assert full["entity_summary"] == "Текст 2"
        assert full["cost_rub"] == Decimal("1.0")
        assert full["audio_seconds"] == Decimal("60.5")
        assert full["steps"] == {"calls": "done", "transcripts": "done"}
        assert bare["steps"] == {"calls": "done", "transcripts": "skipped: not_answered"}
        for name in (
            "user_name",
            "entity_title",
            "dialog",
            "categories",
            "scores",
            "score_percent",
            "cost_rub",
            "marks",
        ):
            assert bare[name] is None
        assert (await one(pool, "SELECT call_id FROM avto_ural_dialogs"))["call_id"] == 1

    with_pool(database, work)


def test_what_is_stored_as_json_is_read_back(database: str) -> None:
    """Dialogs come back as the values that went in, and a call without one is told apart from an empty one."""

    async def work(pool: Pool) -> None:
        await fill_two_calls(pool)
        async with pool.connection() as connection:
            assert await transcripts.turns(connection, PORTAL, 1) == TURNS
            assert (await fixed_dialogs.turns(connection, PORTAL, 1))[1].text == "Мне нужно окно."
            assert (await audio_files.get(connection, PORTAL, 1))["sha256"] == "s"
            for read in (transcripts.turns, fixed_dialogs.turns, audio_files.get):
                with pytest.raises(LookupError, match="call 2 of okna_sever has no"):
                    await read(connection, PORTAL, 2)
            found = await audio_files.wanted(connection, PORTAL, [1, 2, 3])
            assert {call_id: row["record_file_id"] for call_id, row in found.items()} == {1: 1001, 2: None}

    with_pool(database, work)


def test_raw_rows_keep_numbers_as_they_came(database: str) -> None:
    """jsonb keeps every digit of an amount."""

    async def work(pool: Pool) -> None:
        row = await one(pool, "SELECT %s::jsonb ->> 'a' AS a", Jsonb({"a": "0.10000000000000000001"}))
        assert row["a"] == "0.10000000000000000001"

    with_pool(database, work)
