"""Table step_leases: which run works on which step of a portal, so that two never buy the same.

A run takes the step's lease under a number of its own, counts it up every few seconds, and every transaction in which it
writes checks that number at its end (`Lease.check`): a run that was taken for dead, and was not, writes nothing more. No
session is needed for this, so it holds behind a pooler and outlives a connection that is cut.
Here: taking, renewing, checking, and telling who lives. Not here: what is done under a lease.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import psycopg

from dialog_assets.store.connections import connect
from dialog_assets.store.errors import LockLost
from dialog_assets.store.faults import passing

Connection = psycopg.AsyncConnection[dict[str, Any]]

log = logging.getLogger("dialog_assets")

BEAT_S = 5.0
"""How often a lease is renewed."""
LEASE_S = 45.0
"""How long it lasts without."""
STALLED_S = 300.0
"""How long a run that does not renew is left alone when its process is known to be there: it may be busy or suspended."""
ANSWER_S = 30.0
"""How long a renewal may take before its connection counts as lost."""
LOOK_S = 0.5
"""How often who waits looks."""
BETWEEN_STEPS_S = 60.0
"""How long a run that has left a step is believed to be on its way to the next."""


@dataclass(frozen=True)
class Holder:
    """A run that lives, as its lease tells.

    `run_id` is Dagster's. `since`: when it took `step`. `expires`: until when it is believed to live if nothing more is
    heard of it. `working`: False where it has left `step` a moment ago and holds none yet.
    """

    run_id: str
    step: str
    since: datetime
    expires: datetime
    working: bool


async def living(connection: Connection, portal: str) -> list[Holder]:
    """The runs of `portal` that live, newest step first; a run that was killed is not among them.

    It is known at once for a process of this machine (and of this container), for others when the lease has expired
    (LEASE_S). Between two steps a run holds no lease: it is told for BETWEEN_STEPS_S with `working=False`. A run that has
    not come to its first step yet is not told. Raises psycopg.errors.UndefinedTable before setup-portals.
    """
    cursor = await connection.execute(
        "SELECT *, expires_at > clock_timestamp() AS fresh FROM step_leases WHERE portal = %s ORDER BY taken_at DESC",
        [portal],
    )
    return [
        Holder(row["run_id"], row["step"], row["taken_at"], row["expires_at"], not row["released"])
        for row in await cursor.fetchall()
        if row["fresh"] and _is_there(row) is not False
    ]


@dataclass
class Lease:
    """A step taken by this run under the number `fence`."""

    portal: str
    step: str
    fence: int

    async def check(self, connection: Connection) -> None:
        """Make sure, to the end of this transaction, that the step is still this run's; call it last. Raises LockLost."""
        cursor = await connection.execute(
            "SELECT FROM step_leases WHERE portal = %s AND step = %s AND fence = %s AND NOT released FOR KEY SHARE",
            [self.portal, self.step, self.fence],
        )
        if cursor.rowcount != 1:
            raise self.lost()

    def lost(self) -> LockLost:
        """The error of a run whose step another has taken."""
        return LockLost(
            f"{self.portal}/{self.step}: the run was not heard of on Postgres for too long, another has begun the same "
            "work, and this one stops; nothing needs to be done if the other goes well."
        )


@asynccontextmanager
async def step_lock(url: str, portal: str, step: str, run_id: str = "") -> AsyncIterator[Lease]:
    """Hold `portal/step` for the run; a second run waits here, then finds the first one's results and buys nothing twice.

    A lease whose process has ended is taken over at once on the same machine, elsewhere when it has expired. If another
    run takes this one over, the body is cancelled and LockLost raised; a connection that is cut is only replaced.
    """
    connection = await connect(url, autocommit=True)
    try:
        lease = await _wait(connection, portal, step, run_id)
        keeper = _Keeper(lease, connection, url)
    except BaseException:
        await connection.close()
        raise
    async with keeper.kept():
        yield lease


async def _wait(connection: Connection, portal: str, step: str, run_id: str) -> Lease:
    """Take the step, when nobody has it any more."""
    loop = asyncio.get_running_loop()
    seen: tuple[Any, ...] = ()
    since = loop.time()
    told = False
    while True:
        row = await _look(connection, portal, step)
        if (row["fence"], row["beats"]) != seen:
            seen, since = (row["fence"], row["beats"]), loop.time()
        silent_s = loop.time() - since
        if row["released"] or _is_own(row, run_id) or _is_over(row, silent_s):
            fence = await _take(connection, row, run_id)
            if fence is not None:
                return Lease(portal, step, fence)
            continue
        if not told:
            log.info("%s/%s: another run works on this step; waiting for it to end", portal, step)
            told = True
        await asyncio.sleep(LOOK_S)


def _is_own(row: dict[str, Any], run_id: str) -> bool:
    """Whether this run left the lease itself: cut off before it heard that it had the step, or could release it.

    No run is at a step twice at once, and what its first try may still write is refused by the number.
    """
    here = (run_id, _place(), _process(os.getpid()))
    return all(here) and (row["run_id"], row["place"], row["process"]) == here


def _is_over(row: dict[str, Any], silent_s: float) -> bool:
    """Whether the run behind a lease has ended: its process has, or it was silent for as long as it may be.

    Silence is measured by who waits: the server's clock may be set, and nobody can renew while the server is away.
    """
    there = _is_there(row)
    if there is False:
        return True
    if there:
        return silent_s > STALLED_S
    return silent_s > LEASE_S or (not row["fresh"] and silent_s > 2 * BEAT_S + LOOK_S)


