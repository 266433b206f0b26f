"""The sensor of unfinished recognition, evaluated as the daemon does it, over tables as runs leave them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import dagster as dg
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.assets import sensors
from dialog_assets.assets.jobs import RANGE_END_TAG, RANGE_START_TAG
from dialog_assets.assets.sensors import _request, _wait, due_range
from dialog_assets.assets.standing import last_night
from dialog_assets.assets.steps import WORKS_FROM
from dialog_assets.definitions import build_defs
from dialog_assets.portals import Portal
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.store import ledger, nights, unfinished
from dialog_assets.store.unfinished import Unfinished
from dialog_assets_tests.store.rows import PORTAL, Pool, call, day, put_calls, put_step, with_pool

JOB = "okna_sever_unfinished"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A throw-away instance."""
    with dg.instance_for_test() as instance:
        yield instance


def evaluated(portals: list[Portal], instance: dg.DagsterInstance, cursor: str | None = None) -> Any:
    """All that the sensor says now."""
    repository = build_defs(portals).get_repository_def()
    resources = {"postgres": PostgresResource()}
    with dg.build_sensor_context(
        instance=instance, repository_def=repository, resources=resources, cursor=cursor
    ) as context:
        return repository.get_sensor_def(JOB).evaluate_tick(context)


def tick(portals: list[Portal], instance: dg.DagsterInstance) -> dg.RunRequest | str:
    """What the sensor says now: its one run request, or why it skips."""
    data = evaluated(portals, instance)
    if not data.run_requests:
        assert data.skip_message is not None
        return str(data.skip_message)
    (request,) = data.run_requests
    assert isinstance(request, dg.RunRequest)
    return request


def asked(request: dg.RunRequest | str) -> tuple[str, str]:
    """The range that it asks for."""
    assert isinstance(request, dg.RunRequest), request
    return request.tags[RANGE_START_TAG], request.tags[RANGE_END_TAG]


async def put(pool: Pool, number: int, offset: int, state: Any = "waiting", **fields: Any) -> None:
    """A call with an archived recording and a state at step transcripts; None: the run ended before it had one."""
    await put_calls(pool, call(number, day(offset)))
    await put_step(pool, number, "audio_files", "done", output_key=f"sha{number}")
    if state is not None:
        await put_step(pool, number, "transcripts", state, input_key=f"sha{number}", **fields)


async def buy(pool: Pool, number: int, *, ago: timedelta, key: str | None = None) -> None:
    """A purchase that is at the vendor since `ago`."""
    name = f"voicekit/{number}/{key or f'sha{number}'}"
    intent = {"vendor": "voicekit", "model": "deferred", "step": "transcripts", "day": day(0), "call_id": number}
    async with pool.connection() as connection:
        await ledger.ask(connection, PORTAL, name, {**intent, "rub_rate": Decimal(1)})
        await ledger.accepted(connection, PORTAL, name, "104")
        await connection.execute(
            "UPDATE ledger SET asked_at = asked_at - %s WHERE portal = %s AND request_key = %s", [ago, PORTAL, name]
        )


def now(**offset: float) -> datetime:
    """A moment from now."""
    return datetime.now(UTC) + timedelta(**offset)


def test_nothing_waits(database: str, portals: list[Portal], instance: dg.DagsterInstance) -> None:
    """Calls that wait for something else, and those that are done, are no reason for a run."""

    async def work(pool: Pool) -> None:
        await put(pool, 1, 0, "done", output_key="k")
        await put(pool, 2, 0, "waiting", reason="recording_not_ready")
        await put(pool, 4, 0, "failed")
        await buy(pool, 4, ago=timedelta(hours=2))

    with_pool(database, work)
    assert tick(portals, instance) == "Nothing of okna_sever is left to be done."


def test_what_is_due_becomes_one_run(database: str, portals: list[Portal], instance: dg.DagsterInstance) -> None:
    """One range run from the first to the last day with something due, marked with the portal, that the job can do."""

    async def work(pool: Pool) -> None:
        await put(pool, 1, 2, reason="recognition", next_try=now(minutes=-1))
        await put(pool, 2, 5, reason="recogniser_busy", next_try=now(seconds=-1))
        await put(pool, 3, 9, reason="recognition", next_try=now(minutes=10))

    with_pool(database, work)
    request = tick(portals, instance)
    assert asked(request) == (day(2).isoformat(), day(5).isoformat())
    assert isinstance(request, dg.RunRequest)
    assert request.tags["portal"] == PORTAL
    assert request.run_key == tick(portals, instance).run_key  # type: ignore[union-attr]
    job = build_defs(portals).get_repository_def().get_job(JOB)
    assert isinstance(job.partitions_def, dg.DailyPartitionsDefinition)
    keys = job.partitions_def.get_partition_keys_in_range(dg.PartitionKeyRange(*asked(request)))
    assert len(keys) == 4


