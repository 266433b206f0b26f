"""A proxy before a Postgres that cuts connections at seeded moments, and right where a COMMIT has no answer yet."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from dialog_assets.store import addresses

ASKS = b"INSERT INTO ledger"
COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"
KINDS = ("commit lost", "commit done, answer lost", "commit sent, then cut", "all cut while answers are in flight")
LONGEST_DELAY_S = 0.2
"""All connections are cut up to this long after a question to a vendor was written down: it is sent right after that."""


class Cutter:
    """Cuts about one of `one_of` commits in one of the ways of KINDS, `each` times a way; the same for a seed.

    `cuts`: how often it has cut, by kind. `in_flight`: how many questions to vendors stood open when all was cut.
    `goes_away_at`: the number of the commit from which on nothing answers any more.
    """

    def __init__(self, url: str, seed: int, *, one_of: int, each: int) -> None:
        self.cuts: Counter[str] = Counter()
        self.in_flight = 0
        self.commits = 0
        self.goes_away_at: int | None = None
        self._direct = url
        self._found = addresses.parts(url)
        self._chance = random.Random(seed)
        self._one_of = one_of
        self._each = each
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def listen(self) -> str:
        """The address through it."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = str(self._server.sockets[0].getsockname()[1])
        return addresses.url({**self._found, "host": "127.0.0.1", "port": port})

    def away(self) -> None:
        """Nothing answers from here on."""
        if self._server is not None:
            self._server.close()
        self.cut_all()

    def cut_all(self) -> None:
        """Cut every connection that there is."""
        for pair in list(self._pairs):
            self._cut(*pair)

    def _cut(self, *writers: asyncio.StreamWriter) -> None:
        for writer in writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._found["host"], self._found.get("port", "5432")
        if host.startswith("/"):
            answers, server = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            answers, server = await asyncio.open_connection(host, int(port))
        pair = (writer, server)
        self._pairs.add(pair)
        swallow = asks = False

        async def there() -> None:
            nonlocal swallow, asks
            while data := await reader.read(65536):
                asks = asks or ASKS in data
                commits = data.endswith(COMMIT)
                fate = self._fate(KINDS if asks else KINDS[:-1]) if commits else None
                asks = asks and not commits
                if fate == KINDS[0]:
                    return
                swallow = swallow or fate == KINDS[1]
                server.write(data)
                await server.drain()
                if fate == KINDS[2]:
                    return
                if fate == KINDS[3]:
                    task = asyncio.create_task(self._cut_all_later(self._chance.uniform(0, LONGEST_DELAY_S)))
                    self._tasks.add(task)

        async def back() -> None:
            while (data := await answers.read(65536)) and not swallow:
                writer.write(data)
                await writer.drain()

        ways = [asyncio.ensure_future(there()), asyncio.ensure_future(back())]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        self._cut(*pair)
        await asyncio.gather(*ways, return_exceptions=True)
        self._pairs.discard(pair)

    def _fate(self, kinds: tuple[str, ...]) -> str | None:
        self.commits += 1
        if self.goes_away_at is not None and self.commits >= self.goes_away_at:
            self.away()
            return KINDS[0]
        left = [kind for kind in kinds if self.cuts[kind] < self._each]
        if not left or self._chance.randrange(self._one_of):
            return None
        kind = self._chance.choice(left)
        self.cuts[kind] += 1
        return kind

    async def _cut_all_later(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        async with await psycopg.AsyncConnection.connect(self._direct) as connection:
            cursor = await connection.execute(
                "SELECT count(*) FROM ledger WHERE state = 'asked' AND prompt IS NOT NULL"
            )
            row = await cursor.fetchone()
        self.in_flight += row[0] if row else 0
        self.cut_all()


@contextmanager
def cutting(cutter: Cutter) -> Iterator[str]:
    """The address through the cutter, which works in a thread of its own until the context ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(cutter.listen(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(cutter.away)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
