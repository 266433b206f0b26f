"""What a database can be in the way of, told to people."""

from __future__ import annotations

from dialog_assets.errors import DialogAssetsError


class DatabaseUnreachable(DialogAssetsError):
    """No Postgres answers where one was promised."""
