"""The portal's sensor of what is left: it asks for a run when the time of something has come, of whatever day.

Deferred recognition may take a day, a service may be away for a week, a run may be killed: a run does not wait so long, nor
is it certain that a night's range still holds the day. The sensor also ends in Dagster the runs whose process has gone, and
keeps the standing checks true between runs.
Not here: what a run does, what is left (store/unfinished.py), days that were never read (jobs.py: the next night has them).
"""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import psycopg

from dialog_assets.assets.dead_runs import end_dead_runs
from dialog_assets.assets.jobs import RANGE_END_TAG, RANGE_START_TAG, range_tags, unfinished_job_name
from dialog_assets.assets.standing import every_night_ran, no_failed_calls, nothing_overdue
from dialog_assets.assets.steps import UPSTREAM, WORKS_FROM
from dialog_assets.portals import Portal
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.store import unfinished
from dialog_assets.store.pool import open_pool
from dialog_assets.store.unfinished import Unfinished

EVERY_S = 300
DAYS_PER_RUN = 31
AFTER_FAILURE = timedelta(hours=1)
"""How long nothing is asked for after a run that failed; doubled with each that fails after it."""
LONGEST_AFTER_FAILURE = timedelta(hours=8)
LOOKED_AT = 5

IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def build_sensor(portal: Portal) -> dg.SensorDefinition:
    """The portal's sensor. It is on by itself: what was paid for can be had for five days only."""
    name = portal.portal

    @dg.sensor(
        name=unfinished_job_name(name),
        job_name=unfinished_job_name(name),
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Takes up what runs of any day have left once its time has come, and keeps the standing checks true.",
    )
    def unfinished_work(context: dg.SensorEvaluationContext, postgres: PostgresResource) -> dg.SensorResult:
        now = datetime.now(UTC)
        try:
            left, checks = asyncio.run(_look(postgres.url, portal, now))
        except psycopg.errors.UndefinedTable:
            return dg.SensorResult(
                skip_reason=f"There are no tables for {name} yet, or not all of this version: run dialog-assets setup-portals."
            )
        asyncio.run(end_dead_runs(context.instance, postgres.url, name))
        changed, cursor = _changed(checks, context.cursor)
        asked = _request(context.instance, portal, left, now)
        return dg.SensorResult(
            run_requests=[asked] if isinstance(asked, dg.RunRequest) else None,
            skip_reason=asked if isinstance(asked, str) else None,
            asset_events=changed,
            cursor=cursor,
        )

    return unfinished_work


def _request(
    instance: dg.DagsterInstance, portal: Portal, left: Sequence[Unfinished], now: datetime
) -> dg.RunRequest | str:
    """The next run, or in one sentence why there is none."""
    name = portal.portal
    running = instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS, tags={"portal": name}), limit=1)
    if running:
        return f"Run {running[0].run_id} of {name} is in progress; what is left after it comes next."
    before = instance.get_run_records(dg.RunsFilter(job_name=unfinished_job_name(name)), limit=LOOKED_AT)
    failed_on = _last_day(before[0]) if before and before[0].dagster_run.status == dg.DagsterRunStatus.FAILURE else None
    found = due_range(left, portal, now, after=failed_on)
    if isinstance(found, str):
        return found
    wait = _wait(before, found)
    if wait:
        again = datetime.fromtimestamp(before[0].end_time or 0, UTC) + wait
        if now < again:
            how = (
                "failed" if before[0].dagster_run.status == dg.DagsterRunStatus.FAILURE else "left the same days again"
            )
            return f"Run {before[0].dagster_run.run_id} {how}; the next is asked for at {again.astimezone(portal.zone):%H:%M}."
    # The days again after the last run; the same tick, evaluated twice, only once.
    key = f"{found[0]}/{found[1]}/{before[0].dagster_run.run_id if before else 'first'}"
    return dg.RunRequest(
        run_key=key, tags={"portal": name, **range_tags(*found)}, asset_selection=_selection(portal, left, found)
    )


