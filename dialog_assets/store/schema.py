"""The schema: migrations, each portal's partitions, and the views. What `dialog-assets setup-portals` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from dialog_assets.errors import DialogAssetsError
from dialog_assets.portals import Portal
from dialog_assets.store import rules, stages, views
from dialog_assets.store.connections import connect_here
from dialog_assets.store.faults import fault_of, sentence

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK_S = 60
"""How long changing a table waits for those who use it."""

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
    "read_days",
    "ledger",
)


class SchemaRefused(DialogAssetsError):
    """The tables cannot be made, or are not those of this version."""


def migrate(url: str) -> None:
    """Bring the database at `url` to the newest revision; safe to run again, and from several processes at once.

    One transaction, so that a refusal leaves what was there. Raises SchemaRefused.
    """
    # Alembic and SQLAlchemy are wanted here only, and take long to import.
    import sqlalchemy
    from alembic import command
    from alembic.config import Config

    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: connect_here(url), poolclass=sqlalchemy.NullPool
    )
    config = Config(attributes={"connection": None})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with _told("The tables cannot be made or changed"), engine.connect() as connection, connection.begin():
        connection.exec_driver_sql(_PATIENT)
        connection.exec_driver_sql(_ALONE, {"what": "dialog_assets/migrate"})
        _check_known(_revision(connection.connection.driver_connection))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


NEWEST = max(path.name[:4] for path in MIGRATIONS.glob("versions/0*.py"))
"""The revision of this version's tables."""

_PATIENT = f"SELECT set_config('lock_timeout', '{LOCK_S}s', true), set_config('statement_timeout', '0', true)"
_ALONE = "SELECT pg_advisory_xact_lock(hashtext(%(what)s))"


async def check(connection: psycopg.AsyncConnection[Any]) -> None:
    """Raises SchemaRefused where the tables are not those of this version."""
    try:
        async with connection.transaction():
            row = await (
                await connection.execute("SELECT max(version_num) AS revision FROM alembic_version")
            ).fetchone()
    except psycopg.errors.UndefinedTable:
        row = None
    revision = row["revision"] if row else None
    _check_known(revision)
    if revision != NEWEST:
        raise SchemaRefused("The database has not all tables of this version: run dialog-assets setup-portals.")


def _revision(connection: Any) -> str | None:
    row = connection.execute("SELECT to_regclass('alembic_version')").fetchone()
    if row is None or row[0] is None:
        return None
    row = connection.execute("SELECT max(version_num) FROM alembic_version").fetchone()
    return row[0] if row else None


def _check_known(revision: str | None) -> None:
    if revision is not None and revision > NEWEST:
        raise SchemaRefused(
            f"The database is of a newer version of dialog-assets (revision {revision}, this one knows {NEWEST}): "
            "update this installation, or give it another database."
        )


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Errors of Postgres, SQLAlchemy's wrapping or not, as one sentence."""
    try:
        yield
    except Exception as error:
        fault = fault_of(error)
        if fault is None:
            raise
        raise SchemaRefused(f"{what}: {sentence(fault)}.") from None


def setup_portals(url: str, portals: Sequence[Portal]) -> list[str]:
    """Migrate, then make partitions and views for `portals` and record them, their categories and criteria.

    Safe to run again, from several processes at once, and while runs work on other portals. Returns the names of the
    portals that lacked partitions before. Raises SchemaRefused.
    """
    migrate(url)
    new: list[str] = []
    with _told("The tables of the portals cannot be made"), connect_here(url, autocommit=True) as connection:
        with _alone(connection):
            views.create_common(connection)
        for portal in portals:
            if _create_partitions(connection, portal.portal):
                new.append(portal.portal)
            with _alone(connection):
                stages.create_view(connection, portal.portal)
                views.create_portals(connection, portal.portal)
                _record(connection, portal)
    return new


@contextmanager
def _alone(connection: psycopg.Connection) -> Iterator[None]:
    """A transaction in which no other process sets up portals; no lock is waited for without an end."""
    with connection.transaction():
        connection.execute(_PATIENT)
        connection.execute(_ALONE, {"what": "dialog_assets/setup_portals"})
        yield


def _create_partitions(connection: psycopg.Connection, portal: str) -> bool:
    """Make the partitions that `portal` lacks, each in its own transaction; returns whether the last of them was made here.

    Attached rather than created in place: CREATE TABLE … PARTITION OF would lock each common table against all runs, and
    deadlock with one that uses two of them.
    """
    completed = False
    for table in PARTITIONED_TABLES:
        if _is_attached(connection, portal, table):
            continue
        partition, parent = sql.Identifier(f"{portal}_{table}"), sql.Identifier(table)
        with _alone(connection):
            if _is_attached(connection, portal, table):
                continue
            connection.execute(
                sql.SQL("CREATE TABLE IF NOT EXISTS {} (LIKE {} INCLUDING ALL)").format(partition, parent)
            )
            connection.execute(
                sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES IN ({})").format(
                    parent, partition, sql.Literal(portal)
                )
            )
            completed = all(_is_attached(connection, portal, other) for other in PARTITIONED_TABLES)
    return completed


def _is_attached(connection: psycopg.Connection, portal: str, table: str) -> bool:
    cursor = connection.execute(
        "SELECT 1 FROM pg_inherits WHERE inhrelid = to_regclass(%s) AND inhparent = %s::regclass",
        [f'"{portal}_{table}"', table],
    )
    return cursor.fetchone() is not None


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
