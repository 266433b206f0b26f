"""Ranges through Dagster itself: a real webserver, a real daemon and its run queue, runs as processes, Postgres storage.

An asset backfill, a job backfill and a scheduled night at the same time, on one daemon, as its backfill tick takes 30 s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import dagster._daemon  # the scheduler's module can only be imported after it
import pytest
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
)
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._scheduler.scheduler import launch_scheduled_runs_for_schedule

from dialog_assets.assets import figures
from dialog_assets.assets.jobs import RANGE_END_TAG, RANGE_START_TAG
from dialog_assets.assets.steps import UPSTREAM
from dialog_assets.cli import instance as cli_instance
from dialog_assets.cli.world import SandboxProcess, pointed_at
from dialog_assets.store.pool import open_pool
from dialog_assets_tests.dagster_layer.processes import (
    ROOT,
    UI,
    WORKSPACE,
    dagster_process,
    free_port,
    session,
    wait_for,
)
from dialog_assets_tests.databases import copy_of, database_is

BACKFILL_TAG = "dagster/backfill"
NAMES = ("calls", "done", "skipped", "failed", "waiting")
ENDED = ("COMPLETED_SUCCESS", "COMPLETED_FAILED", "COMPLETED", "FAILED", "CANCELED")
pytestmark = [pytest.mark.xdist_group("daemon"), pytest.mark.timeout(2400)]


def days(first: str, last: str) -> list[str]:
    """The partition keys from `first` to `last`, both included."""
    start = date.fromisoformat(first)
    return [
        (start + timedelta(days=offset)).isoformat() for offset in range((date.fromisoformat(last) - start).days + 1)
    ]


ASSETS_DAYS = days("2026-03-02", "2026-03-04")
JOB_DAYS = days("2026-03-05", "2026-03-13")
"""Nine days, of which the world has calls on two: with days_per_run 7 two runs, and days without a call."""
NIGHT = datetime.fromisoformat("2026-03-07T03:15:00+03:00")
NIGHT_DAYS = days("2026-03-04", "2026-03-06")


@dataclass
class Evening:
    """What was asked of Dagster at once, and what had come of it when everything had ended."""

    database: str
    instance: dg.DagsterInstance
    statuses: dict[str, str]
    tick: str
    by_assets: list[dg.DagsterRun]
    by_job: list[dg.DagsterRun]
    by_schedule: list[dg.DagsterRun]
    left_running: list[str]


@pytest.fixture(scope="module")
def evening(
    postgres: str, sandbox_world: SandboxProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Evening]:
    """The three ways at the same time, on the project's own dagster.yaml and workspace.yaml, to their ends."""
    logs = tmp_path_factory.mktemp("dagster")
    sandbox_world.post("/reset")
    with (
        copy_of(postgres) as database,
        database_is(database),
        pointed_at(sandbox_world),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.chdir(ROOT)
        for name in ("DAGSTER_POSTGRES_URL", "DAGSTER_HOME"):
            patch.setenv(name, "")
        cli_instance.prepare()
        with dg.DagsterInstance.get() as instance:
            yield spend_evening(database, instance, logs)


def spend_evening(database: str, instance: dg.DagsterInstance, logs: Path) -> Evening:
    """Start everything, ask everything, wait, stop everything."""
    port = free_port()
    with dagster_process("dagster-webserver", "-h", "127.0.0.1", "-p", str(port), log=logs / "webserver") as webserver:
        # Until the daemon begins, everything only waits in the queue; so its first tick, of one in 30 s, finds all of it.
        tick = tick_of(instance, "okna_sever_nightly", NIGHT)
        ui = UI(port)
        wait_for("the webserver", ui.is_up, seconds=300, log=logs / "webserver")
        backfills = {
            "assets": ui.backfill(
                assetSelection=[{"path": ["okna_sever", step]} for step in UPSTREAM], partitionNames=ASSETS_DAYS
            ),
            "job": ui.backfill(
                selector={
                    "partitionSetName": "avto_ural_daily_partition_set",
                    "repositorySelector": {
                        "repositoryName": "__repository__",
                        "repositoryLocationName": "dialog_assets",
                    },
                },
                partitionNames=JOB_DAYS,
            ),
        }
        with dagster_process("dagster-daemon", "run", log=logs / "daemon") as daemon:
            statuses = wait_for("both backfills", lambda: ended(ui, backfills), seconds=1200, log=logs / "daemon")
            by_schedule = wait_for("the scheduled run", lambda: scheduled(instance), seconds=300, log=logs / "daemon")
    by_assets, by_job = (
        list(instance.get_runs(dg.RunsFilter(tags={BACKFILL_TAG: backfills[way]}))) for way in ("assets", "job")
    )
    left = [str(process) for leader in (webserver, daemon) for process in session(leader.pid)]
    return Evening(database, instance, statuses, tick, by_assets, by_job, by_schedule, left)


def ended(ui: UI, backfills: dict[str, str]) -> dict[str, str] | None:
    """The last status of each backfill, once all have one."""
    statuses = {way: ui.backfill_status(backfill) for way, backfill in backfills.items()}
    return statuses if all(status in ENDED for status in statuses.values()) else None


def scheduled(instance: dg.DagsterInstance) -> list[dg.DagsterRun] | None:
    """The runs that the schedule's tick asked for, once they have ended."""
    runs = list(instance.get_runs(dg.RunsFilter(tags={"dagster/schedule_name": "okna_sever_nightly"})))
    return runs if runs and all(run.is_finished for run in runs) else None


def tick_of(instance: dg.DagsterInstance, name: str, at: datetime) -> str:
    """One tick of a schedule at a time of the world's week, by the daemon's own function; returns the tick's status.

    The daemon itself lives today, and cannot be asked for a night in March.
    """
    with WorkspaceProcessContext(instance, WorkspaceFileTarget([str(WORKSPACE)])) as workspace:
        location = workspace.create_request_context().get_code_location("dialog_assets")
        (repository,) = location.get_repositories().values()
        schedule = repository.get_schedule(name)
        state = InstigatorState(
            schedule.get_remote_origin(),
            InstigatorType.SCHEDULE,
            InstigatorStatus.STOPPED,
            ScheduleInstigatorData(schedule.cron_schedule, (at - timedelta(minutes=1)).timestamp()),
        )
        instance.add_instigator_state(state)
        launch_scheduled_runs_for_schedule(
            workspace,
            logging.getLogger(__name__),
            schedule,
            state,
            end_datetime_utc=at + timedelta(minutes=1),
            max_catchup_runs=1,
            max_tick_retries=0,
            tick_retention_settings={},
            schedule_debug_crash_flags=None,
            submit_threadpool_executor=None,
            in_memory_last_iteration_timestamp=None,
        )
        (tick,) = instance.get_ticks(schedule.get_remote_origin_id(), schedule.selector_id)
        return f"{tick.status.value} {tick.error or ''}".strip()


def ranges(runs: list[dg.DagsterRun]) -> list[tuple[str, str]]:
    """First and last day of each run, from its tags."""
    return sorted((run.tags[RANGE_START_TAG], run.tags[RANGE_END_TAG]) for run in runs)


def told(evening: Evening, portal: str, step: str, day: str) -> dict[str, Any]:
    """The figures of the asset's latest materialization of that day."""
    found = evening.instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey([portal, step]), asset_partitions=[day]), limit=1
    ).records
    assert found, f"{portal}/{step} has no materialization of {day}"
    materialization = found[0].asset_materialization
    assert materialization is not None
    return {name: materialization.metadata[name].value for name in NAMES}


