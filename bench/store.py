"""What it costs to write calls with their raw JSON into Postgres, beside a bare COPY of the same rows into the same table.

The table is `calls` as it is: partitioned, with its indexes. The bare COPY is psycopg's, of the same Python rows in chunks
and transactions of the same size; it writes no call_steps and could not be run twice. Each repetition alternates the ways,
and a ratio is of two figures of one repetition: machines get slower and faster while one measures.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from bench.database import database
from bench.report import Section
from dialog_assets.assets.calls import stored
from dialog_assets.bitrix24.rows import call_row
from dialog_assets.portals import Portal, load_portals
from dialog_assets.sandbox.world import rows as wire
from dialog_assets.store import calls as table
from dialog_assets.store.pool import Connection, Row

PORTALS = Path(__file__).parents[1] / "portals"
Write = Callable[[Connection, str, Sequence[Row]], Awaitable[None]]


@dataclass(frozen=True)
class Cost:
    """Of one pass over all rows: wall seconds, processor seconds of client and server, WAL written in MB."""

    wall_s: float
    cpu_s: float
    wal_mb: float


def measure(calls: int, repetitions: int, chunks: Sequence[int]) -> tuple[list[Section], dict[str, str]]:
    """Sections, and the versions of what ran. Runs on a server of its own, in a temporary folder."""
    portal = load_portals(PORTALS)[0]
    with database([portal]) as url:
        rows = list(_rows(portal, calls))
        gc.freeze()
        section = Section(
            f"Store: {calls:,} calls",
            f"Median of {repetitions} repetitions, each against the bare COPY of its own repetition, with chunks of the same size. "
            "cpu: client and server together, which other work on the machine blurs least. First writing includes call_steps.",
            ("way, rows a chunk", "wall, s", "× bare COPY", "cpu, s", "× bare COPY", "WAL, MB", "rewritten"),
        )
        for chunk in chunks:
            section.rows += asyncio.run(_compare(url, portal.portal, rows, chunk, repetitions))
        with psycopg.connect(url) as connection:
            version = connection.info.server_version
    return [section], {
        "Postgres": f"{version // 10000}.{version % 10000}, embedded, default settings",
        "psycopg": psycopg.__version__,
    }


async def _compare(url: str, portal: str, rows: Sequence[Row], chunk: int, repetitions: int) -> list[Sequence[str]]:
    costs: dict[str, list[Cost]] = {"bare COPY": [], "first": [], "again, unchanged": [], "again, 1 % changed": []}
    touched: dict[str, int] = {}
    changed = [{**row, "vote": 5} if number % 100 == 0 else row for number, row in enumerate(rows)]
    connection: AsyncConnection[DictRow] = await AsyncConnection.connect(url, autocommit=True, row_factory=dict_row)
    async with connection:
        for _ in range(repetitions):
            await _empty(connection)
            costs["bare COPY"].append(await _pass(connection, _bare, portal, rows, chunk))
            await _empty(connection)
            for name, some in (("first", rows), ("again, unchanged", rows), ("again, 1 % changed", changed)):
                before = await _stamps(connection)
                costs[name].append(await _pass(connection, table.write, portal, some, chunk))
                touched[name] = len(set(await _stamps(connection)) - set(before))
    bare = costs["bare COPY"]
    lines: list[Sequence[str]] = []
    for name, passes in costs.items():
        walls = [one.wall_s / base.wall_s for one, base in zip(passes, bare, strict=True)]
        works = [one.cpu_s / base.cpu_s for one, base in zip(passes, bare, strict=True)]
        ours = name != "bare COPY"
        mark = "**" if ours else ""
        lines.append(
            (
                f"{mark}{name}{mark}, {chunk:,}",
                f"{statistics.median(one.wall_s for one in passes):.2f}",
                f"{mark}{statistics.median(walls):.2f}{mark}",
                f"{statistics.median(one.cpu_s for one in passes):.2f}",
                f"{mark}{statistics.median(works):.2f}{mark}",
                f"{passes[0].wal_mb:.0f}",
                f"{touched[name]:,}" if ours else "",
            )
        )
    return lines


def _rows(portal: Portal, count: int) -> Iterator[Row]:
    start = datetime(2026, 3, 2, tzinfo=portal.zone)
    lines: dict[str, Any] = {"portal": portal.portal, "line": "reg133788"}
    for number in range(1, count + 1):
        told = {
            "id": number,
            "user": 10 + number % 20,
            "phone": f"+7001{number:07d}",
            "entity": ("CONTACT", 1 + number % 5000) if number % 3 else (None, None),
            "type": 1 + number % 2,
        }
        yield stored(
            call_row(wire.call(lines, told, start + timedelta(seconds=30 * number), number % 600, None)), portal
        )


async def _bare(connection: Connection, portal: str, rows: Sequence[Row]) -> None:
    names = ("portal", *table.COLUMNS)
    statement = sql.SQL("COPY calls ({}) FROM STDIN").format(sql.SQL(", ").join(map(sql.Identifier, names)))
    async with connection.cursor().copy(statement) as copy:
        for row in rows:
            await copy.write_row(
                (portal, *(Jsonb(row[name]) if name == "raw" else row[name] for name in table.COLUMNS))
            )


async def _pass(connection: Connection, write: Write, portal: str, rows: Sequence[Row], chunk: int) -> Cost:
    backend = psutil.Process(connection.info.backend_pid)
    await connection.execute("CHECKPOINT")
    at, lsn = _busy(backend), await _wal(connection)
    begun = time.perf_counter()
    for start in range(0, len(rows), chunk):
        async with connection.transaction():
            await write(connection, portal, rows[start : start + chunk])
    wall = time.perf_counter() - begun
    return Cost(wall, _busy(backend) - at, (await _wal(connection) - lsn) / 1e6)


def _busy(backend: psutil.Process) -> float:
    times = backend.cpu_times()
    return float(times.user + times.system) + time.process_time()


async def _wal(connection: Connection) -> float:
    cursor = await connection.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::float8 AS bytes")
    row = await cursor.fetchone()
    return float(row["bytes"]) if row else 0.0


async def _empty(connection: Connection) -> None:
    await connection.execute("TRUNCATE calls, call_steps, entity_changes")


async def _stamps(connection: Connection) -> list[tuple[str, str]]:
    cursor = await connection.execute("SELECT xmin::text AS xmin, ctid::text AS ctid FROM calls")
    return [(row["xmin"], row["ctid"]) for row in await cursor.fetchall()]
