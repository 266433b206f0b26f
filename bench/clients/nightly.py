"""Our client as a nightly run has it: the portal's bucket in Postgres, and the step that writes what it reads."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import aclosing
from datetime import date, datetime, timedelta
from pathlib import Path

from bench.clients.measured import Job, Tally, main
from bench.clients.ours import ready
from dialog_assets.assets.calls import read_calls
from dialog_assets.assets.steps import StepRun
from dialog_assets.bitrix24 import reading
from dialog_assets.portals import Portal, load_portals
from dialog_assets.resources.bitrix24 import Bitrix24Resource
from dialog_assets.store.pool import Pool, open_pool

PORTALS = Path(__file__).parents[2] / "portals"
LOOK_EVERY_S = 0.25


def _portal(job: Job) -> Portal:
    portal = next(one for one in load_portals(PORTALS) if one.portal == job["portal"])
    os.environ[portal.bitrix24.webhook or ""] = f"{job['http']}/rest/{job['webhook']}/"
    return portal


async def _stored(job: Job, tally: Tally) -> None:
    first, last = (datetime.fromisoformat(job[end]).date() for end in ("start", "end"))
    days = (first, last - timedelta(days=1))

    async def day_done(_: date) -> None:
        return None

    async with open_pool(job["database"], size=4) as pool:
        watch = asyncio.create_task(_watch(pool, tally))
        await read_calls(StepRun(_portal(job), "calls", days, pool, day_done), Bitrix24Resource())
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
    half = (time.perf_counter() - tally.begun) / 2
    tally.more["half"] = max((rows for moment, rows in tally.seen if moment <= half), default=0)


async def _watch(pool: Pool, tally: Tally) -> None:
    """Note how many rows another connection sees, while there is something to read."""
    while True:
        async with pool.connection() as connection:
            cursor = await connection.execute("SELECT count(*) AS rows FROM calls")
            row = await cursor.fetchone()
        rows = row["rows"] if row else 0
        moment = time.perf_counter() - tally.begun
        tally.seen.append((moment, rows))
        if rows and tally.first_s is None:
            tally.first_s = moment
        await asyncio.sleep(LOOK_EVERY_S if rows else LOOK_EVERY_S / 10)


async def _shared(job: Job, tally: Tally) -> None:
    window = (datetime.fromisoformat(job["start"]), datetime.fromisoformat(job["end"]))
    async with (
        open_pool(job["database"], size=4) as pool,
        Bitrix24Resource().client(_portal(job), pool) as client,
        aclosing(reading.calls(client, *window)) as pages,
    ):
        async for page in pages:
            tally.add(int(row["ID"]) for row in page)


if __name__ == "__main__":
    main(
        {
            "stored": lambda job, tally: asyncio.run(_stored(job, tally)),
            "shared": lambda job, tally: asyncio.run(_shared(job, tally)),
        },
        ready,
    )