async def _look(connection: Connection, portal: str, step: str) -> dict[str, Any]:
    """The lease as it stands; there is one from the first look on."""
    read = "SELECT *, expires_at > clock_timestamp() AS fresh FROM step_leases WHERE portal = %s AND step = %s"
    row = await (await connection.execute(read, [portal, step])).fetchone()
    if row is None:
        await connection.execute(
            "INSERT INTO step_leases (portal, step) VALUES (%s, %s) ON CONFLICT DO NOTHING", [portal, step]
        )
        row = await (await connection.execute(read, [portal, step])).fetchone()
    assert row is not None  # noqa: S101 - rows of this table are never deleted
    return row


async def _take(connection: Connection, row: dict[str, Any], run_id: str) -> int | None:
    """Take the lease as it was seen, or not at all; a write of the run before that is being committed ends first."""
    async with connection.transaction():
        await connection.execute(
            "SELECT FROM step_leases WHERE portal = %s AND step = %s FOR UPDATE", [row["portal"], row["step"]]
        )
        cursor = await connection.execute(
            """
            UPDATE step_leases SET fence = fence + 1, released = false, run_id = %(run_id)s, place = %(here)s,
                process = %(process)s, beats = beats + 1, taken_at = clock_timestamp(),
                expires_at = clock_timestamp() + make_interval(secs => %(lease_s)s)
            WHERE portal = %(portal)s AND step = %(step)s AND fence = %(fence)s AND beats = %(beats)s
            RETURNING fence
            """,
            {**row, "run_id": run_id, "here": _place(), "process": _process(os.getpid()), "lease_s": LEASE_S},
        )
        taken = await cursor.fetchone()
    return None if taken is None else int(taken["fence"])


class _Keeper:
    """Renews a lease while the body runs, over whichever connection can be had."""

    def __init__(self, lease: Lease, connection: Connection, url: str) -> None:
        self._lease = lease
        self._connection = connection
        self._url = url

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Raises LockLost, after the body was cancelled, when another run has taken the step."""
        body = asyncio.current_task()
        assert body is not None  # noqa: S101 - only a task can wait
        cancelling = body.cancelling()
        lost = False

        async def watch() -> None:
            nonlocal lost
            while await self._renewed():  # noqa: ASYNC110 - it is the server that is asked
                await asyncio.sleep(BEAT_S)
            lost = True
            body.cancel()

        heart = asyncio.create_task(watch())
        try:
            try:
                yield
            finally:
                heart.cancel()
                await asyncio.gather(heart, return_exceptions=True)
                await self._release()
        except asyncio.CancelledError:
            # As asyncio.timeout does: only the cancellation from here becomes an error, one from outside stays what it is.
            if lost and body.uncancel() <= cancelling:
                raise self._lease.lost() from None
            raise

    async def _renewed(self) -> bool:
        """Renew once; whether the step is still ours, as far as can be told."""
        statement = """
            UPDATE step_leases SET beats = beats + 1, expires_at = clock_timestamp() + make_interval(secs => %(lease_s)s)
            WHERE portal = %(portal)s AND step = %(step)s AND fence = %(fence)s AND NOT released
            """
        try:
            async with asyncio.timeout(ANSWER_S):
                if self._connection.closed:
                    self._connection = await connect(self._url, autocommit=True)
                cursor = await self._connection.execute(statement, {**vars(self._lease), "lease_s": LEASE_S})
        except (psycopg.Error, TimeoutError) as error:
            if isinstance(error, psycopg.Error) and not passing(error):
                log.warning("%s/%s: the lease is not renewed: %s", self._lease.portal, self._lease.step, error.sqlstate)
            await self._connection.close()
            return True
        return cursor.rowcount == 1

    async def _release(self) -> None:
        """Let the next run begin at once; where Postgres is away, it begins when the lease has expired."""
        statement = """
            UPDATE step_leases SET released = true, expires_at = clock_timestamp() + make_interval(secs => %(between_s)s)
            WHERE portal = %(portal)s AND step = %(step)s AND fence = %(fence)s
            """
        with suppress(psycopg.Error, TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                if self._connection.closed:
                    self._connection = await connect(self._url, autocommit=True)
                await self._connection.execute(statement, {**vars(self._lease), "between_s": BETWEEN_STEPS_S})
        await self._connection.close()


def this_process() -> str:
    """A label of this process that `is_there` understands, wherever it is asked."""
    return f"{_place_label()} {_process(os.getpid())}"


def is_there(label: str) -> bool | None:
    """Whether the process of a label lives; None where that cannot be seen from here."""
    place, _, process = label.partition(" ")
    if not _place() or place != _place_label():
        return None
    number = process.partition(" ")[0]
    return number.isdigit() and _process(int(number)) == process


def _place_label() -> str:
    return hashlib.sha256(_place().encode()).hexdigest()[:16]


def _is_there(row: dict[str, Any]) -> bool | None:
    """Whether the process behind a lease lives; None where that cannot be seen from here."""
    if not row["place"] or row["place"] != _place():
        return None
    number = int(str(row["process"]).partition(" ")[0])
    found = _process(number)
    if not found and psutil.pid_exists(number):
        return None  # another user's, where those are hidden
    return found == str(row["process"])


@cache
def _place() -> str:
    """What a process number means something in: this boot of this machine, this space of numbers; '' where nothing tells."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        space = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        if platform.system() == "Linux":
            return ""  # a sandbox without /proc: expiry tells
        return f"{platform.node()} {psutil.boot_time():.0f}"
    return f"{platform.node()} {boot} {space}"


def _process(number: int) -> str:
    """A process by its number and its start, so that another that has got the number is not taken for it; '' if none."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        with suppress(psutil.Error):
            return f"{number} {psutil.Process(number).create_time():.0f}"
        return ""
    # The start is in ticks since the boot: the time of day may be set meanwhile.
    return f"{number} {'has ended' if fields[0] in 'ZX' else fields[19]}"
