"""Doctor's look at the application database."""

from __future__ import annotations

from dialog_assets.cli.doctor.examination import Check, Context, Unwell
from dialog_assets.store import rules


def checks(context: Context) -> list[Check]:
    """One check of the database."""
    return [Check("Postgres", lambda: tables(context))]


async def tables(context: Context) -> str:
    """Whether every portal has its tables. Raises Unwell."""
    async with context.database().connection() as connection:
        known = await rules.portals(connection)
        version = connection.info.server_version // 10000
    missing = [portal.portal for portal in context.portals if portal.portal not in known]
    if missing:
        raise Unwell(f"no tables for {', '.join(missing)}: run dialog-assets setup-portals.")
    return f"version {version}, tables for {', '.join(sorted(known))}"
