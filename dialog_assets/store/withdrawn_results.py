"""Table withdrawn_results: results whose input went, moved here from the tables of the steps, which hold what is in force.

Here: which results of a step no longer stand on the step before, and what follows for the call's state at the step. Not here:
scores by a criterion that is not selected any more: they stay where they are, and the view `scores` leaves them out.
"""

from __future__ import annotations

from datetime import date
from typing import LiteralString

from psycopg import sql

from dialog_assets.store.pool import Connection

_MOVE: dict[str, LiteralString] = {
    "transcripts": """
        SELECT r.call_id, r.ctid, r.tableoid, to_jsonb(r) AS result FROM transcripts r JOIN days c USING (call_id)
        JOIN audio_files a ON a.portal = r.portal AND a.call_id = r.call_id
        WHERE r.portal = %(portal)s AND a.sha256 <> r.sha256
        """,
    "fixed_dialogs": """
        SELECT r.call_id, r.ctid, r.tableoid, to_jsonb(r) AS result FROM fixed_dialogs r JOIN days c USING (call_id)
        JOIN call_steps up ON up.portal = r.portal AND up.call_id = r.call_id AND up.step = 'transcripts'
        WHERE r.portal = %(portal)s AND (up.state <> 'done' OR r.made_from <> up.output_key)
        """,
    "classifications": """
        SELECT r.call_id, r.ctid, r.tableoid, to_jsonb(r) AS result FROM classifications r JOIN days c USING (call_id)
        JOIN call_steps up ON up.portal = r.portal AND up.call_id = r.call_id AND up.step = 'fixed_dialogs'
        WHERE r.portal = %(portal)s AND (up.state <> 'done' OR r.made_from <> up.output_key)
        """,
    "criteria_scores": """
        SELECT r.call_id, r.ctid, r.tableoid, to_jsonb(r) AS result FROM criteria_scores r JOIN days c USING (call_id)
        JOIN call_steps up ON up.portal = r.portal AND up.call_id = r.call_id AND up.step = 'fixed_dialogs'
        WHERE r.portal = %(portal)s AND (up.state <> 'done' OR r.dialog_key <> up.output_key)
        """,
}
"""Step → its results of the days that stand on nothing."""

_SAME_RECORDING: LiteralString = """
    NOT EXISTS (SELECT FROM audio_files a WHERE a.portal = m.portal AND a.call_id = m.call_id AND a.sha256 <> m.input_key)
    """
_SAME_TEXT: LiteralString = "up.state = 'done' AND up.output_key = m.input_key"
_HOLDS: dict[str, tuple[LiteralString, LiteralString]] = {
    "transcripts": ("audio_files", _SAME_RECORDING),
    "fixed_dialogs": ("transcripts", _SAME_TEXT),
    "classifications": ("fixed_dialogs", _SAME_TEXT),
    "criteria_scores": (
        "classifications",
        # A dialog that could not be classified by changed categories keeps what it had.
        """
        up.state = 'done' AND split_part(up.output_key, '/', 1) = split_part(m.input_key, '/', 1)
        OR up.state IN ('failed', 'waiting') AND up.input_key = split_part(m.input_key, '/', 1)
        """,
    ),
}
"""Step → the step before it, and whether a finished state `m` of the step still stands on the state `up` of that one."""


async def withdraw(connection: Connection, portal: str, first: date, last: date) -> None:
    """Move the days' results whose input went into withdrawn_results, and let their calls wait for new ones.

    From the recording on, step after step, so that one replaced recording takes everything with it that was made from it.
    """
    days = {"portal": portal, "first": first, "last": last}
    for step, gone in _MOVE.items():
        move = sql.SQL(
            """
            WITH days AS (SELECT call_id FROM calls WHERE portal = %(portal)s AND day BETWEEN %(first)s AND %(last)s),
            gone AS ({gone}),
            kept AS (
                INSERT INTO withdrawn_results (portal, call_id, step, result)
                SELECT %(portal)s, call_id, %(step)s, result FROM gone
            )
            DELETE FROM {table} r USING gone
            WHERE r.portal = %(portal)s AND r.call_id = gone.call_id AND r.ctid = gone.ctid AND r.tableoid = gone.tableoid
            """
        ).format(gone=sql.SQL(gone), table=sql.Identifier(step))
        await connection.execute(move, {**days, "step": step})
        upstream, holds = _HOLDS[step]
        wait = sql.SQL(
            """
            UPDATE call_steps m SET state = 'waiting', reason = 'input_changed', detail = NULL, input_key = NULL,
                output_key = NULL, next_try = NULL, updated_at = now()
            FROM calls c, call_steps up
            WHERE c.portal = %(portal)s AND c.day BETWEEN %(first)s AND %(last)s
                AND m.portal = c.portal AND m.call_id = c.call_id AND m.step = %(step)s
                AND up.portal = c.portal AND up.call_id = c.call_id AND up.step = %(upstream)s
                AND m.state IN ('done', 'skipped') AND m.input_key IS NOT NULL AND ({holds}) IS NOT TRUE
            """
        ).format(holds=sql.SQL(holds))
        await connection.execute(wait, {**days, "step": step, "upstream": upstream})
    await connection.execute(
        """
        UPDATE call_steps m SET state = 'waiting', reason = 'input_changed', detail = NULL, output_key = NULL, updated_at = now()
        FROM calls c, call_steps up
        WHERE c.portal = %(portal)s AND c.day BETWEEN %(first)s AND %(last)s
            AND m.portal = c.portal AND m.call_id = c.call_id AND m.step = 'entity_summaries' AND m.state = 'done'
            AND up.portal = c.portal AND up.call_id = c.call_id AND up.step = 'criteria_scores'
            AND up.state IN ('skipped', 'waiting')
        """,
        days,
    )
