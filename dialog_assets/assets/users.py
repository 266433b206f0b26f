"""Asset `users`: the employees seen in the days' calls."""

from contextlib import aclosing

import dagster as dg

from dialog_assets.assets.steps import StepRun, run_step, step_asset
from dialog_assets.assets.storable import storable_row
from dialog_assets.assets.unreadable import Rows
from dialog_assets.bitrix24 import reading
from dialog_assets.bitrix24.rows import user_row
from dialog_assets.portals import Portal
from dialog_assets.resources.bitrix24 import Bitrix24Resource
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.store import calls as calls_table
from dialog_assets.store import unreadable_rows
from dialog_assets.store import users as table


def build(portal: Portal) -> dg.AssetsDefinition:
    """The asset of one portal."""

    @step_asset(portal, "users")
    def users(
        context: dg.AssetExecutionContext, postgres: PostgresResource, bitrix24: Bitrix24Resource
    ) -> dg.MaterializeResult:
        """Employees who made or took the calls (user.get): dismissed ones as inactive, those not shown as not found."""

        async def core(run: StepRun) -> None:
            await read_users(run, bitrix24)

        return run_step(context, portal, "users", postgres, core)

    return users


async def read_users(run: StepRun, bitrix24: Bitrix24Resource) -> None:
    """Read the users of the days' calls and write the changed ones.

    Of a user whose row cannot be read stays what was known; calls of such a user are failed.
    """
    portal = run.portal.portal
    async with run.pool.connection() as connection:
        asked = await calls_table.users_of(connection, portal, run.first, run.last)
    rows = Rows(run)
    unreadable: dict[int, str] = {}
    async with bitrix24.client(run.portal, run.pool) as client, aclosing(reading.users(client, asked)) as chunks:
        async for found, missing in chunks:
            known = [
                row for user, wire in found.items() if (row := rows.read("user", user_row, wire, user)) is not None
            ]
            kept = rows.take()
            unreadable |= {row.row_id: row.detail for row in kept if row.row_id}
            async with run.pool.connection() as connection, connection.transaction():
                await table.write(connection, portal, [storable_row(row) for row in known])
                await table.mark_missing(connection, portal, missing)
                await unreadable_rows.replace(connection, portal, "user", [*found, *missing], kept)
    await run.inherit()
    async with run.pool.connection() as connection:
        await table.settle(connection, portal, run.first, run.last, unreadable)