def due_range(
    left: Sequence[Unfinished], portal: Portal, now: datetime, *, after: date | None = None
) -> tuple[date, date] | str:
    """First and last day of the next run, or in one sentence why there is none.

    `left` is in order of day. A run begins at the first day with something due and goes no further than the portal's
    `days_per_run`; what is due later comes with the run after it. `after`: the last day of a run that failed; days after
    it go first, so that nothing waits for ever behind what fails every time.
    """
    today = now.astimezone(portal.zone).date()
    left = [one for one in left if portal.start_date <= one.day < today]
    due = [one.day for one in left if one.due]
    due = [day for day in due if after is not None and day > after] or due
    if due:
        limit = due[0] + timedelta(days=(portal.days_per_run or DAYS_PER_RUN) - 1)
        return due[0], max(day for day in due if day <= limit)
    if not left:
        return f"Nothing of {portal.portal} is left to be done."
    next_try = min(one.next_try for one in left).astimezone(portal.zone)
    steps = [step for step in UPSTREAM if any(one.step == step for one in left)]
    waiting = sum(one.waiting for one in left)
    return (
        f"{waiting} calls of {portal.portal} are to be tried again ({', '.join(steps)}); "
        f"the next is asked for at {next_try:%Y-%m-%d %H:%M}."
    )


def _selection(portal: Portal, left: Sequence[Unfinished], days: tuple[date, date]) -> list[dg.AssetKey]:
    """The steps with something due on the days, and all that come after them."""
    wanted = {one.step for one in left if one.due and days[0] <= one.day <= days[1]}
    for step, upstream in UPSTREAM.items():
        if wanted.intersection(upstream):
            wanted.add(step)
    return [dg.AssetKey([portal.portal, step]) for step in UPSTREAM if step in wanted]


def _wait(before: Sequence[dg.RunRecord], found: tuple[date, date]) -> timedelta | None:
    """How long nothing is asked for after the last runs: they failed, or two of them left these very days as they were."""
    statuses = [record.dagster_run.status for record in before]
    failed = next((n for n, status in enumerate(statuses) if status != dg.DagsterRunStatus.FAILURE), len(statuses))
    if failed:
        return min(AFTER_FAILURE * (1 << (failed - 1)), LONGEST_AFTER_FAILURE)
    tags = range_tags(*found)
    same = [all(record.dagster_run.tags.get(name) == day for name, day in tags.items()) for record in before[:2]]
    return AFTER_FAILURE if same == [True, True] else None


def _last_day(record: dg.RunRecord) -> date | None:
    tags = record.dagster_run.tags
    return date.fromisoformat(tags[RANGE_END_TAG]) if RANGE_START_TAG in tags and RANGE_END_TAG in tags else None


async def _look(url: str, portal: Portal, now: datetime) -> tuple[list[Unfinished], list[dg.AssetCheckResult]]:
    async with open_pool(url, size=1) as pool, pool.connection() as connection:
        left = await unfinished.read(connection, portal.portal, WORKS_FROM)
        checks = [await every_night_ran(connection, portal, now)]
        checks += [await no_failed_calls(connection, portal, step) for step in UPSTREAM]
        checks += [nothing_overdue(portal, step, left, now) for step in WORKS_FROM]
        return left, checks


def _changed(checks: Sequence[dg.AssetCheckResult], cursor: str | None) -> tuple[list[dg.AssetCheckEvaluation], str]:
    """The results that are not as they were told last, and the cursor that keeps what is told now."""
    told: dict[str, str] = json.loads(cursor) if cursor else {}
    now: dict[str, str] = {}
    changed = []
    for one in checks:
        key, name = one.asset_key, one.check_name
        assert key is not None and name is not None  # noqa: S101 - standing.py gives both
        now[label := f"{key.path[-1]}/{name}"] = "" if one.passed else str(one.description)
        if now[label] != told.get(label, ""):
            changed.append(_evaluation(one, key, name))
    return changed, json.dumps({label: says for label, says in now.items() if says}, ensure_ascii=False)


def _evaluation(one: dg.AssetCheckResult, key: dg.AssetKey, name: str) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=name,
        passed=one.passed,
        severity=one.severity,
        description=one.description,
        metadata=one.metadata,
    )