def test_what_is_not_due_is_left_alone(database: str, portals: list[Portal], instance: dg.DagsterInstance) -> None:
    """The skip says how many wait and when the next is asked for, in the portal's time."""
    moment = now(minutes=90)

    async def work(pool: Pool) -> None:
        await put(pool, 1, 0, reason="recognition", next_try=moment)
        await put(pool, 2, 1, reason="recognition", next_try=now(hours=3))

    with_pool(database, work)
    local = moment.astimezone(portals[1].zone)
    assert tick(portals, instance) == (
        f"2 calls of okna_sever are to be tried again (transcripts); the next is asked for at {local:%Y-%m-%d %H:%M}."
    )


def test_runs_do_not_pile_up(database: str, portals: list[Portal], instance: dg.DagsterInstance) -> None:
    """While any run of the portal is on its way there is no other; another portal's is no obstacle."""
    with_pool(database, lambda pool: put(pool, 1, 0, reason="recognition", next_try=now(minutes=-1)))
    repository = build_defs(portals).get_repository_def()
    tags = {"portal": "avto_ural"}
    instance.create_run_for_job(repository.get_job("avto_ural_daily"), status=dg.DagsterRunStatus.STARTED, tags=tags)
    assert asked(tick(portals, instance))
    run = instance.create_run_for_job(
        repository.get_job("okna_sever_daily"), status=dg.DagsterRunStatus.STARTING, tags={"portal": PORTAL}
    )
    assert (
        tick(portals, instance) == f"Run {run.run_id} of okna_sever is in progress; what is left after it comes next."
    )


def test_days_may_come_again(database: str, portals: list[Portal], instance: dg.DagsterInstance) -> None:
    """After a run the same days have another run key; after one that failed they have to wait for an hour."""
    with_pool(database, lambda pool: put(pool, 1, 0, reason="recognition", next_try=now(minutes=-1)))
    repository = build_defs(portals).get_repository_def()
    first = tick(portals, instance)
    ended = instance.create_run_for_job(repository.get_job(JOB), status=dg.DagsterRunStatus.SUCCESS)
    second = tick(portals, instance)
    assert asked(first) == asked(second)
    assert first.run_key != second.run_key  # type: ignore[union-attr]
    assert ended.run_id in str(second.run_key)  # type: ignore[union-attr]
    failed = instance.create_run_for_job(repository.get_job(JOB), status=dg.DagsterRunStatus.STARTED)
    instance.report_run_failed(failed)
    assert str(tick(portals, instance)).startswith(f"Run {failed.run_id} failed; the next is asked for at ")


@pytest.mark.parametrize(
    ("state", "minutes", "runs"), [(None, 31, 1), (None, 20, 0), ("failed", 20, 1), ("failed", 10, 0)]
)
def test_a_killed_run_leaves_its_purchases_to_the_sensor(
    database: str, portals: list[Portal], instance: dg.DagsterInstance, state: str | None, minutes: int, runs: int
) -> None:
    """What was bought and never heard of is taken up on any day, once nobody has touched it for half an hour; one whose call
    failed, when that has been left alone for its quarter of an hour."""

    async def work(pool: Pool) -> None:
        await put(pool, 1, 3, state, **({} if state is None else {"next_try": now(minutes=-1)}))
        await buy(pool, 1, ago=timedelta(minutes=minutes))
        async with pool.connection() as connection:
            await connection.execute(
                "UPDATE call_steps SET updated_at = now() - make_interval(mins => %s) WHERE step = 'transcripts'",
                [minutes],
            )

    with_pool(database, work)
    assert isinstance(tick(portals, instance), dg.RunRequest) == bool(runs)


