"""The analysts' views: what is in force, in the portal's own time, with a meaning for every column."""

from __future__ import annotations

from decimal import Decimal

import psycopg
import pytest

from dialog_assets.portals import Portal
from dialog_assets.store import schema
from dialog_assets.store.schema import PARTITIONED_TABLES
from dialog_assets_tests.store.rows import PORTAL, Pool, all_rows, one, with_pool
from dialog_assets_tests.store.test_schema import fill_two_calls


def test_scores_are_those_in_force(database: str) -> None:
    """One row a criterion that is selected, in the wording that is, with titles, local time, evidence and places."""

    async def work(pool: Pool) -> None:
        await fill_two_calls(pool)
        async with pool.connection() as connection:
            await connection.execute(
                """UPDATE criteria_scores SET quotes = '[{"line": "L002", "turn": 1, "start_ms": 65999, "text": "да",
                "verbatim": false}, {"line": "L001", "turn": 0, "start_ms": 0, "text": "нет"}]' WHERE criterion = 'needs'"""
            )
        rows = await all_rows(pool, "SELECT * FROM scores ORDER BY criterion")
        assert [(row["criterion"], row["version"], row["score"], row["score_percent"]) for row in rows] == [
            ("greeting", "old", 8, Decimal("80.0")),
            ("needs", "1", 5, Decimal("50.0")),
            ("objections", "1", None, None),
        ]
        needs = rows[1]
        assert (needs["portal"], needs["call_id"], needs["user_name"]) == (PORTAL, 1, "Анна")
        assert needs["started_at_local"].isoformat() == "2026-03-02T10:00:01"
        assert needs["evidence"] == "L002 [01:05] «да»\nL001 [00:00] «нет»"
        assert needs["quotes_not_verbatim"] == 1
        assert needs["card_url"] == "https://okna-sever.bitrix24.example/crm/contact/details/5/"
        assert needs["recording"] == "s3://b/k"

    with_pool(database, work)


def test_dialogs_of_all_portals(database: str) -> None:
    """The common view has the columns of a portal's own, and the portal before them."""

    async def work(pool: Pool) -> None:
        await fill_two_calls(pool)
        common = await all_rows(pool, "SELECT * FROM dialogs ORDER BY call_id")
        own = await all_rows(pool, f"SELECT * FROM {PORTAL}_dialogs ORDER BY call_id")
        assert common == [{"portal": PORTAL, **row} for row in own]
        first, second = own
        assert first["scores_by_title"] == {"t": 8} or set(first["scores_by_title"]) == {"t"}
        assert first["category_titles"] == ["price_talk", "new_order"], "a wording that is not known shows its name"
        assert first["started_at_local"].isoformat() == "2026-03-02T10:00:01"
        assert (second["card_url"], second["recording"], second["entity_summary"]) == (None, None, None)
        row = await one(pool, "SELECT summary_inputs_left_out FROM dialogs WHERE call_id = 1")
        assert row["summary_inputs_left_out"] is None

    with_pool(database, work)


UNCOMMENTED = """
    SELECT c.relname || '.' || coalesce(a.attname, '') FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = current_schema()
    JOIN LATERAL (
        SELECT attnum::int, attname FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
        UNION ALL SELECT 0, NULL
    ) a ON col_description(c.oid, a.attnum) IS NULL AND (a.attnum > 0 OR obj_description(c.oid, 'pg_class') IS NULL)
    WHERE c.relkind = ANY(%s) AND c.relname = ANY(%s) ORDER BY 1
    """


@pytest.mark.parametrize("kind", ["views", "tables", "partitions"])
def test_every_column_has_a_meaning(database: str, portals: list[Portal], kind: str) -> None:
    """Whoever opens a view, a table or a portal's own table in any tool reads what each column is."""
    kinds = {
        "views": ("v", ["dialogs", "scores", *(f"{p.portal}_{v}" for p in portals for v in ("dialogs", "stages"))]),
        "tables": ("p", list(PARTITIONED_TABLES)),
        "partitions": ("r", [f"{portals[0].portal}_{table}" for table in PARTITIONED_TABLES]),
    }
    relkind, names = kinds[kind]
    with psycopg.connect(database) as connection:
        bare = [row[0] for row in connection.execute(UNCOMMENTED, [[relkind], names]).fetchall()]
    # A partition's own meaning is its parent's.
    assert [name for name in bare if not (kind == "partitions" and name.endswith("."))] == []


def test_views_are_described_again_after_a_change(database: str, portals: list[Portal]) -> None:
    """Another release's view with other columns gives way, for the common views too."""
    with psycopg.connect(database) as connection:
        connection.execute("DROP VIEW scores; CREATE VIEW scores AS SELECT 1 AS old")
    schema.setup_portals(database, portals)
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(evidence) FROM scores").fetchone() == (0,)