def stored(evening: Evening, portal: str, step: str, wanted: list[str]) -> dict[str, dict[str, Any]]:
    """The same figures of each day, from the tables."""

    async def read() -> dict[date, figures.Figures]:
        async with open_pool(evening.database, size=1) as pool, pool.connection() as connection:
            first, last = date.fromisoformat(wanted[0]), date.fromisoformat(wanted[-1])
            return await figures.read(connection, portal, step, first, last)

    return {
        day.isoformat(): {name: found.metadata()[name] for name in NAMES} for day, found in asyncio.run(read()).items()
    }


def test_backfills_complete(evening: Evening) -> None:
    """A backfill by assets and one by job, started side by side with a night, both end well."""
    assert evening.statuses == {"assets": "COMPLETED_SUCCESS", "job": "COMPLETED_SUCCESS"}


def test_asset_backfill_is_one_run(evening: Evening) -> None:
    """A range chosen on the asset graph is one run over all of it."""
    assert ranges(evening.by_assets) == [(ASSETS_DAYS[0], ASSETS_DAYS[-1])]


def test_job_backfill_is_cut_by_days_per_run(evening: Evening) -> None:
    """A job's backfill of nine days is, with days_per_run 7, a run of seven days and one of two."""
    assert ranges(evening.by_job) == [(JOB_DAYS[0], JOB_DAYS[6]), (JOB_DAYS[7], JOB_DAYS[8])]


def test_night_is_one_run(evening: Evening) -> None:
    """A schedule's tick asks for one run of yesterday and the trailing days, and the run queue takes it to success."""
    assert evening.tick == "SUCCESS"
    assert ranges(evening.by_schedule) == [(NIGHT_DAYS[0], NIGHT_DAYS[-1])]
    assert [run.status for run in evening.by_schedule] == [dg.DagsterRunStatus.SUCCESS]


@pytest.mark.parametrize(
    ("portal", "wanted", "with_calls"),
    [("okna_sever", days(ASSETS_DAYS[0], NIGHT_DAYS[-1]), 5), ("avto_ural", JOB_DAYS, 2)],
)
def test_every_day_has_its_own_figures(evening: Evening, portal: str, wanted: list[str], with_calls: int) -> None:
    """Every day of every range was done at every step, and its materialization carries that day's own figures."""
    for step in UPSTREAM:
        expected = stored(evening, portal, step, wanted)
        assert {day: told(evening, portal, step, day) for day in wanted} == expected, step
        done = [bool(expected[day]["done"]) for day in wanted]
        assert done == [True] * with_calls + [False] * (len(wanted) - with_calls), step


def test_sensors_ask_for_nothing(evening: Evening) -> None:
    """The sensors of what is left are on by themselves, find the database, and have nothing to ask for."""
    states = evening.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
    assert sorted(state.instigator_name for state in states) == ["avto_ural_unfinished", "okna_sever_unfinished"]
    for state in states:
        ticks = evening.instance.get_ticks(state.instigator_origin_id, state.selector_id)
        # The daemon may have been ended in the middle of one.
        done = [tick.status.value for tick in ticks if tick.status.value != "STARTED"]
        assert set(done) == {"SKIPPED"}, [str(tick.error) for tick in ticks]


def test_nothing_is_left_running(evening: Evening) -> None:
    """Webserver, daemon, their code servers and the runs have all ended."""
    assert evening.left_running == []
