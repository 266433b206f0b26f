"""Doctor's look at the portals themselves."""

from __future__ import annotations

from functools import partial

from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.errors import Bitrix24AccessError, Bitrix24DataError, Bitrix24RequestError
from dialog_assets.bitrix24.wire import Fields
from dialog_assets.cli.doctor.examination import Check, Context, Unwell
from dialog_assets.portals import Portal
from dialog_assets.resources.bitrix24 import Bitrix24Resource
from dialog_assets.store.pool import Pool

SCOPES = {"telephony", "disk", "crm"}
USER_SCOPES = {"user", "user_basic", "user_brief"}


def checks(context: Context) -> list[Check]:
    """One check a portal."""
    return [Check(f"Bitrix24 {portal.portal}", partial(_credential, context, portal)) for portal in context.portals]


async def _credential(context: Context, portal: Portal) -> str:
    return await credential(context.database(), portal)


async def credential(pool: Pool, portal: Portal) -> str:
    """Whether the portal takes the credential, with the scopes that a night needs. Raises Unwell."""
    async with Bitrix24Resource().client(portal, pool) as client:
        answer = await client.call("scope", {})
        sees = await _sees(client)
    scopes = set(answer.result)
    missing = sorted(SCOPES - scopes)
    if not scopes & USER_SCOPES:
        missing.append("user_basic")
    if missing:
        raise Unwell(f"the credential lacks the scopes {', '.join(missing)}: add them in the portal.")
    return f"credential of {portal.bitrix24.credentials[0]} is accepted; scopes are enough; {sees}"


async def _sees(client: Bitrix24Client) -> str:
    """Whose calls the credential shows: the portal hides those that its user may not see without a word (`profile`)."""
    try:
        profile = Fields("profile", (await client.call("profile", {})).result)
        admin = profile.flag("ADMIN", default=False)
    except (Bitrix24AccessError, Bitrix24RequestError, Bitrix24DataError) as error:
        return f"whether its user is an administrator is not known ({error.code})"
    if admin:
        return "its user is an administrator"
    return (
        'its user is NOT an administrator: unless its role has the right "Call statistics - View" for all employees, the '
        "portal shows and counts the calls of some only; compare a day with the statistics that an administrator sees"
    )
