"""What the suite of recognition under faults shares: recordings of a day, runs of the real step over them, what they left.

A run is `assets.transcripts.recognise` with Postgres and the sandbox's gRPC and storage. It may be dropped: at its n-th
dealing with the outside world everything in it ends, as if its process were gone.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest

from dialog_assets.assets.recognition_purchase import Purchase
from dialog_assets.assets.steps import StepRun
from dialog_assets.assets.transcripts import recognise
from dialog_assets.portals import Portal
from dialog_assets.resources.s3 import Archive
from dialog_assets.sandbox.voicekit import Behaviour
from dialog_assets.speech.port import poll_delays
from dialog_assets.speech.voicekit import VoiceKit
from dialog_assets.store import audio_files
from dialog_assets.store.pool import open_pool
from dialog_assets.worklist import StepStopped
from dialog_assets_tests.faults.kills import die_after
from dialog_assets_tests.speech.account import API_KEY, SECRET_KEY
from dialog_assets_tests.store.rows import MONDAY, PORTAL, Pool, Row, all_rows, call, put_calls, put_step

NUMBER = 4
STREAMS = 3
LONG_AGO = timedelta(hours=31)
CALM_DEADLINE_S = 60.0
"""Where nothing is silent, only a busy machine keeps an answer back."""

DEALINGS: dict[type, tuple[str, ...]] = {
    VoiceKit: ("upload", "submit", "find", "poll", "fetch", "recognise_at_once"),
    Purchase: (
        *("open", "take_slot", "free_slot", "ask", "ask_again", "accepted", "resumed"),
        *("answered", "failed", "not_taken", "close", "lose"),
    ),
}

_BEFORE = ("unavailable_before", "deadline_before", "internal", "aborted", "unknown", "exhausted", "unauthenticated")
_AFTER = ("unavailable_after", "deadline_after", "internal_after", "aborted_after", "unknown_after", "silent_after")
KINDS: dict[str, tuple[str, ...]] = {
    "LongRunningRecognize": (
        *(*_BEFORE, *_AFTER, *_AFTER),
        *("failed", "failed", "slow_operation", "stuck", "empty", "blank", "order"),
    ),
    "Recognize": (*_BEFORE, *_AFTER, "empty", "order"),
    "GetOperation": (*_BEFORE, *_AFTER, "expired", "expired"),
    "ListOperations": (*_BEFORE, *_AFTER),
    "CancelOperation": _BEFORE,
    "PutObject": ("storage_unavailable", "storage_lost"),
    "HeadObject": ("storage_unavailable",),
}
VALUES: dict[str, tuple[Any, ...]] = {
    "failed": (13, 14, 5, 3),
    "slow_operation": (0.04,),
    "order": ("shuffled", "channel"),
    "stuck": (None, "enqueued"),
}


class Dropped(BaseException):
    """The run's process is gone."""


def script(chance: random.Random) -> list[dict[str, Any]]:
    """A random script of faults."""
    rules = []
    for label, kinds in KINDS.items():
        for kind in chance.sample(kinds, chance.randint(0, min(3, len(kinds)))):
            rule = {
                "service": "voicekit",
                "match": label,
                "kind": kind,
                "times": chance.randint(1, 2),
                "after": chance.randint(0, 4),
                "probability": chance.choice((0.3, 0.6, 1.0)),
                "seed": chance.randint(0, 1 << 30),
            }
            if kind in VALUES:
                rule["value"] = chance.choice(VALUES[kind])
            rules.append(rule)
    return rules


class Files(Archive):
    """The archive: recordings by their place in a list."""

    def __init__(self, recordings: list[Path]) -> None:
        super().__init__(None, "bucket")
        self._recordings = recordings

    async def get(
        self, key: str, path: Path, *, sha256: str, size: int | None = None, bucket: str | None = None
    ) -> None:
        """Copy the file."""
        shutil.copyfile(self._recordings[int(key)], path)


def _drop() -> None:
    raise Dropped


