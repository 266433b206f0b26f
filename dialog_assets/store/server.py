"""Which Postgres: the one of DATABASE_URL, or an embedded one that runs from the project's data folder.

Here: whether it can be worked with, and the making of databases. Not here: how an address is read (addresses), how a
connection is opened (connections), how the embedded server lives (embedded), tables (migrations) and rows (one module a
table).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress

import psycopg
from psycopg import errors, sql

from dialog_assets.folders import data_folder
from dialog_assets.store import addresses, embedded
from dialog_assets.store.connections import PARAMETERS, connect_here
from dialog_assets.store.errors import DatabaseUnreachable, UnsuitableDatabase
from dialog_assets.store.faults import PATIENCE_S, sentence

APPLICATION_DATABASE = "dialog_assets"
MINIMUM_VERSION = 150000
MAINTENANCE = ("postgres", "template1")
"""Databases that every server has, from where it can be seen which others there are."""


def database_url() -> str:
    """The application database's URL; starts the embedded server when DATABASE_URL is not set.

    Raises DatabaseUnreachable, with what to do, when there is no Postgres 15 or newer behind it, or one that cannot be
    worked with: another encoding, or read-only.
    """
    given = os.environ.get("DATABASE_URL")
    if not given:
        url = embedded.url(data_folder() / "postgres", APPLICATION_DATABASE)
        return _ensure_database(url, "DATABASE_URL")
    return _ensure_database(addresses.url(addresses.parts(given)), "DATABASE_URL")


def database_url_in_time() -> str:
    """The same within a run: a server that is away for a moment is waited for."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return database_url()
        except UnsuitableDatabase:
            raise
        except DatabaseUnreachable:
            if time.monotonic() > until:
                raise
            time.sleep(2)


def dagster_url(url: str) -> str:
    """Dagster's own storage beside the application database `url`: DAGSTER_POSTGRES_URL, or `<database>_dagster` on its server.

    The psycopg2 scheme is needed: with plain `postgresql://` SQLAlchemy 2.1 takes psycopg 3, on which dagster-postgres'
    NOTIFY fails (facts/dagster.md, fact 2). What connections of ours set for themselves, the address asks for here.
    """
    given = os.environ.get("DAGSTER_POSTGRES_URL")
    variable = "DAGSTER_POSTGRES_URL" if given else "DATABASE_URL"
    if given:
        found = addresses.parts(given, variable)
    else:
        found = addresses.parts(url)
        found["dbname"] = f"{found['dbname']}_dagster"
    # Losing the last moment of Dagster's log in a power cut costs nothing, waiting for the disk at each event does.
    settings = {} if given else {"synchronous_commit": "off"}
    found = addresses.parts(_ensure_database(addresses.url(found), variable, settings=settings))
    found = {"client_encoding": "utf8", "connect_timeout": "10", **found}
    with connect_here(addresses.url(found), autocommit=True) as connection:
        row = connection.execute(
            "SELECT reset_val FROM pg_settings WHERE name = 'default_transaction_isolation'"
        ).fetchone()
    if row is not None and row[0] != "read committed" and "options" not in found:
        found["options"] = r"-c default_transaction_isolation=read\ committed"
        try:
            psycopg.connect(addresses.url(found), **PARAMETERS).close()
        except psycopg.OperationalError:
            raise UnsuitableDatabase(
                f"Transactions in Dagster's database {found['dbname']} are {row[0]} by default: ALTER ROLE or ALTER "
                "DATABASE … SET default_transaction_isolation = 'read committed'."
            ) from None
    return addresses.url(found, "postgresql+psycopg2")


def with_scheme(url: str, scheme: str) -> str:
    """The same address under another URL scheme, for SQLAlchemy's choice of driver."""
    return f"{scheme}://{url.partition('://')[2]}"


def with_database(url: str, name: str) -> str:
    """The address of another database on the same server."""
    return addresses.url({**addresses.parts(url), "dbname": name})


