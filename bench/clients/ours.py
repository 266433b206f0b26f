"""Our client: dialog_assets.bitrix24 with the bucket of one process."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Coroutine
from contextlib import aclosing
from datetime import datetime
from importlib import import_module
from typing import Any

import httpx2

from bench.clients.measured import Job, Tally, main
from dialog_assets.bitrix24 import reading
from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.families import id_filter, list_command
from dialog_assets.bitrix24.pacing import LeakyBucket
from dialog_assets.bitrix24.paging import COMMANDS, PAGE, Command, chunks, command_text
from dialog_assets.bitrix24.recordings import Recordings, Wanted

LOCATED_AT_ONCE = 50
"""Recordings whose places one request finds, as the asset does it."""


def ready() -> None:
    """Do what the peers' libraries do when they are imported: load the modules of a connection, read the certificates."""
    Bitrix24Client("http://127.0.0.1/rest/1/nowhere/", pacer=LeakyBucket(1, 1.0))
    import_module("anyio._backends._asyncio")


def _client(job: Job) -> Bitrix24Client:
    pacer = LeakyBucket(job["bucket_size"], job["drain_per_second"])
    return Bitrix24Client(f"{job['http']}/rest/{job['webhook']}/", pacer=pacer)


async def _calls(job: Job, tally: Tally) -> None:
    window = (datetime.fromisoformat(job["start"]), datetime.fromisoformat(job["end"]))
    async with _client(job) as client, aclosing(reading.calls(client, *window)) as pages:
        async for page in pages:
            tally.add(int(row["ID"]) for row in page)


async def _contacts(job: Job, tally: Tally) -> None:
    async with _client(job) as client:
        async with aclosing(reading.crm(client, "contact", job["ids"])) as chunks:
            async for found, _ in chunks:
                tally.add(found)
        deals = reading.Deals(client, "contact", tally.ids)
        async with aclosing(deals.pages()) as pages:
            async for page in pages:
                tally.related += len(page)
    if sum(len(some) for some in deals.by_owner.values()) != tally.related:
        raise ValueError("a deal has no owner")


async def _users(job: Job, tally: Tally) -> None:
    async with _client(job) as client, aclosing(reading.users(client, job["ids"])) as chunks:
        async for found, _ in chunks:
            tally.add(found)


async def _fewest(job: Job, tally: Tally) -> None:
    """Contacts by id and deals by known ranges of ids, all requests at once; the answers' bytes are counted, not read."""
    pages = [list_command("contact", "classic", id_filter("classic", some)) for some in chunks(job["ids"], PAGE)]
    deals = [list_command("deal", "classic", {">ID": low, "<=ID": high}) for low, high in job["deal_pages"]]
    batches = [*chunks(pages, COMMANDS), *chunks(deals, COMMANDS)]
    async with httpx2.AsyncClient(timeout=60) as http:

        async def send(batch: list[Command]) -> None:
            body = {"halt": 0, "cmd": {f"c{number}": command_text(one) for number, one in enumerate(batch)}}
            url = f"{job['http']}/rest/{job['webhook']}/batch.json"
            async with http.stream("POST", url, json=body) as answer:
                async for part in answer.raise_for_status().aiter_raw():
                    tally.bytes += len(part)

        async with asyncio.TaskGroup() as group:
            for batch in batches:
                group.create_task(send(batch))
    tally.add(job["ids"])
    tally.related = job["deals"]


async def _recordings(job: Job, tally: Tally) -> None:
    async with _client(job) as client:
        recordings, slots = Recordings(client), asyncio.Semaphore(job["concurrency"])

        async def one(wanted: Wanted, found: Any) -> None:
            async with slots:
                fetched = await recordings.fetch(wanted, found, io.BytesIO())
            tally.bytes += fetched.bytes
            tally.add([wanted.call_id])

        async with asyncio.TaskGroup() as group:
            for start in range(0, len(job["ids"]), LOCATED_AT_ONCE):
                some = [Wanted(number, file_id=number) for number in job["ids"][start : start + LOCATED_AT_ONCE]]
                places = await recordings.locate(some)
                for wanted in some:
                    group.create_task(one(wanted, places[wanted.call_id]))


def _run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


if __name__ == "__main__":
    main(
        {
            "calls": lambda job, tally: _run(_calls(job, tally)),
            "contacts": lambda job, tally: _run(_contacts(job, tally)),
            "users": lambda job, tally: _run(_users(job, tally)),
            "fewest": lambda job, tally: _run(_fewest(job, tally)),
            "recordings": lambda job, tally: _run(_recordings(job, tally)),
        },
        ready,
    )
