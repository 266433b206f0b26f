"""Postgres for a measurement: a server of its own with the tables, gone when it ends."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dialog_assets.portals import Portal
from dialog_assets.store import embedded, schema, server


@contextmanager
def database(portals: Sequence[Portal]) -> Iterator[str]:
    """Its URL, with tables for these portals; this process's environment leads there."""
    with tempfile.TemporaryDirectory(prefix="dialog_assets_bench-", ignore_cleanup_errors=True) as folder:
        os.environ.pop("DATABASE_URL", None)
        os.environ["DIALOG_ASSETS_DATA"] = folder
        url = server.database_url()
        schema.setup_portals(url, portals)
        yield url
        embedded.let_go(Path(folder) / "postgres")
