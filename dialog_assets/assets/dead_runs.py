"""Runs of a portal whose process has gone, ended in Dagster: it believes a run that was killed to be going on for ever.

The leases of the portal's steps tell who lives, and Dagster's status never is believed over them. Without this a killed
run would hold the portal's next one in the queue, as only one of a portal goes at a time.
"""

from __future__ import annotations

import asyncio
import time

import dagster as dg
import psycopg

from dialog_assets.store import leases
from dialog_assets.store.pool import Connection, open_pool

PROCESS_TAG = "dialog_assets/process"
"""Run tag of a run that a command has started: the process that it lives in."""
SILENT_S = 300.0
"""Of a run that no process and no lease tells of, how long nothing may be heard before it counts as dead."""
STATUSES = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


async def end_dead_runs(instance: dg.DagsterInstance, url: str, portal: str) -> list[str]:
    """End the dead runs of `portal` in Dagster; returns their ids."""
    records = await asyncio.to_thread(
        instance.get_run_records, dg.RunsFilter(statuses=STATUSES, tags={"portal": portal})
    )
    if not records:
        return []
    async with open_pool(url, size=1) as pool, pool.connection() as connection:
        holders = await _holders(connection, portal)
    living = {holder.run_id for holder in holders}
    # A run that waits for another's step holds no lease meanwhile.
    may_wait = any(holder.working for holder in holders)
    dead = [
        record.dagster_run
        for record in records
        if record.dagster_run.run_id not in living and _is_dead(instance, record.dagster_run, may_wait=may_wait)
    ]
    for run in dead:
        told = "The process of this run has ended without a word (killed, or the machine was restarted)."
        if run.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, message=told)
        else:
            instance.report_run_failed(run, message=told)
    return [run.run_id for run in dead]


async def _holders(connection: Connection, portal: str) -> list[leases.Holder]:
    try:
        return await leases.living(connection, portal)
    except psycopg.errors.UndefinedTable:
        return []


def _is_dead(instance: dg.DagsterInstance, run: dg.DagsterRun, *, may_wait: bool) -> bool:
    there = leases.is_there(run.tags[PROCESS_TAG]) if PROCESS_TAG in run.tags else None
    if there is not None:
        return not there
    if may_wait:
        return False
    heard = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
    return not heard or time.time() - heard[0].timestamp > SILENT_S
