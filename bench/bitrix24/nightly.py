"""The client at its work: calls into Postgres while they are read, and four processes under one bucket.

Runs on a Postgres server of its own, in a temporary folder. What is measured is the step's own core and resources.
"""

from __future__ import annotations

import time
from typing import Any

import psycopg

from bench.bitrix24.harness import (
    BUCKET,
    DRAIN,
    LIMIT_S,
    ROOT,
    Client,
    Run,
    books,
    bound_s,
    finished,
    judged,
    portal,
    reset,
    run_once,
    say,
    started,
    told,
)
from bench.clients.measured import fingerprint
from bench.database import database
from bench.report import Section
from dialog_assets.portals import load_portals

CALLS = 200_000
SHARED_CALLS, PROCESSES = 40_000, 4
PORTAL = "okna_sever"
STORED = Client("**dialog_assets**, step `calls`", "nightly", "stored", ours=True)
SHARED = Client(f"**{PROCESSES} processes, one bucket in Postgres**", "nightly", "shared", ours=True)
APART = Client(f"{PROCESSES} processes, a bucket each", "ours", "calls", ours=True)


def measure() -> list[Section]:
    """Both sections."""
    with database([one for one in load_portals(ROOT / "portals") if one.portal == PORTAL]) as url:
        return [_stored(url), _shared(url)]


def _stored(url: str) -> Section:
    section = Section(
        f"{CALLS:,} calls into Postgres while they are read",
        f"The core of step `calls` with the portal's bucket in Postgres: {BUCKET}/{DRAIN:g}, 4 ms a command, counting free. "
        f"bound: (requests - {BUCKET}) / {DRAIN:g} s. first row, rows at half time: in the table, as another connection sees it. "
        "Memory: peak above the idle process, writing included.",
        ("run", "wall, s", "× bound", "requests", "503", "lost", "first row, s", "rows at half time", "cpu, s",
         "memory, MB", "exit"),
    )  # fmt: skip
    with portal(calls=CALLS, free=True) as at:
        job = {"database": url, "portal": PORTAL, "expected": CALLS, "fingerprint": at["calls_fingerprint"]}
        run = run_once(at, STORED, job)
        # The rows are in the table, not with the client.
        with psycopg.connect(url) as connection:
            ids = [row[0] for row in connection.execute("SELECT call_id FROM calls")]
        run |= {"rows": len(ids), "unique": len(ids), "distinct": len(ids), "fingerprint": fingerprint(ids)}
        judged(run, job, books(at))
    say(f"{STORED.name.replace('*', '')}: {run['wall_s']:.1f} s, {told(run)}")
    section.rows.append(
        (
            STORED.name,
            f"{run['wall_s']:.2f}",
            f"{run['wall_s'] / bound_s(run['requests']):.2f}" if told(run) == "ok" else "-",
            str(run["requests"]),
            str(run["refused"]),
            f"{run['lost']:,}",
            "-" if run["first_s"] is None else f"{run['first_s']:.2f}",
            f"{run.get('half', 0):,}",
            f"{run['cpu_s']:.1f}",
            f"{run['peak_mb'] - run['idle_mb']:.0f}",
            told(run),
        )
    )
    return section


def _shared(url: str) -> Section:
    section = Section(
        f"{PROCESSES} processes read {SHARED_CALLS:,} calls each, at once",
        f"One portal, bucket {BUCKET}/{DRAIN:g}, 4 ms a command, counting free. wall: from the first one's start to the last one's "
        f"end. bound: (all requests - {BUCKET}) / {DRAIN:g} s.",
        ("how", "wall, s", "× bound", "requests", "503", "lost", "exit"),
    )
    with portal(calls=SHARED_CALLS, free=True) as at:
        job = {"database": url, "portal": PORTAL, "expected": SHARED_CALLS, "fingerprint": at["calls_fingerprint"]}
        for client in (SHARED, APART):
            reset(at)
            begun = time.perf_counter()
            processes = [started(client, at, job) for _ in range(PROCESSES)]
            runs = [finished(process, LIMIT_S) for process in processes]
            counts = books(at)
            for run in runs:
                judged(run, job, counts)
            wall = _wall(runs, time.perf_counter() - begun)
            bound = bound_s(counts.get("requests", 0))
            section.rows.append(
                (
                    client.name,
                    f"{wall:.2f}",
                    f"{wall / bound:.2f}" if bound else "-",
                    str(counts.get("requests", 0)),
                    str(counts.get("refused", 0)),
                    f"{sum(run['lost'] for run in runs):,}",
                    ", ".join(sorted({told(run) for run in runs})),
                )
            )
            say(f"{client.name.strip('*')}: {wall:.1f} s, {section.rows[-1][-1]}")
    return section


def _wall(runs: list[Run], otherwise: float) -> float:
    told_by: list[Any] = [run for run in runs if "begun_at" in run]
    if len(told_by) < len(runs):
        return otherwise
    return float(max(run["begun_at"] + run["wall_s"] for run in told_by) - min(run["begun_at"] for run in told_by))