def test_a_purchase_of_other_bytes_is_no_reason(
    database: str, portals: list[Portal], instance: dg.DagsterInstance
) -> None:
    """The recording was replaced meanwhile: no run would take the purchase up, so none is asked for."""

    async def work(pool: Pool) -> None:
        await put(pool, 1, 3, "done", output_key="k")
        await buy(pool, 1, ago=timedelta(hours=2), key="before")

    with_pool(database, work)
    assert tick(portals, instance) == "Nothing of okna_sever is left to be done."


CHAIN = ("audio_files", "transcripts", "fixed_dialogs", "classifications", "criteria_scores")


async def put_chain(pool: Pool, number: int, offset: int, left_at: str) -> None:
    """A call that is done up to the step before `left_at`, which has not come to it."""
    await put_calls(pool, call(number, day(offset)))
    await put_step(pool, number, "users", "done", output_key="k")
    await put_step(pool, number, "entities", "done", output_key="k")
    before = f"disk:{1000 + number}"
    for step in CHAIN[: CHAIN.index(left_at)]:
        await put_step(pool, number, step, "done", input_key=before, output_key=f"{step}{number}")
        before = f"{step}{number}"


async def aged(pool: Pool, minutes: float, attempts: int | None = None) -> None:
    """All that was recorded is so old."""
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE call_steps SET updated_at = now() - make_interval(secs => 60 * %s), attempts = coalesce(%s, attempts)",
            [minutes, attempts],
        )


async def begin_nights(pool: Pool, offset: int) -> None:
    """The portal's first night was so many days after Monday."""
    async with pool.connection() as connection:
        await nights.begin(connection, PORTAL, day(offset))


@pytest.mark.parametrize("step", CHAIN)
def test_a_failure_that_may_pass_is_tried_again(
    database: str, portals: list[Portal], instance: dg.DagsterInstance, step: str
) -> None:
    """An outage's failures of any step and day are taken up, from that step on, without a night that has the day."""

    async def work(pool: Pool) -> None:
        await put_chain(pool, 1, 3, step)
        key = f"{CHAIN[CHAIN.index(step) - 1]}1" if step != CHAIN[0] else "disk:1001"
        await put_step(pool, 1, step, "failed", reason="away", input_key=key, next_try=now(hours=-1))
        await aged(pool, 16)

    with_pool(database, work)
    request = tick(portals, instance)
    assert asked(request) == (day(3).isoformat(), day(3).isoformat())
    steps = [key.path[1] for key in request.asset_selection]  # type: ignore[union-attr]
    assert steps == [*CHAIN[CHAIN.index(step) :], "entity_summaries"]


@pytest.mark.parametrize(
    ("attempts", "minutes", "runs"),
    [(1, 14, 0), (1, 16, 1), (2, 16, 0), (2, 31, 1), (5, 200, 0), (5, 250, 1), (40, 700, 0), (40, 721, 1)],
)
def test_what_fails_again_and_again_is_tried_less_and_less(
    database: str, portals: list[Portal], instance: dg.DagsterInstance, attempts: int, minutes: int, runs: int
) -> None:
    """After a quarter of an hour, then half an hour, and so on, at last twice a day."""

    async def work(pool: Pool) -> None:
        await put(pool, 1, 0, "failed", reason="llm_unavailable", next_try=now(hours=-100))
        await aged(pool, minutes, attempts)

    with_pool(database, work)
    assert isinstance(tick(portals, instance), dg.RunRequest) == bool(runs)


@pytest.mark.parametrize("step", [*CHAIN, "entity_summaries"])
@pytest.mark.parametrize(("nights_from", "runs"), [(None, 0), (2, 1), (3, 1), (4, 0)])
def test_what_no_run_has_come_to(
    database: str, portals: list[Portal], instance: dg.DagsterInstance, step: str, nights_from: int | None, runs: int
) -> None:
    """A night that stopped leaves its calls to the sensor; days before the first night are an engineer's own choice."""

    async def work(pool: Pool) -> None:
        await put_chain(pool, 1, 3, step if step in CHAIN else CHAIN[-1])
        if step not in CHAIN:
            await put_step(pool, 1, CHAIN[-1], "done", input_key="classifications1", output_key="s")
        await aged(pool, 31)
        if nights_from is not None:
            await begin_nights(pool, nights_from)

    with_pool(database, work)
    request = tick(portals, instance)
    assert isinstance(request, dg.RunRequest) == bool(runs)
    if isinstance(request, dg.RunRequest):
        assert request.asset_selection is not None
        assert request.asset_selection[0].path[1] == step