def _ensure_database(url: str, variable: str, settings: Mapping[str, str] | None = None) -> str:
    """Create the database that `url` names, with these settings, if its server has none of that name.

    Returns the URL, with the database's name in it. Raises DatabaseUnreachable, UnsuitableDatabase.
    """
    found = addresses.parts(url, variable)
    if "dbname" not in found and "service" not in found:
        raise DatabaseUnreachable(
            f"{variable} names no database: it is to be like postgresql://user:password@host:5432/database."
        )
    try:
        name = _look(url)
    except psycopg.OperationalError as error:
        name = found.get("dbname", "")
        # The server's words are in its own language: whether the database is missing, another one tells.
        if not name or not _is_missing(found, name):
            raise DatabaseUnreachable(
                f"Postgres cannot be reached for database {name}: {_reason(error, found)}; check {variable}."
            ) from None
        _create_database(found, name, variable, settings or {})
        try:
            _look(url)
        except psycopg.Error as failed:
            raise DatabaseUnreachable(
                f"Database {name} was made and cannot be used: {_reason(failed, found)}."
            ) from None
    except psycopg.Error as error:
        raise DatabaseUnreachable(f"{variable}: {sentence(error)}.") from None
    return url if found.get("dbname") == name else addresses.url({**found, "dbname": name})


def _look(url: str) -> str:
    """Whether the database can be worked with; its name. Raises psycopg.Error, UnsuitableDatabase."""
    with connect_here(url, autocommit=True) as connection:
        name, version = connection.info.dbname, connection.info.server_version
        if version < MINIMUM_VERSION:
            raise UnsuitableDatabase(
                f"Postgres for database {name} is version {version // 10000}: 15 or newer is needed."
            )
        row = connection.execute(
            "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::boolean"
        ).fetchone()
    if row is not None and row[0]:
        raise UnsuitableDatabase(
            f"Postgres for database {name} is a standby, which is read-only: the address is to name the primary server."
        )
    if row is not None and row[1]:
        raise UnsuitableDatabase(
            f"Database {name} is read-only for this role (default_transaction_read_only is on): use a role that may write, "
            "or ALTER ROLE or ALTER DATABASE … RESET default_transaction_read_only."
        )
    return name


def _is_missing(found: addresses.Parts, name: str) -> bool:
    """Whether the server can be reached, and has no database of that name."""
    for other in MAINTENANCE:
        with (
            suppress(psycopg.OperationalError),
            psycopg.connect(addresses.url({**found, "dbname": other}), autocommit=True, **PARAMETERS) as connection,
        ):
            return connection.execute("SELECT FROM pg_database WHERE datname = %s", [name]).rowcount == 0
    return False


def _create_database(found: addresses.Parts, name: str, variable: str, settings: Mapping[str, str]) -> None:
    for other in MAINTENANCE:
        try:
            connection = psycopg.connect(addresses.url({**found, "dbname": other}), autocommit=True, **PARAMETERS)
        except psycopg.OperationalError:
            continue
        with connection:
            _create(connection, name, variable, settings)
        return


def _create(connection: psycopg.Connection, name: str, variable: str, settings: Mapping[str, str]) -> None:
    make = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(sql.Identifier(name))
    try:
        try:
            connection.execute(make)
        except (errors.InvalidParameterValue, errors.WrongObjectType):
            # The server's own locale goes with another encoding.
            connection.execute(make + sql.SQL(" LOCALE 'C'"))
    except (errors.DuplicateDatabase, errors.UniqueViolation, errors.ObjectInUse):
        return  # another process makes it at this moment
    except psycopg.Error as error:
        why = sentence(error)
        if isinstance(error, errors.InsufficientPrivilege):
            why = "its role may not create databases (SQLSTATE 42501)"
        raise DatabaseUnreachable(
            f"{variable}: there is no database {name}, and it cannot be created, {why}: "
            f"let an administrator CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' OWNER that role."
        ) from None
    for setting, value in settings.items():
        # Not worth an error, whoever changes it at this moment.
        with suppress(psycopg.Error):
            connection.execute(
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                    sql.Identifier(name), sql.Identifier(setting), sql.Literal(value)
                )
            )


def _reason(error: psycopg.Error, found: addresses.Parts) -> str:
    """The server's last words, in its language, without addresses or credentials."""
    text = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    text = re.sub(r"^\w+:\s+", "", text.rsplit(" failed: ", 1)[-1].strip())
    return addresses.without_secrets(text.removeprefix("connection to server at ").rstrip("."), found)
