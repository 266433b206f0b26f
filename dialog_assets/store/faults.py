"""What an error of Postgres means: whether waiting may help, and what a person is told.

By the class of the error and its SQLSTATE, never by its text: the text is in the server's language, and it may quote rows,
parameters or parts of an address.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg

PATIENCE_S = 120.0
"""How long a passing fault is waited out."""
PAUSE_S = 0.5
LONGEST_PAUSE_S = 4.0

_PASSING = (
    "08",  # the connection was lost
    "40001",  # serialization_failure
    "40003",  # statement_completion_unknown
    "40P01",  # deadlock_detected
    "53",  # no connection, memory or disk left
    "55P03",  # lock_not_available
    "57014",  # query_canceled, by statement_timeout or by a person
    "57P01",  # admin_shutdown
    "57P02",  # crash_shutdown
    "57P03",  # cannot_connect_now
    "57P05",  # idle_session_timeout
    "25P03",  # idle_in_transaction_session_timeout
    "25P04",  # transaction_timeout
    "25006",  # read_only_sql_transaction: a primary that has just become a standby
    "58030",  # io_error
)

_MEANING = {
    "53100": "the disk of Postgres is full: make room there",
    "53200": "Postgres is out of memory",
    "53300": "Postgres has no connection left for this role: raise max_connections or the role's CONNECTION LIMIT",
    "25006": "Postgres is read-only here: DATABASE_URL must name the primary server, and a role that may write",
    "42501": "the role of DATABASE_URL lacks a right: it must own the tables, and may CREATE in their schema",
    "42P01": "the database has not all tables of this version: run dialog-assets setup-portals",
    "42703": "the database has not all columns of this version: run dialog-assets setup-portals",
    "3F000": "the schema in the role's search_path is missing: create it, or reset the role's search_path",
    "2BP01": "a view of somebody's own is built on what would go: drop that view first",
    "3D000": "the database is gone",
    "28P01": "Postgres refuses the password in DATABASE_URL",
    "28000": "Postgres refuses the role in DATABASE_URL",
    "55P03": "a lock was not had in time: look in pg_stat_activity for what holds it",
    "57014": "a statement took longer than statement_timeout allows",
}


def fault_of(error: BaseException | None) -> psycopg.Error | None:
    """The error of Postgres behind an error of SQLAlchemy, Dagster or a group, if there is one; psycopg2's as psycopg's."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, psycopg.Error):
            return error
        code: Any = getattr(error, "pgcode", False)
        if code is not False:  # psycopg2
            if code is None:
                return psycopg.OperationalError()
            with suppress(KeyError):
                return psycopg.errors.lookup(code)()
            return psycopg.DatabaseError()
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        else:
            error = getattr(error, "orig", None) or error.__cause__ or error.__context__
    return None


def passing(error: BaseException) -> bool:
    """Whether the same work may go well after a while."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate.startswith(_PASSING)


def sentence(error: psycopg.Error) -> str:
    """What is wrong, for a person, without a full stop; nothing of statements, rows and addresses."""
    if error.sqlstate is None:
        if isinstance(error, psycopg.OperationalError):
            return "Postgres does not answer: see whether it runs and can be reached"
        return f"Postgres cannot take what it is given ({type(error).__name__})"
    meaning = _MEANING.get(error.sqlstate)
    if meaning is not None:
        return f"{meaning} (SQLSTATE {error.sqlstate})"
    # Of a DataError even the first line of the server's text quotes the row.
    quotes = isinstance(error, psycopg.DataError | psycopg.IntegrityError)
    told = type(error).__name__ if quotes else error.diag.message_primary or type(error).__name__
    return f"Postgres: {told} (SQLSTATE {error.sqlstate}); see its log"
