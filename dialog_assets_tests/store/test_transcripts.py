"""Table transcripts: rows of before what is told of a dialog was kept, and what is written since."""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal

import psycopg
import pytest
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import sql

from dialog_assets.dialogs import Turn
from dialog_assets.portals import Portal
from dialog_assets.store import schema, server, transcripts
from dialog_assets_tests.store.rows import PORTAL, Pool, all_rows, one, with_pool

MARKS = "0006"
"""The migration that adds them."""


@pytest.fixture
def database_of_before(postgres: str) -> Iterator[str]:
    """A database as the revision before MARKS left it, with one portal's partition and a transcript in it."""
    name = f"before_{os.getpid()}"
    admin = server.with_database(postgres, "postgres")
    url = server.with_database(postgres, name)
    config = Config(attributes={"connection": None})
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    before = ScriptDirectory.from_config(config).get_revision(MARKS).down_revision
    assert isinstance(before, str)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    engine = sqlalchemy.create_engine(server.with_scheme(url, "postgresql+psycopg"), poolclass=sqlalchemy.NullPool)
    with engine.connect() as migrating:
        config.attributes["connection"] = migrating
        command.upgrade(config, before)
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE okna_sever_transcripts PARTITION OF transcripts FOR VALUES IN ('okna_sever')")
        connection.execute(
            """
            INSERT INTO transcripts (portal, call_id, recogniser, operation_id, sha256, raw, turns, talk_metrics, cost_rub)
            VALUES ('okna_sever', 1, 'r', 'o', 's', '{"a": 1}', %s, '{"silence_share": 0.5}', 0.2)
            """,
            ['[{"role": "client", "channel": 1, "start_ms": 5, "end_ms": 9, "text": "да", "words": []}]'],
        )
    yield url
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_a_filled_database_is_migrated(database_of_before: str, portals: list[Portal]) -> None:
    """A transcript of before has no marks and no rules, and is otherwise what it was; new ones are written beside it."""
    schema.setup_portals(database_of_before, portals)

    async def work(pool: Pool) -> None:
        row = await one(pool, "SELECT * FROM transcripts")
        assert (row["marks"], row["role_check"], row["dialog_rules"]) == ([], None, None)
        assert (row["raw"], row["talk_metrics"], row["cost_rub"]) == ({"a": 1}, {"silence_share": 0.5}, Decimal("0.2"))
        async with pool.connection() as connection:
            assert await transcripts.turns(connection, PORTAL, 1) == [Turn("client", 1, 5, 9, "да")]
            await transcripts.put(connection, PORTAL, 2, recogniser="r", operation_id="o", sha256="s", raw={}, turns=[],
                talk_metrics={}, cost_rub=Decimal(0),
                marks=["mono"], role_check={"verdict": "unclear"}, dialog_rules="x")  # fmt: skip
        rows = await all_rows(
            pool, "SELECT marks, role_check, dialog_rules FROM okna_sever_transcripts ORDER BY call_id"
        )
        assert rows[1] == {"marks": ["mono"], "role_check": {"verdict": "unclear"}, "dialog_rules": "x"}

    with_pool(database_of_before, work)
