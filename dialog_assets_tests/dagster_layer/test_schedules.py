"""Each portal's night as its schedule asks for it; test_daemon.py shows that Dagster then does it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.assets.jobs import RANGE_END_TAG, RANGE_START_TAG, nightly_range, range_tags
from dialog_assets.definitions import build_defs
from dialog_assets.portals import Portal
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.store import nights
from dialog_assets_tests.store.rows import Pool, with_pool


@pytest.fixture(autouse=True)
def _database(database: str) -> None:
    """Nights look at the tables for those that did not run."""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A throw-away instance."""
    with dg.instance_for_test() as instance:
        yield instance


def night(portal: Portal, instance: dg.DagsterInstance, at: str) -> dg.RunRequest | str:
    """What the portal's schedule says at a time: its one run request, or why it skips."""
    definitions = build_defs([portal])
    repository = definitions.get_repository_def()
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=datetime.fromisoformat(at),
        repository_def=repository,
        resources={"postgres": PostgresResource()},
    ) as context:
        data = repository.get_schedule_def(f"{portal.portal}_nightly").evaluate_tick(context)
    if not data.run_requests:
        assert data.skip_message is not None
        return data.skip_message
    (request,) = data.run_requests
    return request


def asked(request: dg.RunRequest | str) -> tuple[str, str]:
    """First and last day of the range that a run request asks for."""
    assert isinstance(request, dg.RunRequest)
    return request.tags[RANGE_START_TAG], request.tags[RANGE_END_TAG]


@pytest.mark.parametrize(
    ("name", "at", "first", "last"),
    [
        # 03:15 in Moscow, UTC+3 the year round; two trailing days
        ("okna_sever", "2026-03-07T03:15:00+03:00", "2026-03-04", "2026-03-06"),
        ("okna_sever", "2026-03-07T00:15:00+00:00", "2026-03-04", "2026-03-06"),
        ("okna_sever", "2026-07-01T03:15:00+03:00", "2026-06-28", "2026-06-30"),
        ("okna_sever", "2027-01-01T03:15:00+03:00", "2026-12-29", "2026-12-31"),
        # 02:40 in Yekaterinburg, UTC+5: in UTC it is still the evening before; three trailing days
        ("avto_ural", "2026-03-09T02:40:00+05:00", "2026-03-05", "2026-03-08"),
        ("avto_ural", "2026-03-08T21:40:00+00:00", "2026-03-05", "2026-03-08"),
        # the last minute of a day and the first of the next, in the portal's zone
        ("okna_sever", "2026-03-09T20:59:00+00:00", "2026-03-06", "2026-03-08"),
        ("okna_sever", "2026-03-09T21:00:00+00:00", "2026-03-07", "2026-03-09"),
        # clipped where the portal begins
        ("okna_sever", "2026-03-04T03:15:00+03:00", "2026-03-02", "2026-03-03"),
        ("okna_sever", "2026-03-03T03:15:00+03:00", "2026-03-02", "2026-03-02"),
    ],
)
def test_night_asks_for_yesterday_and_the_trailing_days(
    portals: list[Portal], instance: dg.DagsterInstance, name: str, at: str, first: str, last: str
) -> None:
    """One run of the days up to yesterday in the portal's own zone, marked with the portal for the run queue."""
    portal = next(portal for portal in portals if portal.portal == name)
    request = night(portal, instance, at)
    assert asked(request) == (first, last)
    assert isinstance(request, dg.RunRequest)
    assert request.tags["portal"] == name
    assert request.partition_key is None


@pytest.mark.parametrize("at", ["2026-03-02T03:15:00+03:00", "2026-03-02T23:59:00+03:00", "2026-01-15T03:15:00+03:00"])
def test_night_before_the_first_finished_day_is_skipped(
    portals: list[Portal], instance: dg.DagsterInstance, at: str
) -> None:
    """Until the portal's first day is over the schedule skips, and says when it begins."""
    portal = next(portal for portal in portals if portal.portal == "okna_sever")
    assert night(portal, instance, at) == "okna_sever starts on 2026-03-02: there is no finished day yet."


def test_run_key_is_once_a_night(portals: list[Portal], instance: dg.DagsterInstance) -> None:
    """The same night asked twice has one run key, so Dagster runs it once; the next night has another."""
    keys = []
    for at in ("2026-03-07T03:15:00+03:00", "2026-03-07T03:15:59+03:00", "2026-03-08T03:15:00+03:00"):
        request = night(portals[1], instance, at)
        assert isinstance(request, dg.RunRequest)
        keys.append(request.run_key)
    assert keys == ["2026-03-06", "2026-03-06", "2026-03-07"]


@pytest.mark.parametrize(
    ("at", "first", "last"),
    [
        # Berlin: the nights after 2026-03-29, a day of 23 hours, and 2026-10-25, one of 25
        ("2026-03-30T03:15:00+02:00", "2026-03-27", "2026-03-29"),
        ("2026-03-29T03:15:00+02:00", "2026-03-26", "2026-03-28"),
        ("2026-10-26T03:15:00+01:00", "2026-10-23", "2026-10-25"),
        ("2026-10-25T23:59:00+01:00", "2026-10-22", "2026-10-24"),
    ],
)
def test_night_where_the_clock_is_changed(
    portals: list[Portal], instance: dg.DagsterInstance, at: str, first: str, last: str
) -> None:
    """Days of 23 and 25 hours are days."""
    portal = portals[1].model_copy(update={"time_zone": "Europe/Berlin"})
    assert asked(night(portal, instance, at)) == (first, last)


