"""Doctor's look at the application database, and at Dagster's beside it."""

from __future__ import annotations

import asyncio

import psycopg

from dialog_assets.cli.doctor.examination import Check, Context, Finding, Unwell
from dialog_assets.store import rules, schema, server
from dialog_assets.store.connections import connect
from dialog_assets.store.errors import UnsuitableDatabase
from dialog_assets.store.faults import sentence
from dialog_assets.store.trial import trial


def checks(context: Context) -> list[Check]:
    """One check of the database, one of Dagster's."""
    return [Check("Postgres", lambda: tables(context)), Check("Postgres of Dagster", lambda: dagster(context))]


async def tables(context: Context) -> list[Finding]:
    """Whether a night can be stored, and every portal has its tables. Raises Unwell."""
    pool = context.database()
    try:
        await pool.transact(schema.check)
        known = await pool.transact(rules.portals)
        found = await trial(str(pool.conninfo))
    except UnsuitableDatabase as error:
        raise Unwell(str(error)) from None
    except psycopg.Error as error:
        raise Unwell(f"{sentence(error)}.") from None
    missing = [portal.portal for portal in context.portals if portal.portal not in known]
    if missing:
        raise Unwell(f"no tables for {', '.join(missing)}: run dialog-assets setup-portals.")
    pooled = ", through a pooler" if found.pooled else ""
    findings = [Finding("Postgres", "ok", f"version {found.version}{pooled}, tables for {', '.join(sorted(known))}")]
    if not found.may_create:
        advice = "a night goes well, but setup-portals will need a role that may CREATE in the tables' schema."
        findings.append(Finding("Postgres", "warn", advice))
    return findings


async def dagster(context: Context) -> str:
    """Whether Dagster can keep its runs. Raises Unwell."""
    url = await asyncio.to_thread(server.dagster_url, str(context.database().conninfo))
    try:
        connection = await connect(server.with_scheme(url, "postgresql"))
        async with connection:
            cursor = await connection.execute(
                """
                SELECT current_database() AS name, to_regclass('runs') IS NOT NULL AS has_tables,
                    coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create
                """
            )
            row = await cursor.fetchone()
    except psycopg.Error as error:
        raise Unwell(f"{sentence(error)}.") from None
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    if not row["has_tables"] and not row["may_create"]:
        raise Unwell(f"the role may not CREATE tables in database {row['name']}: GRANT it, or let it own the database.")
    return f"database {row['name']}"
