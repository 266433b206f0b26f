"""The schema: migrations, each portal's partitions, and the views. What `dialog-assets setup-portals` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psycopg
from psycopg import sql

from dialog_assets.portals import Portal
from dialog_assets.store import rules, stages, views
from dialog_assets.store.server import with_scheme

MIGRATIONS = Path(__file__).parent / "migrations"

PARTITIONED_TABLES = (
    "users",
    "entities",
    "entity_deals",
    "entity_changes",
    "calls",
    "audio_files",
    "transcripts",
    "fixed_dialogs",
    "categories",
    "criteria",
    "classifications",
    "criteria_scores",
    "entity_summaries",
    "call_steps",
    "unreadable_rows",
    "withdrawn_results",
    "ledger",
)


def migrate(url: str) -> None:
    """Bring the database at `url` to the newest revision; safe to run again, and from several processes at once."""
    # Alembic and SQLAlchemy are wanted here only, and take long to import.
    import sqlalchemy
    from alembic import command
    from alembic.config import Config

    engine = sqlalchemy.create_engine(with_scheme(url, "postgresql+psycopg"), poolclass=sqlalchemy.NullPool)
    config = Config(attributes={"connection": None})
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(hashtext('dialog_assets/migrate'))"))
        connection.commit()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def setup_portals(url: str, portals: Sequence[Portal]) -> list[str]:
    """Migrate, then make partitions and views for `portals` and record them, their categories and criteria.

    Safe to run again, from several processes at once, and while runs work on other portals. Returns the names of the
    portals that lacked partitions before.
    """
    migrate(url)
    new: list[str] = []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtext('dialog_assets/setup_portals'))")
        with connection.transaction():
            views.create_common(connection)
        for portal in portals:
            if _create_partitions(connection, portal.portal):
                new.append(portal.portal)
            with connection.transaction():
                stages.create_view(connection, portal.portal)
                views.create_portals(connection, portal.portal)
                _record(connection, portal)
    return new


def _create_partitions(connection: psycopg.Connection, portal: str) -> bool:
    """Make the partitions that `portal` lacks, each in its own transaction; returns whether there was one.

    Attached rather than created in place: CREATE TABLE … PARTITION OF would lock each common table against all runs, and
    deadlock with one that uses two of them.
    """
    created = False
    for table in PARTITIONED_TABLES:
        name = f"{portal}_{table}"
        attached = connection.execute(
            "SELECT 1 FROM pg_inherits WHERE inhrelid = to_regclass(%s) AND inhparent = %s::regclass",
            [f'"{name}"', table],
        ).fetchone()
        if attached:
            continue
        partition, parent = sql.Identifier(name), sql.Identifier(table)
        with connection.transaction():
            connection.execute(
                sql.SQL("CREATE TABLE IF NOT EXISTS {} (LIKE {} INCLUDING ALL)").format(partition, parent)
            )
            connection.execute(
                sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES IN ({})").format(
                    parent, partition, sql.Literal(portal)
                )
            )
        created = True
    return created


def _record(connection: psycopg.Connection, portal: Portal) -> None:
    connection.execute(
        """
        INSERT INTO portals (portal, title, domain, time_zone) VALUES (%s, %s, %s, %s)
        ON CONFLICT (portal) DO UPDATE SET title = excluded.title, domain = excluded.domain,
            time_zone = excluded.time_zone, last_seen_at = now()
        """,
        [portal.portal, portal.title, portal.domain, portal.time_zone],
    )
    for statement, values in rules.statements(portal):
        connection.execute(statement, values)
