"""Table entity_summaries: the running summary of each CRM entity, one row a version, and the texts it is made of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import date

from psycopg import sql
from psycopg.types.json import Jsonb

from dialog_assets.store import criteria_scores
from dialog_assets.store.pool import Connection, Pool, Row


async def entities_with_scores(
    pool: Pool, portal: str, first: date, last: date, *, page: int = 200
) -> AsyncIterator[Row]:
    """Rows entity_type, entity_id, calls, newest_day of the entities with calls scored in these days, `page` at a time.

    Also those whose newest summary is still made of a call of these days that belongs to another entity by now, or whose
    scores are withdrawn by now.
    """
    after = ("", 0)
    while True:
        rows = await pool.rows(
            """
            SELECT entity_type, entity_id, array_agg(call_id ORDER BY started_at, call_id) FILTER (WHERE theirs) AS calls,
                max(day) AS newest_day
            FROM (
                SELECT c.entity_type, c.entity_id, c.call_id, c.started_at, c.day, true AS theirs
                FROM calls c JOIN call_steps up ON up.portal = c.portal AND up.call_id = c.call_id
                    AND up.step = 'criteria_scores' AND up.state = 'done'
                WHERE c.portal = %(portal)s AND c.day BETWEEN %(first)s AND %(last)s AND c.entity_id IS NOT NULL
                UNION ALL
                SELECT h.entity_type, h.entity_id, c.call_id, c.started_at, c.day, false
                FROM calls c JOIN entity_changes h ON h.portal = c.portal AND h.field = 'call'
                    AND h.before = c.call_id::text
                    AND (h.entity_type, h.entity_id) IS DISTINCT FROM (c.entity_type, c.entity_id)
                CROSS JOIN LATERAL (
                    SELECT y.calls || y.calls_left_out AS calls FROM entity_summaries y WHERE y.portal = h.portal
                        AND y.entity_type = h.entity_type AND y.entity_id = h.entity_id
                    ORDER BY y.version DESC LIMIT 1
                ) newest
                WHERE c.portal = %(portal)s AND c.day BETWEEN %(first)s AND %(last)s AND c.call_id = ANY(newest.calls)
                UNION ALL
                SELECT c.entity_type, c.entity_id, c.call_id, c.started_at, c.day, false
                FROM calls c CROSS JOIN LATERAL (
                    SELECT y.calls || y.calls_left_out AS calls FROM entity_summaries y WHERE y.portal = c.portal
                        AND y.entity_type = c.entity_type AND y.entity_id = c.entity_id
                    ORDER BY y.version DESC LIMIT 1
                ) newest
                WHERE c.portal = %(portal)s AND c.day BETWEEN %(first)s AND %(last)s AND c.call_id = ANY(newest.calls)
                    AND NOT EXISTS (SELECT FROM call_steps up WHERE up.portal = c.portal AND up.call_id = c.call_id
                        AND up.step = 'criteria_scores' AND up.state = 'done')
            ) found
            WHERE (entity_type, entity_id) > (%(after_type)s, %(after_id)s)
            GROUP BY 1, 2 ORDER BY 1, 2 LIMIT %(page)s
            """,
            {
                "portal": portal,
                "first": first,
                "last": last,
                "after_type": after[0],
                "after_id": after[1],
                "page": page,
            },
        )
        for row in rows:
            yield {**row, "calls": row["calls"] or []}
        if len(rows) < page:
            return
        after = (rows[-1]["entity_type"], rows[-1]["entity_id"])


async def skip_without_entity(connection: Connection, portal: str, first: date, last: date) -> None:
    """Account for the days' scored calls that belong to no CRM entity."""
    await connection.execute(
        """
        INSERT INTO call_steps (portal, call_id, step, state, reason, input_key, attempts)
        SELECT c.portal, c.call_id, 'entity_summaries', 'skipped', 'no_entity', up.output_key, 1
        FROM calls c JOIN call_steps up ON up.portal = c.portal AND up.call_id = c.call_id
            AND up.step = 'criteria_scores' AND up.state = 'done'
        WHERE c.portal = %s AND c.day BETWEEN %s AND %s AND c.entity_id IS NULL
        ON CONFLICT (portal, call_id, step) DO UPDATE SET
            state = excluded.state, reason = excluded.reason, input_key = excluded.input_key, updated_at = now()
        WHERE (call_steps.state, call_steps.input_key) IS DISTINCT FROM (excluded.state, excluded.input_key)
        """,
        [portal, first, last],
    )