@contextmanager
def dropped_at(number: int, end: Callable[[], None] = _drop, *, of: str | None = None) -> Iterator[None]:
    """During the body the n-th dealing (`of` that name) with the world is the last: before it is done, or after, by turns."""
    left = number

    def doomed(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @wraps(method)
        async def dealing(*arguments: Any, **keywords: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                end()
            answer = await method(*arguments, **keywords)
            left -= 1
            if left == 0:
                end()
            return answer

        return dealing

    with pytest.MonkeyPatch.context() as patch:
        for kind, names in DEALINGS.items():
            for name in [one for one in names if of in (None, one)]:
                patch.setattr(kind, name, doomed(getattr(kind, name)))
        yield


@dataclass
class Day:
    """The recordings of one day, and runs over them."""

    pool: Pool
    portal: Portal
    recordings: list[Path]
    client: VoiceKit
    day: date
    first_call: int

    @property
    def calls(self) -> range:
        """The day's call ids."""
        return range(self.first_call, self.first_call + NUMBER)

    async def archive(self) -> None:
        """Put the recordings where the step before leaves them."""
        await put_calls(self.pool, *(call(number, self.day) for number in self.calls))
        for place, number in enumerate(self.calls):
            row: Row = {
                "record_source": "disk",
                "record_file_id": 1,
                "s3_bucket": "bucket",
                "s3_key": str(place),
                "sha256": f"sha{place}",
                "bytes": 1,
                "container": "mp3",
                "codec": "mp3",
                "sample_rate": 8000,
                "channels": 2,
                "bit_rate": None,
                "duration_s": Decimal(1),
                "peak_dbfs": [-3.0, -9.0],
            }
            async with self.pool.connection() as connection:
                await audio_files.put(connection, PORTAL, number, row)
            await put_step(self.pool, number, "audio_files", "done", output_key=f"sha{place}")

    async def run(self, patience_s: float) -> None:
        """One run of the step."""
        speech = self.portal.speech.model_copy(update={"patience_hours": patience_s / 3600, "concurrency": STREAMS})
        portal = self.portal.model_copy(update={"speech": speech})

        async def nothing(_: date) -> None: ...

        run = StepRun(portal, "transcripts", (self.day,), self.pool, nothing)
        delays = partial(poll_delays, 0.01, 0.1)
        await recognise(run, Files(self.recordings), self.client, streams=STREAMS, delays=delays, listed_within_s=0.05)

    async def drop(self, patience_s: float, at: int) -> None:
        """A run that is gone at its `at`-th dealing with the world, or ends before."""
        with dropped_at(at), suppress(Dropped):
            await self.disturbed(patience_s)

    async def disturbed(self, patience_s: float) -> None:
        """A run that faults may stop: a person starts the next one."""
        with suppress(StepStopped):
            await self.run(patience_s)

    async def time_passes(self, by: timedelta = timedelta(0)) -> None:
        """Until what waits, or failed in passing, is due; and so much more for what is at the vendor."""
        async with self.pool.connection() as connection:
            await connection.execute("UPDATE call_steps SET next_try = now() WHERE next_try IS NOT NULL")
            await connection.execute("UPDATE ledger SET asked_at = asked_at - %s WHERE state = 'asked'", [by])
            await connection.execute("UPDATE recogniser_slots SET ends_at = ends_at - %s", [by])

    async def rows(self, table: str) -> list[Row]:
        """The day's rows of call_steps (of the step) or ledger."""
        step = " AND step = 'transcripts'" if table == "call_steps" else ""
        query = f"SELECT * FROM {table} WHERE call_id BETWEEN %s AND %s{step}"
        return await all_rows(self.pool, query, self.calls[0], self.calls[-1])


def client(endpoint: str, storage_url: str, deadline_s: float = 1.0) -> VoiceKit:
    """A client of the service at these addresses; a service that is to be silent is waited for no longer than need be."""
    made = VoiceKit(
        endpoint,
        API_KEY,
        SECRET_KEY,
        storage_url,
        deadline_s=deadline_s,
        at_once_deadline_s=deadline_s,
        attempts=3,
        backoff_s=0.005,
    )
    made._inbound._attempts = 1  # boto3's own pauses cannot be shortened
    return made


@asynccontextmanager
async def day_without_faults(
    url: str, portal: Portal, recordings: list[Path], addresses: tuple[str, str], seed: int
) -> AsyncIterator[Day]:
    """The seed's day, with a service that only a busy machine keeps from answering."""
    async with open_pool(url, size=4) as pool, client(*addresses, deadline_s=CALM_DEADLINE_S) as voicekit:
        yield Day(pool, portal, recordings, voicekit, day_of(seed), first_call_of(seed))


def run_until_killed(of: str | None, at: int, delay_s: float, *day: Any) -> None:
    """A run in a process of its own, which is killed `delay_s` after a dealing with the world, as `dropped_at` counts them."""

    async def run() -> None:
        async with day_without_faults(*day) as found:
            await found.run(600.0)

    with dropped_at(at, partial(die_after, delay_s), of=of):
        asyncio.run(run())


def quick(seed: int) -> Behaviour:
    """Latencies drawn for each submission, no more operations than streams, results in any order."""
    return Behaviour(recognition_s=(0.01, 0.06), seed=seed, max_operations=STREAMS, order="shuffled")


def day_of(seed: int) -> date:
    """A day for each seed, so that one database serves all of them."""
    return MONDAY + timedelta(days=seed)


def first_call_of(seed: int) -> int:
    """The first of the day's call ids."""
    return 100 * seed + 1
