"""Table oauth_tokens: the present tokens of a portal's OAuth application, sealed so that the database alone tells nothing.

Here: sealing, reading, replacing, and the lock that lets one process at a time refresh. Not here: refreshing
(bitrix24/oauth.py). The seal's key is never in the database.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from dialog_assets.errors import DialogAssetsError
from dialog_assets.store.pool import Connection


class UnusableKey(DialogAssetsError):
    """The key that seals tokens is malformed, or is not the one that they were sealed with."""


MAKE_A_KEY = "python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"


class Seal:
    """Fernet (AES-CBC with HMAC) under one key; raises UnusableKey for a text that is no key."""

    def __init__(self, key: str) -> None:
        # Only portals with an application need the library.
        from cryptography.fernet import Fernet

        try:
            self._fernet: Fernet | None = Fernet(key)
        except ValueError:
            self._fernet = None
        if self._fernet is None:
            raise UnusableKey(f"DIALOG_ASSETS_SECRET_KEY is no key: make one with {MAKE_A_KEY}")

    def close(self, values: Mapping[str, str]) -> bytes:
        """`values` sealed."""
        assert self._fernet is not None  # noqa: S101 -- __init__ promises it
        return self._fernet.encrypt(json.dumps(dict(values)).encode())

    def open(self, sealed: bytes) -> dict[str, str]:
        """What was sealed; raises UnusableKey when it was sealed with another key."""
        from cryptography.fernet import InvalidToken

        assert self._fernet is not None  # noqa: S101 -- __init__ promises it
        try:
            values: dict[str, str] = json.loads(self._fernet.decrypt(sealed))
        except InvalidToken:
            failure = UnusableKey(
                "DIALOG_ASSETS_SECRET_KEY is not the key that the stored tokens were sealed with: put the old key back, "
                "or delete the portal's row in oauth_tokens and authorise the application again."
            )
        else:
            return values
        raise failure


async def lock(connection: Connection, portal: str) -> None:
    """Hold the portal's tokens until this transaction ends; others wait here."""
    await connection.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"dialog_assets/oauth_tokens/{portal}"]
    )


async def load(connection: Connection, portal: str, seal: Seal) -> tuple[int, dict[str, str]] | None:
    """(version, values) as stored last, or None. Raises UnusableKey."""
    cursor = await connection.execute("SELECT version, sealed FROM oauth_tokens WHERE portal = %s", [portal])
    row = await cursor.fetchone()
    return (row["version"], seal.open(row["sealed"])) if row is not None else None


async def store(connection: Connection, portal: str, seal: Seal, version: int, values: Mapping[str, str]) -> None:
    """Replace the portal's tokens."""
    await connection.execute(
        """
        INSERT INTO oauth_tokens (portal, version, sealed) VALUES (%s, %s, %s)
        ON CONFLICT (portal) DO UPDATE SET version = excluded.version, sealed = excluded.sealed, updated_at = now()
        """,
        [portal, version, seal.close(values)],
    )
