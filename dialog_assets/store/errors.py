"""The errors of the store that are meant for people."""

from dialog_assets.errors import DialogAssetsError


class DatabaseUnreachable(DialogAssetsError):
    """No Postgres answers where one was promised."""


class UnsuitableDatabase(DatabaseUnreachable):
    """A Postgres answers, but what is there cannot be worked with."""


class LockLost(DialogAssetsError):
    """Another run has taken over a step that this one was working on."""
