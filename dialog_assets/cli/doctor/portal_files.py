"""Doctor's look at portals that the database knows and that no file describes."""

from __future__ import annotations

from functools import partial

from dialog_assets.cli.doctor.examination import Check, Context, Finding
from dialog_assets.cli.leftovers import without_file
from dialog_assets.portals import PortalsError, portals_folder, readable_portals
from dialog_assets.store import rules


def checks(context: Context) -> list[Check]:
    """One check of all portals together."""
    return [Check("portals without a file", partial(_left, context))]


async def _left(context: Context) -> list[Finding]:
    async with context.database().connection() as connection:
        known = await rules.portals(connection)
    try:
        described = {portal.portal for portal in readable_portals(portals_folder())[0]}
    except PortalsError:
        described = set()
    return [
        Finding("portals without a file", "warn", without_file(name))
        for name in sorted(known - described - {portal.portal for portal in context.portals})
    ] or [Finding("portals without a file", "ok", "none")]
