"""The application database as a Dagster resource."""

from __future__ import annotations

import dagster as dg
from pydantic import PrivateAttr

from dialog_assets.store import server


class PostgresResource(dg.ConfigurableResource[None]):
    """Postgres of DATABASE_URL, or the embedded one. `url` is known once the run has begun."""

    pool_size: int = 8
    _url: str = PrivateAttr("")

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002 - Dagster's signature
        """Find (or start) the server; raises DatabaseUnreachable."""
        self._url = server.database_url_in_time()

    @property
    def url(self) -> str:
        """The database's URL; holds a password, so never for a log."""
        return self._url