async def inputs(
    connection: Connection, portal: str, entity_type: str, entity_id: int, criteria: Mapping[str, str]
) -> list[Row]:
    """What the entity's summary is made of, over all its calls, oldest first.

    Rows call_id, call_started_at, criterion, title, score, text, scale for each of `criteria` (name → present version)
    that the call's categories select: its score by the present version, or by the newest where it has none of that; not
    where it does not apply.
    """
    query = sql.SQL(
        """
        SELECT call_id, call_started_at, criterion, title, score, text, scale_min, scale_max
        FROM (
            SELECT DISTINCT ON (c.call_id, x.criterion) c.call_id, c.started_at AS call_started_at, x.criterion, k.title,
                   x.applicable, x.score, x.text, k.scale_min, k.scale_max
            FROM calls c
            JOIN criteria_scores x ON x.portal = c.portal AND x.call_id = c.call_id
            JOIN criteria k ON k.portal = x.portal AND k.name = x.criterion AND k.version = x.version
            JOIN unnest(%s::text[], %s::text[]) AS now (criterion, version) ON now.criterion = x.criterion
            WHERE c.portal = %s AND c.entity_type = %s AND c.entity_id = %s AND {selected}
            ORDER BY c.call_id, x.criterion, (x.version = now.version) DESC, k.first_seen_at DESC, x.version
        ) AS chosen
        WHERE applicable ORDER BY call_started_at, call_id, criterion
        """
    ).format(selected=criteria_scores.IN_FORCE)
    cursor = await connection.execute(query, [list(criteria), list(criteria.values()), portal, entity_type, entity_id])
    rows = await cursor.fetchall()
    for row in rows:
        row["scale"] = (row.pop("scale_min"), row.pop("scale_max"))
    return rows


async def latest(connection: Connection, portal: str, entity_type: str, entity_id: int) -> Row | None:
    """The newest version (version, inputs_hash) of the entity's summary."""
    cursor = await connection.execute(
        """
        SELECT version, inputs_hash FROM entity_summaries
        WHERE portal = %s AND entity_type = %s AND entity_id = %s ORDER BY version DESC LIMIT 1
        """,
        [portal, entity_type, entity_id],
    )
    return await cursor.fetchone()


async def add(connection: Connection, portal: str, entity_type: str, entity_id: int, row: Row) -> None:
    """Add a version.

    version, text, average_scores, average_percent, inputs_hash, calls, inputs, inputs_left_out, calls_left_out,
    prompt_version, model, cost_rub.
    """
    await connection.execute(
        """
        INSERT INTO entity_summaries (portal, entity_type, entity_id, version, text, average_scores, inputs_hash, calls,
            prompt_version, model, cost_rub, average_percent, inputs, inputs_left_out, calls_left_out)
        VALUES (%(portal)s, %(entity_type)s, %(entity_id)s, %(version)s, %(text)s, %(average_scores)s, %(inputs_hash)s,
            %(calls)s, %(prompt_version)s, %(model)s, %(cost_rub)s, %(average_percent)s, %(inputs)s, %(inputs_left_out)s,
            %(calls_left_out)s)
        """,
        {
            "inputs": None,
            "inputs_left_out": None,
            "calls_left_out": [],
            **row,
            "portal": portal,
            "entity_type": entity_type,
            "entity_id": entity_id,
            "average_scores": Jsonb(row["average_scores"]),
            "average_percent": Jsonb(row.get("average_percent")),
        },
    )


async def end(connection: Connection, portal: str, entity_type: str, entity_id: int, inputs_hash: str) -> None:
    """Add an empty version if the newest one is made of calls: nothing that it tells is in force any more."""
    await connection.execute(
        """
        INSERT INTO entity_summaries (portal, entity_type, entity_id, version, text, average_scores, inputs_hash, calls,
            prompt_version, model, cost_rub)
        SELECT portal, entity_type, entity_id, version + 1, '', '{}', %s, '{}', prompt_version, model, 0
        FROM (
            SELECT * FROM entity_summaries WHERE portal = %s AND entity_type = %s AND entity_id = %s
            ORDER BY version DESC LIMIT 1
        ) newest
        WHERE cardinality(calls) > 0
        """,
        [inputs_hash, portal, entity_type, entity_id],
    )
