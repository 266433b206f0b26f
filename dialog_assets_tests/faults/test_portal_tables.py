"""Four assets over a portal that fails, changes and moves: the tables of a calm night.

Here: what test_faults.py's week does not have: applications, both families of the CRM, blocked methods, a portal that
moves, calls that change meanwhile.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack
from datetime import date, timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet

from dialog_assets.assets.audio_files import archive_recordings
from dialog_assets.assets.calls import read_calls
from dialog_assets.assets.entities import read_entities
from dialog_assets.assets.steps import StepRun
from dialog_assets.assets.users import read_users
from dialog_assets.bitrix24 import operating, retries
from dialog_assets.bitrix24.families import CrmFamily
from dialog_assets.cli.world import SandboxProcess, pointed_at
from dialog_assets.portals import Portal
from dialog_assets.resources.bitrix24 import Bitrix24Resource
from dialog_assets.resources.s3 import ArchiveResource
from dialog_assets.sandbox.bitrix24_habits import Habits
from dialog_assets.store.pool import open_pool
from dialog_assets_tests.assets.portal_on_a_socket import okna_sever
from dialog_assets_tests.databases import copy_of
from dialog_assets_tests.faults import portal_scripts as scripts
from dialog_assets_tests.faults.portal import CREDENTIALS, FAMILIES, FIRST, NAME, OWNERS, CredentialKind, Site, site
from dialog_assets_tests.faults.support import Snapshot, differences, snapshot

pytestmark = pytest.mark.xdist_group("struck_nights")  # what they are compared with is made once

DAYS = 2
CALLS = 500
NIGHT = tuple(FIRST.date() + timedelta(days=number) for number in range(-1, DAYS + 2))
PHASES = {"calls": "calls", "users": "users", "entities": "entities", "audio_files": "recordings"}
TABLES = ("calls", "users", "entities", "entity_deals", "audio_files")

Before = Callable[[str], None]


@pytest.fixture(scope="module")
def hurry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Pauses of milliseconds, how long they are, other tests know; a key that seals tokens; recordings pass here only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("recordings")))
        for module, name in ((retries, "BUCKET_S"), (retries, "BACKOFF_S"), (operating, "UNKNOWN_RESET_S")):
            patch.setattr(module, name, 0.01)
        patch.setenv("DIALOG_ASSETS_SECRET_KEY", Fernet.generate_key().decode())
        yield


@pytest.fixture(scope="module")
def calm(postgres: str, sandbox_world: SandboxProcess, hurry: None) -> dict[CrmFamily, Snapshot]:
    """The tables of one undisturbed night, when all changes have happened."""
    found: dict[CrmFamily, Snapshot] = {}
    for family in FAMILIES:
        sandbox_world.post("/reset")
        with copy_of(postgres) as database, pointed_at(sandbox_world):

            async def go(family: CrmFamily = family, database: str = database) -> None:
                async with small_site() as portal:
                    portal.server.set_events([{**change, "after": None} for change in changes(portal)])
                    await one_night(portal, database, configured("webhook", family))

            asyncio.run(go())
            found[family] = snapshot(database, okna_sever().portal)
    return found


def small_site() -> AbstractAsyncContextManager[Site]:
    """500 calls of two days, some of leads and companies, 16 recordings."""
    return site(Habits(operating_window=0.05), calls=CALLS, days=DAYS, recordings=16, recording_size=100_000)


def configured(credential: CredentialKind, family: CrmFamily) -> Portal:
    """Okna_sever with a credential and a family, and with a bucket that is never full."""
    names = {"client_id": "FAULTY_CLIENT_ID", "client_secret": "FAULTY_CLIENT_SECRET"}
    by: dict[str, Any] = (
        {"webhook": "FAULTY_WEBHOOK"}
        if credential == "webhook"
        else {"oauth": {**names, "refresh_token": "FAULTY_REFRESH_TOKEN"}}
    )
    settings = {**by, "crm": family, "bucket_size": 10**6, "drain_per_second": 10**6}
    return Portal.model_validate({**okna_sever().model_dump(), "bitrix24": settings})


async def one_night(found: Site, database: str, portal: Portal, before: Before = lambda step: None) -> None:
    """The four steps over all days, as their assets do them; `before` is called before each."""

    async def day_done(_: date) -> None:
        return None

    app = found.server.oauth.apps[NAME]
    resource = Bitrix24Resource()
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("FAULTY_WEBHOOK", found.webhook)
        patch.setenv("FAULTY_CLIENT_ID", app.client_id)
        patch.setenv("FAULTY_CLIENT_SECRET", app.client_secret)
        patch.setenv("FAULTY_REFRESH_TOKEN", found.server.oauth.first_tokens(NAME)[1])
        patch.setenv("BITRIX24_TOKEN_URL", f"{found.base}/oauth/token/")
        async with open_pool(database, size=4) as pool:
            for step in PHASES:
                before(step)
                run = StepRun(portal, step, NIGHT, pool, day_done)
                if step == "audio_files":
                    await archive_recordings(run, resource, ArchiveResource().open())
                else:
                    await {"calls": read_calls, "users": read_users, "entities": read_entities}[step](run, resource)


def changes(found: Site, chance: random.Random | None = None) -> list[dict[str, Any]]:
    """What happens among the calls in the first night, always the same; when, `chance` says."""
    ids = list(found.server.portals[NAME].calls.ids)
    links = [
        {
            "portal": NAME,
            "kind": "change",
            "call": call,
            "fields": {"CRM_ENTITY_TYPE": ("LEAD", "COMPANY")[number % 2], "CRM_ENTITY_ID": str(1 + number // 2)},
        }
        for number, call in enumerate(ids[:: CALLS // (2 * OWNERS)])
    ]
    late = [change for change in scripts.changes_of_calls(random.Random(0), NAME, ids) if change["kind"] != "delete"]
    return [*links, *({**one, "times": 1, "after": chance.randint(0, 8) if chance else None} for one in late)]


@pytest.mark.parametrize("seed", range(4))
def test_two_struck_nights_give_the_tables_of_a_calm_one(
    seed: int, calm: dict[CrmFamily, Snapshot], database: str, sandbox: SandboxProcess
) -> None:
    """Faults at random in both nights, changes in the first, a new address in the second: what a calm night gives."""
    chance = random.Random(seed)
    credential, family = CREDENTIALS[seed % 2], FAMILIES[seed // 2]
    portal = configured(credential, family)

    async def go() -> dict[str, int]:
        async with small_site() as found:

            def disturb(step: str) -> None:
                found.faults.set(scripts.passing(chance, PHASES[step], oauth=credential == "oauth"))
                if step == "audio_files":
                    found.server.set_habits({"renamed_to": (found.base, found.renamed)[night]}, NAME)

            for night in range(2):
                found.server.set_events([] if night else changes(found, chance))
                await one_night(found, database, portal, disturb)
            return found.items("fault")

    faults = asyncio.run(go())
    found = snapshot(database, portal.portal)
    assert differences(found, calm[family]) == []
    assert len(faults) >= 3
    assert {table: len(found[table]) > 10 for table in TABLES} == dict.fromkeys(TABLES, True)
