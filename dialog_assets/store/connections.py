"""How a connection to Postgres is opened: the one place, so that each of them has what the code relies on.

A server, a database or a role may have settings of its own for dates, encodings and transactions; a pooler may give each
transaction another session. So what is relied on is asked for anew on each connection, nothing is prepared on the server,
and every transaction says its isolation.
Here: opening. Not here: which database (server), the pool of a step (pool), what an error means (faults).
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import AsyncConnection, Connection, IsolationLevel
from psycopg.rows import DictRow, TupleRow, dict_row

from dialog_assets.store.errors import UnsuitableDatabase

PARAMETERS: dict[str, Any] = {
    "client_encoding": "UTF8",
    # Behind a pooler that gives each transaction another session, a statement prepared by one is unknown to the next.
    "prepare_threshold": None,
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Seconds, but `tcp_user_timeout` is in milliseconds: networks cut a connection that is silent for minutes without a word."""

SETTINGS = {
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "standard_conforming_strings": "on",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
}
"""What is set on every session. A pooler takes them for its own where it knows them, and a session keeps them otherwise."""

ASK = "SELECT " + ", ".join(f"set_config('{name}', '{value}', false)" for name, value in SETTINGS.items())


async def connect(url: str, *, autocommit: bool = False) -> AsyncConnection[DictRow]:
    """A connection of its own, rows as dicts. Raises psycopg.Error, UnsuitableDatabase."""
    connection: AsyncConnection[DictRow] = await AsyncConnection.connect(
        url, autocommit=autocommit, row_factory=dict_row, **PARAMETERS
    )
    try:
        await configure(connection)
    except BaseException:
        await connection.close()
        raise
    return connection


def connect_here(url: str, *, autocommit: bool = False) -> Connection[TupleRow]:
    """The same for code that does not run in an event loop; rows as tuples. Raises psycopg.Error, UnsuitableDatabase."""
    connection = psycopg.connect(url, autocommit=autocommit, **PARAMETERS)
    try:
        _check_encoding(connection)
        connection.isolation_level = IsolationLevel.READ_COMMITTED
        connection.execute(ASK)
        if not autocommit:
            connection.commit()
    except BaseException:
        connection.close()
        raise
    return connection


async def configure(connection: AsyncConnection[Any]) -> None:
    """Set what is relied on; the connection is left outside of a transaction. Raises psycopg.Error, UnsuitableDatabase."""
    _check_encoding(connection)
    await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
    await connection.execute(ASK)
    if not connection.autocommit:
        await connection.commit()


def is_pooled(connection: AsyncConnection[Any] | Connection[Any], backend_pid: int) -> bool:
    """Whether something stands between us and the server process `backend_pid`, so that sessions may not be ours alone."""
    return connection.info.backend_pid != backend_pid


def _check_encoding(connection: AsyncConnection[Any] | Connection[Any]) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in (None, "UTF8"):
        name = connection.info.dbname
        raise UnsuitableDatabase(
            f"Database {name} is encoded in {encoding}, which cannot hold every text: make one with "
            "CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8' and name it in the database's URL."
        )