def test_nothing_waits_behind_what_fails_every_time(
    database: str, portals: list[Portal], instance: dg.DagsterInstance
) -> None:
    """After a run that failed the days after its range come first, and the next follows later and later."""

    async def work(pool: Pool) -> None:
        await put(pool, 1, 0, reason="recognition", next_try=now(minutes=-1))
        await put(pool, 2, 40, reason="recognition", next_try=now(minutes=-1))

    with_pool(database, work)
    first = tick(portals, instance)
    assert asked(first) == (day(0).isoformat(), day(0).isoformat())
    repository = build_defs(portals).get_repository_def()
    for hours in (1, 2, 4):
        run = instance.create_run_for_job(repository.get_job(JOB), status=dg.DagsterRunStatus.STARTED, tags=first.tags)  # type: ignore[union-attr]
        instance.report_run_failed(run)
        (record,) = instance.get_run_records(dg.RunsFilter(run_ids=[run.run_id]))
        left = with_pool(database, left_over)
        request = _request(instance, portals[1], left, now(hours=hours, minutes=1))
        assert asked(request) == (day(40).isoformat(), day(40).isoformat()), record
        assert isinstance(_request(instance, portals[1], left, now(hours=hours, minutes=-1)), str)


async def left_over(pool: Pool) -> list[Unfinished]:
    """What is left."""
    async with pool.connection() as connection:
        return await unfinished.read(connection, PORTAL, WORKS_FROM)


def test_the_same_days_in_vain_are_not_asked_for_every_minute(
    database: str, portals: list[Portal], instance: dg.DagsterInstance
) -> None:
    """Two runs that ended well and left the same days as they were are followed by a pause."""
    with_pool(database, lambda pool: put(pool, 1, 0, reason="recognition", next_try=now(minutes=-1)))
    request = tick(portals, instance)
    job = build_defs(portals).get_repository_def().get_job(JOB)
    for _ in range(2):
        assert isinstance(tick(portals, instance), dg.RunRequest)
        instance.create_run_for_job(job, status=dg.DagsterRunStatus.SUCCESS, tags=request.tags)  # type: ignore[union-attr]
        (record, *_) = instance.get_run_records(limit=1)
        if record.end_time is None:  # a run that was made in its end has no time of it
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sensors, "_wait", lambda before, found: None)
                assert isinstance(tick(portals, instance), dg.RunRequest)
    left = with_pool(database, left_over)
    before = instance.get_run_records(dg.RunsFilter(job_name=JOB), limit=5)
    assert _wait(before, (day(0), day(0))) == sensors.AFTER_FAILURE
    assert _wait(before, (day(0), day(1))) is None
    assert len(left) == 1


def test_standing_checks_turn_by_themselves(database: str, portals: list[Portal], instance: dg.DagsterInstance) -> None:
    """Without any run: nights that did not run, failed and overdue calls turn their checks, once, and back when they are well."""

    async def work(pool: Pool) -> None:
        await put_chain(pool, 1, 3, "transcripts")
        await put_step(pool, 1, "transcripts", "failed", reason="odd", detail="no\nJSON", input_key="audio_files1")
        await put_chain(pool, 2, 4, "fixed_dialogs")
        await begin_nights(pool, 0)
        await aged(pool, 60 * 4)

    with_pool(database, work)
    first = evaluated(portals, instance)
    told = {(one.asset_key.path[1], one.check_name): one for one in first.asset_events}
    assert {key: one.passed for key, one in told.items()} == {
        ("calls", "every_night_ran"): False,
        ("transcripts", "no_failed_calls"): False,
        ("fixed_dialogs", "nothing_overdue"): False,
    }
    missed = told["calls", "every_night_ran"]
    assert f"the first for {day(0)}" in missed.description
    assert f"dialog-assets backfill --portal okna_sever --from {day(0)} --to " in missed.description
    failed = told["transcripts", "no_failed_calls"].description
    assert failed.startswith(f"1 failed: call 1 of {day(3)} odd (no JSON); to try again: ")
    assert failed.endswith(f"--from {day(3)} --to {day(3)} --step transcripts --retry-failed")
    overdue = told["fixed_dialogs", "nothing_overdue"]
    assert overdue.severity == dg.AssetCheckSeverity.WARN
    assert f"call 2 of {day(4)}" in overdue.description
    assert evaluated(portals, instance, first.cursor).asset_events == []

    async def mend(pool: Pool) -> None:
        await put_step(pool, 1, "transcripts", "done", input_key="audio_files1", output_key="none")
        await put_step(pool, 2, "fixed_dialogs", "skipped", input_key="transcripts2")
        async with pool.connection() as connection:
            last = last_night(portals[1], now())
            days = [day(0) + timedelta(days=n) for n in range((last - day(0)).days + 1)]
            await nights.mark_read(connection, PORTAL, days)

    with_pool(database, mend)
    again = evaluated(portals, instance, first.cursor).asset_events
    assert {(one.asset_key.path[1], one.check_name): one.passed for one in again} == dict.fromkeys(told, True)


