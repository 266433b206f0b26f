"""One run of the step audio_files as a process, and the memory that it and its workers take.

The job comes as JSON on stdin: day, calls and the Disk file that all of them have. Everything else is the environment's.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from dialog_assets.assets.audio_files import archive_recordings
from dialog_assets.assets.steps import StepRun
from dialog_assets.portals import Portal, load_portals
from dialog_assets.resources.bitrix24 import Bitrix24Resource
from dialog_assets.resources.s3 import ArchiveResource
from dialog_assets.store import calls as table
from dialog_assets.store import server
from dialog_assets.store.pool import Pool, open_pool

PORTALS = Path(__file__).parents[2] / "portals"
EVERY_S = 0.005


@dataclass
class Scales:
    """Resident memory, in MB, watched by a thread: this process, its children together, and both at one moment."""

    own: float = 0.0
    children: float = 0.0
    together: float = 0.0
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Scales:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._over.wait(EVERY_S):
            own = me.memory_info().rss / (1 << 20)
            children = sum(map(_resident, me.children(recursive=True)))
            self.own, self.children = max(self.own, own), max(self.children, children)
            self.together = max(self.together, own + children)


def _resident(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / (1 << 20)
    except psutil.Error:
        return 0.0


async def archive(portal: Portal, day: date, calls: int, file_id: int) -> dict[str, Any]:
    """Archive `calls` recordings of one size as the asset does; what it took."""

    async def day_done(_: date) -> None:
        return None

    async with open_pool(server.database_url(), size=8) as pool:
        async with pool.connection() as connection:
            await table.write(
                connection, portal.portal, [_call(portal, day, number, file_id) for number in range(calls)]
            )
        resource, bucket = Bitrix24Resource(), ArchiveResource().open()
        await bucket.check()
        idle = psutil.Process().memory_info().rss / (1 << 20)
        begun = time.perf_counter()
        with Scales() as scales:
            await archive_recordings(StepRun(portal, "audio_files", (day,), pool, day_done), resource, bucket)
        return {
            "wall_s": time.perf_counter() - begun,
            "idle_mb": idle,
            "own_mb": scales.own,
            "children_mb": scales.children,
            "together_mb": scales.together,
            "archived": await _archived(pool, day),
        }


def _call(portal: Portal, day: date, number: int, file_id: int) -> dict[str, Any]:
    call_id = int(day.strftime("%m%d")) * 1000 + number
    nothing = dict.fromkeys(table.COLUMNS)
    started = datetime.combine(day, datetime.min.time(), portal.zone) + timedelta(hours=9, minutes=number)
    return {
        **nothing,
        "call_id": call_id,
        "started_at": started,
        "day": day,
        "direction": "incoming",
        "duration_s": 60,
        "failed_code": "200",
        "record_file_id": file_id,
        "raw": {},
    }


async def _archived(pool: Pool, day: date) -> int:
    async with pool.connection() as connection:
        cursor = await connection.execute(
            "SELECT count(*) AS number FROM calls JOIN audio_files USING (portal, call_id) WHERE day = %s", [day]
        )
        row = await cursor.fetchone()
    return int(row["number"]) if row else 0


if __name__ == "__main__":
    job = json.load(sys.stdin)
    (okna,) = [portal for portal in load_portals(PORTALS) if portal.portal == "okna_sever"]
    sys.stdout.write(json.dumps(asyncio.run(archive(okna, date.fromisoformat(job["day"]), job["calls"], job["file"]))))
