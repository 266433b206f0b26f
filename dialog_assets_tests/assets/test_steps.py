"""What a step's run tells Dagster when it cannot go on: one sentence, and nothing of what is in the rows."""

import logging
from collections.abc import Awaitable, Callable

import dagster as dg
import pytest

from dialog_assets.assets.steps import StepRun, run_step, step_asset
from dialog_assets.portals import Portal
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.store import calls
from dialog_assets.store.pool import Connection
from dialog_assets_tests.store.rows import MONDAY, PORTAL, call

Break = Callable[[Connection], Awaitable[object]]
NAME, PHONE = "Пётр Сергеевич", "+79123456789"


async def twice(connection: Connection) -> None:
    await connection.execute("CREATE TEMP TABLE people (phone text PRIMARY KEY)")
    for _ in range(2):
        await connection.execute("INSERT INTO people VALUES (%s)", [PHONE])


BREAKS: dict[str, tuple[Break, str]] = {
    "unique": (twice, "23505"),
    "null": (lambda c: calls.write(c, PORTAL, [call(1, phone=PHONE, line=NAME, direction=None)]), "23502"),
    "number": (lambda c: c.execute("SELECT %s::text::bigint", [PHONE + NAME]), "22P02"),
    "date": (lambda c: c.execute("SELECT %s::text::date", [NAME]), "22007"),
    "json": (lambda c: c.execute("SELECT %s::text::jsonb", [f'{{"{NAME}": {PHONE}}}']), "22P02"),
    "raised": (lambda c: c.execute("SELECT no_such_column FROM calls"), "42703"),
}
"""Ways to be refused by Postgres, whose own words (message, DETAIL or CONTEXT) quote what was written."""


@pytest.mark.parametrize("way", BREAKS)
def test_what_postgres_quotes_of_rows_is_told_nowhere(
    database: str, portals: list[Portal], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], way: str
) -> None:
    """The failure names the step, the kind of error and its SQLSTATE; names and phones reach no event, log or output."""
    caplog.set_level(logging.DEBUG)
    broken, sqlstate = BREAKS[way]
    portal = next(portal for portal in portals if portal.portal == PORTAL)

    @step_asset(portal, "users")
    def users(context: dg.AssetExecutionContext, postgres: PostgresResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """A step that Postgres refuses."""

        async def core(run: StepRun) -> None:
            async with run.pool.connection() as connection:
                await broken(connection)

        return run_step(context, portal, "users", postgres, core)

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [users],
            instance=instance,
            resources={"postgres": PostgresResource()},
            partition_key=MONDAY.isoformat(),
            raise_on_error=False,
        )
        records = [str(record) for record in instance.all_logs(result.run_id)]
    assert not result.success
    (failure,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert failure.user_failure_data is not None
    told = failure.user_failure_data.description or ""
    assert told.startswith(f"{PORTAL}/users: ")
    assert f"SQLSTATE {sqlstate}" in told
    assert "\n" not in told
    said = capfd.readouterr()
    everything = "\n".join([told, *records, *map(str, result.all_events), caplog.text, said.out, said.err])
    assert records
    for secret in (NAME, NAME.split()[0], PHONE, PHONE[2:]):
        assert secret not in everything
