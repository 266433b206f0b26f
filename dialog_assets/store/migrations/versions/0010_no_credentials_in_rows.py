"""Credentials that portals' rows brought along, in links of CRM file fields above all, are taken out of what is stored.

Reads only rows that may hold one, and rewrites only those that do.
"""

from __future__ import annotations

import json
from typing import Any

from alembic import op
from sqlalchemy import Connection, CursorResult, text

from dialog_assets.redaction import redacted, without_secrets

revision = "0010"
down_revision = "0009"

DOCUMENTS = {"calls": "raw", "users": "raw", "entities": "raw", "unreadable_rows": "raw"}
TEXTS = {
    "calls": ("vendor_call_id", "line", "failed_code"),
    "users": ("name", "position"),
    "entities": ("title", "stage"),
    "entity_changes": ("before", "after"),
}
SUSPICIOUS = r"auth|token|_?sid\M|sessid|jwt|bearer|secret|passw|pwd|key|sig|credential|rest(\\|/|%)|[?&]|%3f|url|@"
AT_ONCE = 500


def upgrade() -> None:
    """Clean them, partition by partition."""
    connection = op.get_bind()
    for table, column in DOCUMENTS.items():
        for name in _partitions(connection, table):
            _clean_documents(connection, name, column)
    for table, columns in TEXTS.items():
        for name in _partitions(connection, table):
            _clean_texts(connection, name, columns)


def _partitions(connection: Connection, table: str) -> list[str]:
    query = text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = to_regclass(:parent)")
    return list(connection.execute(query, {"parent": table}).scalars()) or [table]


def _clean_documents(connection: Connection, table: str, column: str) -> None:
    select = f"SELECT ctid::text, {column}::text FROM {table} WHERE {column}::text ~* :suspicious"  # noqa: S608 - our names
    update = f"UPDATE {table} SET {column} = cast(:new AS jsonb) WHERE ctid = cast(:place AS tid)"  # noqa: S608 - our names
    for rows in _read(connection, select).partitions():
        changed = []
        for place, before in map(tuple, rows):
            document = json.loads(before)
            after = redacted(document)
            if after != document:
                changed.append({"place": place, "new": json.dumps(after, ensure_ascii=False)})
        if changed:
            connection.execute(text(update), changed)


def _clean_texts(connection: Connection, table: str, columns: tuple[str, ...]) -> None:
    for column in columns:
        select = f"SELECT DISTINCT {column} FROM {table} WHERE {column} ~* :suspicious"  # noqa: S608 - our names
        update = f"UPDATE {table} SET {column} = :new WHERE {column} = :old"  # noqa: S608 - our names
        same = f"DELETE FROM {table} WHERE {column} = :old AND :new IN (before, after)"  # noqa: S608 - our names
        for old in _read(connection, select).scalars():
            renewed = {"old": old, "new": without_secrets(old)}
            if renewed["old"] == renewed["new"]:
                continue
            if table.endswith("entity_changes"):
                # A change between two values that differed in a credential only is none.
                connection.execute(text(same), renewed)
            connection.execute(text(update), renewed)


def _read(connection: Connection, statement: str) -> CursorResult[Any]:
    """Rows of a server-side cursor: a portal has more of them than memory."""
    options = {"yield_per": AT_ONCE}
    return connection.execute(text(statement), {"suspicious": SUSPICIOUS}, execution_options=options)
