"""Reading across tables: one call with all that is known of it, for people."""

from __future__ import annotations

from psycopg import sql

from dialog_assets.store import criteria_scores
from dialog_assets.store.pool import Connection, Row


async def example(connection: Connection, portal: str) -> Row | None:
    """A telling call: scored, stereo, known to the CRM, with many scores and edits.

    Columns of the call, turns, edits, categories, scores, summary, cost_rub.
    """
    query = sql.SQL(
        """
        SELECT c.call_id, c.started_at AT TIME ZONE p.time_zone AS started_at, c.direction, c.duration_s,
               e.title AS entity_title, f.turns, f.edits,
               (SELECT array_agg(t.title ORDER BY k.confidence DESC) FROM classifications k
                   JOIN categories t ON t.portal = k.portal AND t.name = k.category AND t.version = k.category_version
                   WHERE k.portal = c.portal AND k.call_id = c.call_id) AS categories,
               s.scores,
               (SELECT y.text FROM entity_summaries y WHERE y.portal = c.portal AND y.entity_type = c.entity_type
                   AND y.entity_id = c.entity_id ORDER BY y.version DESC LIMIT 1) AS summary,
               (SELECT sum(l.cost_rub) FROM ledger l WHERE l.portal = c.portal AND l.call_id = c.call_id) AS cost_rub
        FROM calls c
        JOIN portals p ON p.portal = c.portal
        JOIN fixed_dialogs f ON f.portal = c.portal AND f.call_id = c.call_id
        JOIN LATERAL (
            SELECT jsonb_agg(jsonb_build_object('title', r.title, 'score', x.score, 'scale_max', r.scale_max,
                       'text', x.text, 'quotes', x.quotes) ORDER BY r.title) AS scores
            FROM criteria_scores x
            JOIN criteria r ON r.portal = x.portal AND r.name = x.criterion AND r.version = x.version
            WHERE x.portal = c.portal AND x.call_id = c.call_id AND {in_force}
        ) s ON s.scores IS NOT NULL
        LEFT JOIN entities e ON e.portal = c.portal AND e.entity_type = c.entity_type AND e.entity_id = c.entity_id
        JOIN audio_files a ON a.portal = c.portal AND a.call_id = c.call_id
        WHERE c.portal = %s
        ORDER BY (e.title IS NOT NULL) DESC, a.channels DESC, jsonb_array_length(s.scores) DESC,
            jsonb_array_length(f.edits) DESC, c.call_id
        LIMIT 1
        """
    ).format(in_force=criteria_scores.IN_FORCE)
    cursor = await connection.execute(query, [portal])
    return await cursor.fetchone()
