"""Which Postgres: the one of DATABASE_URL, or an embedded one that runs from the project's data folder.

Here: addresses and the making of databases. Not here: how the embedded server lives (embedded), tables (migrations) and
rows (one module a table).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import psycopg
from psycopg import sql

from dialog_assets.folders import data_folder
from dialog_assets.store import embedded
from dialog_assets.store.errors import DatabaseUnreachable

APPLICATION_DATABASE = "dialog_assets"
MINIMUM_VERSION = 150000


def database_url() -> str:
    """The application database's URL; starts the embedded server when DATABASE_URL is not set.

    Raises DatabaseUnreachable, with what to do, when there is no Postgres 15 or newer behind it.
    """
    url = os.environ.get("DATABASE_URL")
    if not url:
        url = embedded.url(data_folder() / "postgres", APPLICATION_DATABASE)
    _ensure_database(url)
    return url


def dagster_url(url: str) -> str:
    """Dagster's own storage beside the application database `url`: DAGSTER_POSTGRES_URL, or `<database>_dagster` on its server.

    The psycopg2 scheme is needed: with plain `postgresql://` SQLAlchemy 2.1 takes psycopg 3, on which dagster-postgres'
    NOTIFY fails (facts/dagster.md, fact 2).
    """
    given = os.environ.get("DAGSTER_POSTGRES_URL")
    if given:
        return given
    beside = with_database(url, f"{_database(url)}_dagster")
    # Losing the last moment of Dagster's log in a power cut costs nothing, waiting for the disk at each event does.
    _ensure_database(beside, settings={"synchronous_commit": "off"})
    return with_scheme(beside, "postgresql+psycopg2")


def with_scheme(url: str, scheme: str) -> str:
    """The same address under another URL scheme, for SQLAlchemy's choice of driver."""
    return f"{scheme}://{url.partition('://')[2]}"


_URL = re.compile(r"^(?P<server>\w+://[^/?]*)/?(?P<database>[^?]*)(?P<query>.*)$")


def _database(url: str) -> str:
    match = _URL.match(url)
    if match is None or not match["database"]:
        raise DatabaseUnreachable("DATABASE_URL is not of the form postgresql://user:password@host:port/database.")
    return match["database"]


def with_database(url: str, name: str) -> str:
    """The address of another database on the same server."""
    return _URL.sub(lambda match: f"{match['server']}/{name}{match['query']}", url)


def _ensure_database(url: str, settings: Mapping[str, str] | None = None) -> None:
    """Create the database that `url` names, with these settings, if its server has none of that name."""
    name = _database(url)
    try:
        with psycopg.connect(url, connect_timeout=10) as connection:
            version = connection.info.server_version
    except psycopg.OperationalError as error:
        if f'database "{name}" does not exist' not in str(error):
            raise DatabaseUnreachable(
                f"Postgres cannot be reached for database {name}: {_reason(error)}; check DATABASE_URL."
            ) from None
        _create_database(with_database(url, "postgres"), name, settings or {})
    except psycopg.ProgrammingError as error:
        raise DatabaseUnreachable(f"DATABASE_URL cannot be read: {_reason(error)}.") from None
    else:
        if version < MINIMUM_VERSION:
            raise DatabaseUnreachable(
                f"Postgres for database {name} is version {version // 10000}: 15 or newer is needed."
            )


def _create_database(url: str, name: str, settings: Mapping[str, str]) -> None:
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            for setting, value in settings.items():
                connection.execute(
                    sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                        sql.Identifier(name), sql.Identifier(setting), sql.Literal(value)
                    )
                )
    except psycopg.errors.DuplicateDatabase:
        return
    except psycopg.Error as error:
        raise DatabaseUnreachable(f"Database {name} cannot be created: {_reason(error)}; create it by hand.") from None


def _reason(error: psycopg.Error) -> str:
    """The server's last words without addresses or credentials."""
    text = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    return text.rsplit("FATAL:", 1)[-1].strip().removeprefix("connection to server at ").rstrip(".")