def test_before_there_are_tables(postgres: str, portals: list[Portal], instance: dg.DagsterInstance) -> None:
    """A portal whose tables are not made yet is told how to get them."""
    from dialog_assets.store import server

    with psycopg.connect(server.with_database(postgres, "postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE bare_of_tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", server.with_database(postgres, "bare_of_tables"))
        assert tick(portals, instance) == (
            "There are no tables for okna_sever yet, or not all of this version: run dialog-assets setup-portals."
        )
    with psycopg.connect(server.with_database(postgres, "postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE bare_of_tables WITH (FORCE)")


def test_the_job_does_what_is_asked(database: str, portals: list[Portal], instance: dg.DagsterInstance) -> None:
    """The request's tags are those of a range run: every step from the transcripts on materializes every day of it."""
    with_pool(database, lambda pool: put(pool, 1, 1, reason="recognition", next_try=now(minutes=-1)))
    request = tick(portals, instance)
    assert isinstance(request, dg.RunRequest)
    with psycopg.connect(database) as connection:  # what the day waits for is not the matter here
        connection.execute("TRUNCATE call_steps")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("S3_BUCKET", "VOICEKIT_API_KEY", "OPENAI_API_KEY", "DEEPSEEK_API_KEY", "AWS_DEFAULT_REGION"):
            patch.setenv(name, "x")
        patch.setenv("VOICEKIT_SECRET_KEY", "c2VjcmV0")
        patch.setenv("VOICEKIT_ENDPOINT", "127.0.0.1:1")
        job = build_defs(portals).get_repository_def().get_job(JOB)
        result = job.execute_in_process(instance=instance, tags=request.tags, asset_selection=request.asset_selection)
    assert result.success
    done = {(event.asset_key.path[1], event.partition) for event in result.get_asset_materialization_events()}  # type: ignore[union-attr]
    assert done == {
        (step, day(1).isoformat())
        for step in ("transcripts", "fixed_dialogs", "classifications", "criteria_scores", "entity_summaries")
    }


@given(
    offsets=st.lists(st.tuples(st.integers(-5, 400), st.booleans()), max_size=12, unique_by=lambda one: one[0]),
    size=st.none() | st.integers(1, 40),
)
def test_every_day_comes_to_its_turn(portals: list[Portal], offsets: list[tuple[int, bool]], size: int | None) -> None:
    """Run after run takes the first days that are due, never more than a run may have, until none is left."""
    portal = portals[1].model_copy(update={"days_per_run": size})
    today = datetime(2027, 1, 1, 12, tzinfo=portal.zone)
    at = today + timedelta(minutes=5)
    days = [
        Unfinished(portal.start_date + timedelta(days=o), "transcripts", 2, int(due), at) for o, due in sorted(offsets)
    ]
    wanted = {one.day for one in days if one.due and portal.start_date <= one.day < today.date()}
    taken: set[date] = set()
    while not isinstance(found := due_range(days, portal, today), str):
        first, last = found
        assert first == min(wanted - taken)
        assert (last - first).days < (size or 31)
        now_taken = {one for one in wanted if first <= one <= last}
        taken |= now_taken
        days = [one for one in days if one.day not in now_taken]
    assert taken == wanted


def test_the_sensor_is_on_by_itself(portals: list[Portal]) -> None:
    """A result can be had for five days: nobody has to think of it."""
    sensor = build_defs(portals).get_repository_def().get_sensor_def(JOB)
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
