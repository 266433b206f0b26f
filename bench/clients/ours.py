"""Our client: dialog_assets.bitrix24 with the bucket of one process."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Coroutine
from contextlib import aclosing
from datetime import datetime
from typing import Any

from bench.clients.measured import Job, Tally, main
from dialog_assets.bitrix24 import reading
from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.pacing import LeakyBucket
from dialog_assets.bitrix24.recordings import Recordings, Wanted

LOCATED_AT_ONCE = 50
"""Recordings whose places one request finds, as the asset does it."""


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
        found = await reading.crm(client, "contact", job["ids"])
        tally.add(found)
        deals = await reading.deals(client, "contact", found)
        tally.related = sum(len(some) for some in deals.values())


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
            "recordings": lambda job, tally: _run(_recordings(job, tally)),
        }
    )
