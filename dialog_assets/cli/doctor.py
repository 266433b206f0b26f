"""`dialog-assets doctor`: every place that a night depends on, asked with the real credentials, without buying anything."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

import httpx2

from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.errors import Bitrix24AccessError, Bitrix24DataError, Bitrix24RequestError
from dialog_assets.bitrix24.wire import Fields
from dialog_assets.errors import DialogAssetsError
from dialog_assets.portals import ModelChoice, Portal
from dialog_assets.resources.bitrix24 import Bitrix24Resource
from dialog_assets.resources.environment import required
from dialog_assets.resources.s3 import ArchiveResource
from dialog_assets.resources.s3_exposure import exposure
from dialog_assets.resources.voicekit import VoiceKitResource
from dialog_assets.speech.port import Label
from dialog_assets.store import rules, server
from dialog_assets.store.pool import Pool, open_pool

SCOPES = {"telephony", "disk", "crm"}
USER_SCOPES = {"user", "user_basic", "user_brief"}


@dataclass(frozen=True)
class Finding:
    """What was looked at, whether it is well, and a sentence."""

    what: str
    ok: bool
    told: str


async def examine(portals: Sequence[Portal]) -> list[Finding]:
    """Look at everything that `portals` need."""
    findings = [Finding("portal files", True, ", ".join(portal.portal for portal in portals))]
    try:
        url = server.database_url()
    except DialogAssetsError as error:
        return [*findings, Finding("Postgres", False, str(error))]
    choices = {
        (choice.vendor, choice.api_key_env): choice
        for portal in portals
        for choice in (portal.llm.correction, portal.llm.classification, portal.llm.criteria, portal.llm.summary)
    }
    async with open_pool(url, size=2) as pool:
        checks: list[tuple[str, Awaitable[str]]] = [
            ("Postgres", _postgres(pool, portals)),
            *((f"Bitrix24 {portal.portal}", _bitrix24(pool, portal)) for portal in portals),
            ("S3 archive", _archive()),
            ("VoiceKit", _voicekit()),
            *((f"LLM {choice.vendor}", _llm(choice)) for choice in choices.values()),
        ]
        return [*findings, *await asyncio.gather(*(_finding(what, check) for what, check in checks))]


async def _finding(what: str, check: Awaitable[str]) -> Finding:
    try:
        return Finding(what, True, await check)
    except DialogAssetsError as error:
        return Finding(what, False, str(error))


class Unwell(DialogAssetsError):
    """A check that failed."""


async def _postgres(pool: Pool, portals: Sequence[Portal]) -> str:
    async with pool.connection() as connection:
        known = await rules.portals(connection)
        version = connection.info.server_version // 10000
    missing = [portal.portal for portal in portals if portal.portal not in known]
    if missing:
        raise Unwell(f"no tables for {', '.join(missing)}: run dialog-assets setup-portals.")
    return f"version {version}, tables for {', '.join(sorted(known))}"


async def _bitrix24(pool: Pool, portal: Portal) -> str:
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


async def _archive() -> str:
    archive = ArchiveResource().open()
    await archive.check()
    await archive.check_writing()
    found = await exposure(archive)
    if found.ways:
        raise Unwell(
            f"bucket {archive.bucket} is open to the world ({', '.join(found.ways)}): close it, it holds people's voices."
        )
    told = [f"bucket {archive.bucket} can be read and written"]
    told.append(f"not public, but it does not tell its {', '.join(found.untold)}" if found.untold else "not public")
    if found.drops_parts is False:
        told.append("a lifecycle rule AbortIncompleteMultipartUpload would end what killed uploads leave")
    return "; ".join(told)


async def _voicekit() -> str:
    async with VoiceKitResource().recogniser() as recogniser:
        await recogniser.find(Label("doctor", "doctor"))
    return "key and secret are accepted"


async def _llm(choice: ModelChoice) -> str:
    """Ask for the vendor's list of models, which is free."""
    from dialog_assets.llm.router import DEFAULT_BASE_URLS

    key = required(choice.api_key_env, f"the API key of {choice.vendor}")
    base = os.environ.get(f"{choice.vendor.upper()}_BASE_URL") or DEFAULT_BASE_URLS[choice.vendor]
    anthropic = {"anthropic-version": "2026-10-21"} if choice.vendor == "anthropic" else {}
    path = "/v1/models" if choice.vendor == "anthropic" else "/models"
    async with httpx2.AsyncClient(timeout=20) as client:
        try:
            answer = await client.get(base.rstrip("/") + path, headers={"Authorization": f"Bearer {key}", **anthropic})
        except httpx2.HTTPError as error:
            raise Unwell(f"{choice.vendor} does not answer ({type(error).__name__}): check the network.") from None
    if answer.status_code in (401, 403):
        raise Unwell(f"{choice.vendor} refuses the key in {choice.api_key_env} (HTTP {answer.status_code}).")
    if answer.status_code != httpx2.codes.OK:
        raise Unwell(f"{choice.vendor} answers HTTP {answer.status_code} to the list of models: try again later.")
    return f"key in {choice.api_key_env} is accepted"
