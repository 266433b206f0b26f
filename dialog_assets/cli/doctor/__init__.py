"""`dialog-assets doctor`: does on a small scale, with the real credentials and free of charge, what a night does (rule 10).

Here: which checks there are, in which order. Each service has a module with its checks; `examination` runs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

from dialog_assets.cli.doctor import (
    archive,
    bitrix24,
    database,
    folders,
    models,
    network,
    portal_files,
    recordings,
    voicekit,
)
from dialog_assets.cli.doctor.examination import Check, Context, Finding, examine_all
from dialog_assets.errors import DialogAssetsError
from dialog_assets.portals import Portal
from dialog_assets.store import server
from dialog_assets.store.pool import open_pool

__all__ = ["Check", "Context", "Finding", "examine"]


async def examine(portals: Sequence[Portal], mistakes: Sequence[str] = ()) -> list[Finding]:
    """Look at everything that a night of `portals` needs; `mistakes` are those of the portal files that cannot be used."""
    findings = [Finding("portal files", "ok", ", ".join(portal.portal for portal in portals))] if portals else []
    findings += [Finding("portal files", "fail", mistake) for mistake in mistakes]
    async with AsyncExitStack() as stack:
        pool = None
        try:
            pool = await stack.enter_async_context(open_pool(server.database_url(), size=4))
        except DialogAssetsError as error:
            findings.append(Finding("Postgres", "fail", str(error)))
        return [*findings, *await examine_all(checks(Context(portals, pool)))]


def checks(context: Context) -> list[Check]:
    """Every check, in the order in which its findings are shown."""
    return [
        *folders.checks(context),
        *(database.checks(context) if context.pool is not None else ()),
        *(portal_files.checks(context) if context.pool is not None else ()),
        *network.checks(context),
        *bitrix24.checks(context),
        *archive.checks(context),
        *recordings.checks(context),
        *voicekit.checks(context),
        *models.checks(context),
    ]
