"""Reading across tables: what a step produced on each day, as named numbers for metadata and reports."""

from __future__ import annotations

from datetime import date

from dialog_assets.store.pool import Connection

_QUERIES = {
    "calls": "round(sum(c.duration_s) / 60.0, 1) AS minutes FROM calls c",
    "users": "count(DISTINCT c.user_id) AS users FROM calls c",
    "entities": """
        count(DISTINCT (c.entity_type, c.entity_id)) FILTER (WHERE c.entity_id IS NOT NULL) AS entities,
        count(DISTINCT d.deal_id) AS deals
        FROM calls c LEFT JOIN entity_deals d ON d.portal = c.portal AND d.entity_type = c.entity_type
            AND d.entity_id = c.entity_id""",
    "audio_files": """
        count(*) AS recordings, round(sum(x.duration_s) / 60, 1) AS minutes, round(sum(x.bytes) / 1e6, 1) AS megabytes,
        count(*) FILTER (WHERE s.state = 'skipped') AS stopped_by_gate,
        count(*) FILTER (WHERE cardinality(x.marks) > 0) AS marked
        FROM calls c JOIN audio_files x USING (portal, call_id)
        LEFT JOIN call_steps s ON s.portal = c.portal AND s.call_id = c.call_id AND s.step = 'audio_files'""",
    "transcripts": """
        round(sum(a.duration_s), 1) AS audio_seconds, sum(jsonb_array_length(x.turns)) AS turns,
        count(*) FILTER (WHERE 'roles_disagree' = ANY(x.marks)) AS roles_disagree
        FROM calls c JOIN transcripts x USING (portal, call_id) JOIN audio_files a USING (portal, call_id)""",
    "fixed_dialogs": """
        sum(jsonb_array_length(x.turns)) AS turns, sum(jsonb_array_length(x.edits)) AS edits
        FROM calls c JOIN fixed_dialogs x USING (portal, call_id)""",
    "classifications": "count(*) AS categories FROM calls c JOIN classifications x USING (portal, call_id)",
    "criteria_scores": """
        count(x.score) AS scores, count(*) - count(x.score) AS not_applicable
        FROM calls c JOIN criteria_scores x USING (portal, call_id)""",
    "entity_summaries": """
        count(DISTINCT (c.entity_type, c.entity_id)) AS entities
        FROM calls c JOIN call_steps x ON x.portal = c.portal AND x.call_id = c.call_id
            AND x.step = 'entity_summaries' AND x.state = 'done'""",
}
"""Step → what to select of its table joined to calls `c`."""

_KINDS = {
    "audio_files": """
        'marked_' || mark AS name, count(*) AS number
        FROM calls c JOIN audio_files x USING (portal, call_id) CROSS JOIN unnest(x.marks) AS mark""",
}
"""Step → what to count by names that are found in the rows."""


async def read(connection: Connection, portal: str, step: str, first: date, last: date) -> dict[date, dict[str, float]]:
    """Day → name → number of the step's results; days without any are absent."""
    cursor = await connection.execute(
        f"SELECT c.day, {_QUERIES[step]} WHERE c.portal = %s AND c.day BETWEEN %s AND %s GROUP BY c.day",
        [portal, first, last],
    )
    found = {
        row.pop("day"): {
            name: float(value) if value % 1 else int(value) for name, value in row.items() if value is not None
        }
        for row in await cursor.fetchall()
    }
    if step in _KINDS:
        cursor = await connection.execute(
            f"SELECT c.day, {_KINDS[step]} WHERE c.portal = %s AND c.day BETWEEN %s AND %s GROUP BY c.day, name ORDER BY name",
            [portal, first, last],
        )
        for row in await cursor.fetchall():
            found[row["day"]][row["name"]] = row["number"]
    return found