def read_days(database: str, portal: Portal, *days: str) -> None:
    """These days have been read."""

    async def work(pool: Pool) -> None:
        async with pool.connection() as connection:
            await nights.mark_read(connection, portal.portal, [date.fromisoformat(day) for day in days])

    with_pool(database, work)


def test_nights_that_did_not_run_are_caught_up_as_one_run(
    portals: list[Portal], instance: dg.DagsterInstance, database: str
) -> None:
    """After ten nights without a daemon the next one asks for all of their days at once."""
    portal = portals[1]
    assert asked(night(portal, instance, "2026-04-02T03:15:00+03:00")) == ("2026-03-30", "2026-04-01")
    read_days(database, portal, "2026-03-30", "2026-03-31", "2026-04-01")
    assert asked(night(portal, instance, "2026-04-12T03:15:00+03:00")) == ("2026-04-02", "2026-04-11")
    # That run failed: its days are still to be read.
    assert asked(night(portal, instance, "2026-04-13T03:15:00+03:00")) == ("2026-04-02", "2026-04-12")


def test_the_first_night_buys_no_months(portals: list[Portal], instance: dg.DagsterInstance) -> None:
    """A portal that begins months ago has its first night of the usual days; what was before is a backfill's."""
    portal = portals[1]
    assert asked(night(portal, instance, "2026-11-02T03:15:00+03:00")) == ("2026-10-30", "2026-11-01")


def test_a_day_that_was_tried_by_hand_begins_no_nights(
    portals: list[Portal], instance: dg.DagsterInstance, database: str
) -> None:
    """One day run in spring, the schedule switched on in autumn: what lies between is not bought."""
    portal = portals[1]
    read_days(database, portal, "2026-03-05")
    assert asked(night(portal, instance, "2026-11-02T03:15:00+03:00")) == ("2026-10-30", "2026-11-01")


@pytest.mark.parametrize(
    ("limit", "first"), [(31, "2026-10-01"), (5, "2026-10-27"), (0, "2026-10-30"), (366, "2026-03-30")]
)
def test_catching_up_is_bounded(portals: list[Portal], instance: dg.DagsterInstance, limit: int, first: str) -> None:
    """A schedule that was off for half a year goes back `catch_up_days`, and never less than its usual days."""
    portal = portals[1].model_copy(update={"catch_up_days": limit})
    night(portal, instance, "2026-04-02T03:15:00+03:00")
    assert asked(night(portal, instance, "2026-11-02T03:15:00+03:00")) == (first, "2026-11-01")


def test_a_start_date_that_was_moved_is_kept_to(portals: list[Portal], instance: dg.DagsterInstance) -> None:
    """Missed days before the portal's start date are none."""
    night(portals[1], instance, "2026-04-02T03:15:00+03:00")
    later = portals[1].model_copy(update={"start_date": date(2026, 4, 8)})
    assert asked(night(later, instance, "2026-04-12T03:15:00+03:00")) == ("2026-04-08", "2026-04-11")


def test_schedules_tick_at_the_portals_own_time(portals: list[Portal]) -> None:
    """`nightly_at` is the minute and hour of the cron line, in the portal's zone."""
    repository = build_defs(portals).get_repository_def()
    for portal in portals:
        schedule = repository.get_schedule_def(f"{portal.portal}_nightly")
        hour, minute = portal.nightly_at.split(":")
        assert schedule.cron_schedule == f"{int(minute)} {int(hour)} * * *"
        assert schedule.execution_timezone == portal.time_zone


@given(
    start=st.dates(date(2024, 1, 1), date(2026, 12, 31)),
    after=st.integers(-5, 60),
    trailing=st.integers(0, 31),
)
def test_nights_leave_no_day_out(portals: list[Portal], start: date, after: int, trailing: int) -> None:
    """A night works on yesterday and exactly the trailing days that the portal has; consecutive nights leave no gap."""
    portal = portals[0].model_copy(update={"start_date": start, "trailing_days": trailing})
    tonight = start + timedelta(days=after)
    days = nightly_range(portal, tonight)
    if after < 1:
        assert days is None
        return
    assert days is not None
    first, last = days
    assert last == tonight - timedelta(days=1)
    assert first >= start
    assert (last - first).days == min(trailing, after - 1)


@pytest.mark.parametrize(("first", "last"), [("2026-03-02", "2026-03-02"), ("2026-03-02", "2026-03-13")])
def test_range_tags_are_dagsters(portals: list[Portal], first: str, last: str) -> None:
    """The tags name partitions of the job, and Dagster itself reads the same days from them."""
    zone = ZoneInfo(portals[0].time_zone)
    job = build_defs(portals).get_repository_def().get_job(f"{portals[0].portal}_daily")
    partitions = job.partitions_def
    assert isinstance(partitions, dg.DailyPartitionsDefinition)
    tags = range_tags(date.fromisoformat(first), date.fromisoformat(last))
    keys = partitions.get_partition_keys_in_range(dg.PartitionKeyRange(tags[RANGE_START_TAG], tags[RANGE_END_TAG]))
    assert (keys[0], keys[-1], len(keys)) == (
        first,
        last,
        (date.fromisoformat(last) - date.fromisoformat(first)).days + 1,
    )
    assert partitions.time_window_for_partition_key(first).start.astimezone(zone).isoformat()[:16] == f"{first}T00:00"
