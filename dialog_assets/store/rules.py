"""Tables portals, categories and criteria: what is configured. A changed text is a new version; nothing is removed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from dialog_assets.portals import Portal
from dialog_assets.store.pool import Connection


async def portals(connection: Connection) -> set[str]:
    """The portals that `setup-portals` has made tables for; none before its first run."""
    cursor = await connection.execute("SELECT to_regclass('portals') IS NOT NULL AS made")
    row = await cursor.fetchone()
    if row is None or not row["made"]:
        return set()
    cursor = await connection.execute("SELECT portal FROM portals")
    return {row["portal"] for row in await cursor.fetchall()}


async def record(connection: Connection, portal: Portal) -> None:
    """Write the portal's present categories and criteria."""
    for statement, values in statements(portal):
        await connection.execute(statement, values)


async def categories_since(connection: Connection, portal: Portal) -> datetime:
    """When the newest of the portal's present categories, in their present wording, was first seen."""
    cursor = await connection.execute(
        """
        SELECT max(c.first_seen_at) AS since FROM categories c
        JOIN unnest(%s::text[], %s::text[]) AS now (name, version) USING (name, version) WHERE c.portal = %s
        """,
        [[one.name for one in portal.categories], [one.version for one in portal.categories], portal.portal],
    )
    row = await cursor.fetchone()
    assert row is not None  # noqa: S101 - an aggregate gives a row
    since: datetime = row["since"]
    return since


def statements(portal: Portal) -> list[tuple[str, list[Any]]]:
    """What `record` executes, for `setup-portals` too, which works on a blocking connection."""
    categories = """
        INSERT INTO categories (portal, name, version, title, description, criteria) VALUES (%s, %s, %s, %s, %s, %s)
        ON CONFLICT (portal, name, version) DO UPDATE SET criteria = excluded.criteria
        WHERE categories.criteria IS DISTINCT FROM excluded.criteria
        """
    criteria = """
        INSERT INTO criteria
            (portal, name, version, title, text, scale_min, scale_max, include_in_entity_description)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (portal, name, version) DO UPDATE
        SET include_in_entity_description = excluded.include_in_entity_description
        WHERE criteria.include_in_entity_description IS DISTINCT FROM excluded.include_in_entity_description
        """
    return [
        *(
            (categories, [portal.portal, one.name, one.version, one.title, one.description, list(one.criteria)])
            for one in portal.categories
        ),
        *(
            (
                criteria,
                [
                    portal.portal,
                    one.name,
                    one.version,
                    one.title,
                    one.text,
                    one.scale.min,
                    one.scale.max,
                    one.include_in_entity_description,
                ],
            )
            for one in portal.criteria
        ),
    ]
