"""Runs of the command line as Dagster sees them: with an origin like runs of the UI, and ended when their process has gone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import date

import dagster as dg
import psycopg
import pytest

from dialog_assets.assets import dead_runs
from dialog_assets.assets.dead_runs import PROCESS_TAG, end_dead_runs
from dialog_assets.cli.running import run_days
from dialog_assets.cli.world import SandboxProcess
from dialog_assets.definitions import build_defs
from dialog_assets.portals import Portal
from dialog_assets.store import leases
from dialog_assets.store.leases import step_lock
from dialog_assets_tests.dagster_layer.processes import ROOT
from dialog_assets_tests.store.rows import PORTAL

LABEL = "from dialog_assets.store import leases; print(leases.this_process())"
STATUS = dg.DagsterRunStatus


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """A throw-away instance, which is also this process's own."""
    monkeypatch.chdir(ROOT)
    with dg.instance_for_test() as instance:
        yield instance


def started(
    portals: list[Portal], instance: dg.DagsterInstance, process: str | None, status: STATUS = STATUS.STARTED
) -> str:
    """A run of okna_sever that Dagster believes to be going on."""
    job = build_defs(portals).get_repository_def().get_job(f"{PORTAL}_daily")
    tags = {"portal": PORTAL, **({PROCESS_TAG: process} if process else {})}
    run = instance.create_run_for_job(job, status=status, tags=tags)
    instance.report_engine_event("began", run)
    return run.run_id


def gone() -> str:
    """The label of a process that has ended."""
    return subprocess.run([sys.executable, "-c", LABEL], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def ended(instance: dg.DagsterInstance, database: str) -> list[str]:
    """The runs that are found dead."""
    return asyncio.run(end_dead_runs(instance, database, PORTAL))


def test_a_killed_run_is_ended(database: str, portals: list[Portal], instance: dg.DagsterInstance) -> None:
    """Its process has gone: the run is failed, one that was being cancelled is cancelled; those of others go on."""
    label = gone()
    killed = started(portals, instance, label)
    cancelled = started(portals, instance, label, STATUS.CANCELING)
    mine = started(portals, instance, leases.this_process())
    waiting = started(portals, instance, label, STATUS.NOT_STARTED)
    assert sorted(ended(instance, database)) == sorted([killed, cancelled])
    statuses = {run_id: instance.get_run_by_id(run_id).status for run_id in (killed, cancelled, mine, waiting)}  # type: ignore[union-attr]
    assert statuses == {
        killed: STATUS.FAILURE,
        cancelled: STATUS.CANCELED,
        mine: STATUS.STARTED,
        waiting: STATUS.NOT_STARTED,
    }
    assert ended(instance, database) == []


@pytest.mark.parametrize("process", [None, "another-machine 1 2", "x", ""])
def test_a_run_of_elsewhere_is_told_by_its_lease(
    database: str,
    portals: list[Portal],
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    process: str | None,
) -> None:
    """Where its process cannot be seen it lives while it holds a step, or another does; then it must be silent for long."""
    run = started(portals, instance, process)

    async def held_by(run_id: str) -> list[str]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(step_lock(database, PORTAL, "calls", run_id))
            return await end_dead_runs(instance, database, PORTAL)

    with monkeypatch.context() as patch:
        patch.setattr(dead_runs, "SILENT_S", -1.0)
        assert asyncio.run(held_by(run)) == []
        assert asyncio.run(held_by("another")) == []
    with psycopg.connect(database) as connection:  # long after
        connection.execute("UPDATE step_leases SET expires_at = now() - interval '1 hour'")
    assert ended(instance, database) == []
    monkeypatch.setattr(dead_runs, "SILENT_S", -1.0)
    assert ended(instance, database) == [run]


@pytest.mark.parametrize("last", [date(2026, 3, 14), date(2026, 3, 15)])
def test_a_command_ends_the_dead_and_has_an_origin(
    database: str, portals: list[Portal], instance: dg.DagsterInstance, sandbox: SandboxProcess, last: date
) -> None:
    """A run of a command is listed under its job and location like one of the UI, and never started again by the daemon."""
    killed = started(portals, instance, gone())
    portal = next(portal for portal in portals if portal.portal == PORTAL)
    (result,) = run_days(build_defs(portals), portal, date(2026, 3, 14), last, ["users"])
    assert result.success, result.errors
    assert instance.get_run_by_id(killed).status == STATUS.FAILURE  # type: ignore[union-attr]
    filters = dg.RunsFilter(job_name=f"{PORTAL}_daily", tags={".dagster/repository": "__repository__@dialog_assets"})
    (run,) = instance.get_runs(filters)
    assert run.run_id == result.run_id
    assert run.remote_job_origin is not None
    assert run.remote_job_origin.location_name == "dialog_assets"
    assert run.tags["dagster/max_retries"] == "0"
    made = instance.fetch_materializations(dg.AssetKey([PORTAL, "users"]), limit=10).records
    assert {one.partition_key for one in made} == {f"2026-03-{day}" for day in range(14, last.day + 1)}
