"""What a person sees while a run works: how far its calls have come and what it has bought, on stderr.

On a terminal one line that changes, elsewhere a plain line now and then. It looks at the database only, so it tells as well of
a run that works in another process.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import psycopg
from psycopg_pool import PoolTimeout

from dialog_assets.cli.tables import console
from dialog_assets.errors import DialogAssetsError
from dialog_assets.portals import Portal
from dialog_assets.store import call_steps, ledger
from dialog_assets.store.pool import open_pool

LOOK_EVERY_S = 1.0
LINE_EVERY_S = 15.0
"""How often a pipe gets a line."""
SHARE = 20
"""A look may take one part in so many of the time between two looks: large ranges are counted less often."""


@dataclass
class Watch:
    """A run that is being watched; `bought` is filled when the watch is over: recognitions, requests, cost_rub."""

    url: str
    portal: str
    first: date
    last: date
    bought: dict[str, Any] = field(default_factory=dict)
    _since: datetime | None = None

    async def begin(self) -> None:
        """Remember the database's time: what is bought from now on belongs to the run."""
        async with open_pool(self.url, size=1) as pool, pool.connection() as connection:
            self._since = (await ledger.bought_since(connection, self.portal, None))["now"]

    async def look(self) -> str:
        """How the run stands, in a line."""
        async with open_pool(self.url, size=1) as pool, pool.connection() as connection:
            steps = await call_steps.standing(connection, self.portal, self.first, self.last)
            self.bought = await ledger.bought_since(connection, self.portal, self._since)
        worked_on = [step for step in steps if self._since is not None and step["touched_at"] >= self._since]
        cost = f"{self.bought['cost_rub']:.2f} RUB"
        if not worked_on:
            return f"{self.portal}: {cost}"
        step = worked_on[-1]
        ended = step["done"] + step["skipped"]
        others = [f"{step[state]} {state}" for state in ("failed", "waiting") if step[state]]
        counts = ", ".join([f"{ended} of {step['calls']} calls", *others])
        return f"{self.portal}/{step['step']}: {counts}; {cost}"


@contextmanager
def watched(url: str, portal: Portal, first: date, last: date, *, shown: bool = True) -> Iterator[Watch]:
    """Show how the calls of the portal's days come along while the body runs them, and count what it buys."""
    watch = Watch(url, portal.portal, first, last)
    asyncio.run(watch.begin())
    over = threading.Event()
    screen = threading.Thread(target=_show, args=(watch, over), daemon=True) if shown else None
    if screen is not None:
        screen.start()
    try:
        yield watch
    finally:
        over.set()
        if screen is not None:
            screen.join()
    asyncio.run(watch.look())


def _show(watch: Watch, over: threading.Event) -> None:
    """A thread of its own, since Dagster's run blocks this process's first one."""
    out = console(stderr=True)
    told = f"{watch.portal}: days {watch.first} to {watch.last}"
    next_line = time.monotonic() + LINE_EVERY_S
    pause = LOOK_EVERY_S
    status = out.status(told) if out.is_terminal else None
    if status is not None:
        status.start()
    try:
        while not over.wait(pause):
            began = time.monotonic()
            try:
                line = asyncio.run(watch.look())
            except (DialogAssetsError, psycopg.Error, PoolTimeout):
                continue  # the run itself tells of a database that is away
            pause = max(LOOK_EVERY_S, SHARE * (time.monotonic() - began))
            if status is not None:
                status.update(line)
            elif line != told and time.monotonic() >= next_line:
                out.print(line)
                next_line = time.monotonic() + LINE_EVERY_S
            told = line
    finally:
        if status is not None:
            status.stop()
