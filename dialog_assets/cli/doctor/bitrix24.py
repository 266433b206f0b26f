"""Doctor's look at the portals themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial

from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.downloads import Place
from dialog_assets.bitrix24.errors import Bitrix24AccessError, Bitrix24DataError, Bitrix24RequestError
from dialog_assets.bitrix24.outside import OutsideHosts
from dialog_assets.bitrix24.own_links import ForeignLinkError, own_link
from dialog_assets.bitrix24.recordings import Recordings, Wanted
from dialog_assets.bitrix24.rows import readable_part
from dialog_assets.bitrix24.wire import Fields, rows_of
from dialog_assets.cli.doctor.examination import Check, Context, Unwell
from dialog_assets.portals import Portal
from dialog_assets.redaction import host_only
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
        told = list(answer.result.values()) if isinstance(answer.result, Mapping) else answer.result
        if not isinstance(told, list):
            raise Unwell("the portal does not tell the credential's scopes: check that the webhook URL leads to it.")
        scopes = {str(scope) for scope in told}
        missing = sorted(SCOPES - scopes)
        if not scopes & USER_SCOPES:
            missing.append("user_basic")
        if missing:
            raise Unwell(f"the credential lacks the scopes {', '.join(missing)}: add them in the portal.")
        recent = await _recent(client, portal)
    return f"credential of {portal.bitrix24.credentials[0]} is accepted; scopes are enough; {sees}; {recent}"


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


async def _recent(client: Bitrix24Client, portal: Portal) -> str:
    """The newest calls read as a night reads them, and where the link of a recording leads. Raises Unwell."""
    params = {"SORT": "ID", "ORDER": "DESC", "start": 0}
    method = "voximplant.statistic.get"
    calls = [readable_part(row)[0] for row in rows_of(method, (await client.call(method, params)).result)]
    hosts = OutsideHosts(portal.bitrix24.record_hosts)
    linked = [host_only(call.record_url) for call in calls if call.record_url and call.record_file_id is None]
    closed = Counter(link for link in linked if not (link.startswith("https://") and hosts.names(link)))
    told = [f"the newest {len(calls)} calls can be read"]
    told += [
        f"{number} of them have a recording at {link}, which record_hosts does not allow"
        for link, number in closed.items()
    ]
    on_disk = next((call for call in calls if call.record_file_id is not None), None)
    if on_disk is not None:
        wanted = Wanted(on_disk.call_id, on_disk.record_file_id)
        place = (await Recordings(client).locate([wanted]))[on_disk.call_id]
        if isinstance(place, Place):
            try:
                own_link(place.url, client.origin, client.link_hosts)
            except ForeignLinkError as error:
                raise Unwell(
                    f"the portal's links name the host {error.host}: correct the portal's own address in its settings, or, if "
                    "it is the same portal, name it under bitrix24.link_hosts."
                ) from None
            told.append("links to its recordings lead to it")
    return "; ".join(told)
