"""Table call_steps: how far each call has come, and the worklist that follows from it (rules 1, 3 and 4).

The chain runs on keys: a finished step leaves an `output_key`, the step after it remembers the key it worked from as
`input_key`, and a call is on a step's worklist while the two differ or its last state may be tried again. The output key
`none` says that there is nothing for the next step to work on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from dialog_assets.store.pool import Connection, Pool, Row

State = Literal["done", "skipped", "failed", "waiting"]


@dataclass(frozen=True, slots=True)
class Pending:
    """A call on a step's worklist: `input_key` is what the upstream step left."""

    call_id: int
    day: date
    started_at: datetime
    input_key: str


async def record(
    connection: Connection,
    portal: str,
    calls: Sequence[int],
    step: str,
    state: State,
    *,
    reason: str | None = None,
    detail: str | None = None,
    input_key: str | None = None,
    output_key: str | None = None,
    next_try: datetime | None = None,
    rules: Sequence[str] | None = None,
) -> None:
    """Set the state of `calls` at `step`. An attempt is counted for every state but `waiting`.

    A finished call that finishes again from and to the same keys has not been worked on: its row is not rewritten.
    """
    await connection.execute(
        """
        INSERT INTO call_steps (portal, call_id, step, state, reason, detail, input_key, output_key, attempts, next_try, rules)
        SELECT %(portal)s, call_id, %(step)s, %(state)s, %(reason)s, %(detail)s, %(input_key)s, %(output_key)s,
               CASE WHEN %(state)s = 'waiting' THEN 0 ELSE 1 END, %(next_try)s, %(rules)s::text[]
        FROM unnest(%(calls)s::bigint[]) AS call_id
        ON CONFLICT (portal, call_id, step) DO UPDATE SET
            state = excluded.state, reason = excluded.reason, detail = excluded.detail,
            input_key = excluded.input_key, output_key = excluded.output_key,
            attempts = call_steps.attempts + excluded.attempts, next_try = excluded.next_try,
            rules = excluded.rules, updated_at = now()
        WHERE excluded.state IN ('failed', 'waiting')
            OR (call_steps.state, call_steps.reason, call_steps.input_key, call_steps.output_key, call_steps.rules)
                IS DISTINCT FROM (excluded.state, excluded.reason, excluded.input_key, excluded.output_key, excluded.rules)
        """,
        {
            "portal": portal,
            "calls": list(calls),
            "step": step,
            "state": state,
            "reason": reason,
            "detail": detail,
            "input_key": input_key,
            "output_key": output_key,
            "next_try": next_try,
            "rules": None if rules is None else list(rules),
        },
    )


async def inherit(connection: Connection, portal: str, step: str, upstream: str, first: date, last: date) -> None:
    """Account for the calls of the days whose upstream step is not done: skipped stays skipped, the rest waits for it.

    What this step has finished itself, done or skipped, stays: it was paid for, and its key tells whether it still holds.
    """
    await connection.execute(
        """
        INSERT INTO call_steps (portal, call_id, step, state, reason)
        SELECT c.portal, c.call_id, %(step)s,
               CASE WHEN up.state = 'skipped' THEN 'skipped' ELSE 'waiting' END,
               CASE up.state WHEN 'skipped' THEN up.reason WHEN 'waiting' THEN up.reason
                    WHEN 'failed' THEN %(upstream)s || '_failed' ELSE %(upstream)s || '_not_run' END
        FROM calls c
        LEFT JOIN call_steps up ON up.portal = c.portal AND up.call_id = c.call_id AND up.step = %(upstream)s
        WHERE c.portal = %(portal)s AND c.day BETWEEN %(first)s AND %(last)s AND up.state IS DISTINCT FROM 'done'
        ON CONFLICT (portal, call_id, step) DO UPDATE SET
            state = excluded.state, reason = excluded.reason, detail = NULL, input_key = NULL, next_try = NULL, updated_at = now()
        WHERE call_steps.state <> 'done' AND NOT (call_steps.state = 'skipped' AND call_steps.input_key IS NOT NULL)
            AND (call_steps.state, call_steps.reason) IS DISTINCT FROM (excluded.state, excluded.reason)
        """,
        {"portal": portal, "step": step, "upstream": upstream, "first": first, "last": last},
    )


async def pending(
    pool: Pool,
    portal: str,
    step: str,
    upstream: str,
    first: date,
    last: date,
    *,
    rules: Sequence[str] | None = None,
    page: int = 200,
) -> AsyncIterator[Pending]:
    """The step's worklist over the days, oldest call first, `page` calls at a time so that memory stays flat.

    With `rules` a state that was reached without one of them is none.
    """
    after: tuple[date | str, datetime | str, int] = ("-infinity", "-infinity", 0)
    while True:
        rows = await pool.rows(
            """
            SELECT c.call_id, c.day, c.started_at, up.output_key AS input_key
            FROM calls c
            JOIN call_steps up ON up.portal = c.portal AND up.call_id = c.call_id
                AND up.step = %(upstream)s AND up.state = 'done' AND up.output_key <> 'none'
            WHERE c.portal = %(portal)s AND c.day BETWEEN %(first)s AND %(last)s
                AND NOT EXISTS (
                    SELECT FROM call_steps mine
                    WHERE mine.portal = c.portal AND mine.call_id = c.call_id AND mine.step = %(step)s
                        AND mine.input_key = up.output_key
                        AND (%(rules)s::text[] IS NULL OR mine.rules @> %(rules)s::text[])
                        AND (mine.state IN ('done', 'skipped')
                            OR (mine.state = 'failed' AND coalesce(mine.next_try, 'infinity') > now())
                            OR (mine.state = 'waiting' AND mine.next_try > now())))
                AND (c.day, c.started_at, c.call_id) > (%(after_day)s::date, %(after_time)s::timestamptz, %(after_id)s)
            ORDER BY c.day, c.started_at, c.call_id LIMIT %(page)s
            """,
            {
                "portal": portal,
                "step": step,
                "upstream": upstream,
                "first": first,
                "last": last,
                "rules": None if rules is None else list(rules),
                "after_day": after[0],
                "after_time": after[1],
                "after_id": after[2],
                "page": page,
            },
        )
        for row in rows:
            yield Pending(**row)
        if len(rows) < page:
            return
        after = (rows[-1]["day"], rows[-1]["started_at"], rows[-1]["call_id"])


async def summary(connection: Connection, portal: str, step: str, first: date, last: date) -> list[Row]:
    """Rows (day, state, reason, calls) of the step; a call without a row counts as waiting, reason `not_run`."""
    cursor = await connection.execute(
        """
        SELECT c.day, coalesce(s.state, 'waiting') AS state,
               CASE WHEN s.state = 'done' THEN NULL ELSE coalesce(s.reason, 'not_run') END AS reason,
               count(*) AS calls
        FROM calls c
        LEFT JOIN call_steps s ON s.portal = c.portal AND s.call_id = c.call_id AND s.step = %s
        WHERE c.portal = %s AND c.day BETWEEN %s AND %s
        GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        """,
        [step, portal, first, last],
    )
    return await cursor.fetchall()


async def states(
    connection: Connection, portal: str, first: date, last: date
) -> dict[tuple[int, str], tuple[State, str | None]]:
    """(call, step) → state and reason of every call of the days, at the steps that have come to it."""
    cursor = await connection.execute(
        """
        SELECT c.call_id, s.step, s.state, s.reason
        FROM calls c JOIN call_steps s ON s.portal = c.portal AND s.call_id = c.call_id
        WHERE c.portal = %s AND c.day BETWEEN %s AND %s
        """,
        [portal, first, last],
    )
    return {(row["call_id"], row["step"]): (row["state"], row["reason"]) for row in await cursor.fetchall()}


async def standing(connection: Connection, portal: str, first: date, last: date) -> list[Row]:
    """Rows (step, touched_at, calls, and a number for each state) of the days, the step that was worked on last at the end."""
    cursor = await connection.execute(
        """
        SELECT s.step, max(s.updated_at) AS touched_at, count(*) AS calls,
               count(*) FILTER (WHERE s.state = 'done') AS done, count(*) FILTER (WHERE s.state = 'skipped') AS skipped,
               count(*) FILTER (WHERE s.state = 'failed') AS failed, count(*) FILTER (WHERE s.state = 'waiting') AS waiting
        FROM calls c JOIN call_steps s ON s.portal = c.portal AND s.call_id = c.call_id
        WHERE c.portal = %s AND c.day BETWEEN %s AND %s GROUP BY 1 ORDER BY 2
        """,
        [portal, first, last],
    )
    return await cursor.fetchall()


async def failures(
    connection: Connection, portal: str, step: str, first: date, last: date, limit: int = 20
) -> list[Row]:
    """Rows (call_id, day, reason, detail, attempts, next_try) of failed calls, newest first."""
    cursor = await connection.execute(
        """
        SELECT c.call_id, c.day, s.reason, s.detail, s.attempts, s.next_try
        FROM calls c JOIN call_steps s ON s.portal = c.portal AND s.call_id = c.call_id AND s.step = %s
        WHERE c.portal = %s AND c.day BETWEEN %s AND %s AND s.state = 'failed'
        ORDER BY c.started_at DESC, c.call_id LIMIT %s
        """,
        [step, portal, first, last, limit],
    )
    return await cursor.fetchall()


async def details(connection: Connection, portal: str, step: str, reason: str, first: date, last: date) -> list[Row]:
    """Rows (detail, calls) of the days' calls with this reason at the step, the most frequent first."""
    cursor = await connection.execute(
        """
        SELECT s.detail, count(*) AS calls
        FROM calls c JOIN call_steps s ON s.portal = c.portal AND s.call_id = c.call_id AND s.step = %s
        WHERE c.portal = %s AND c.day BETWEEN %s AND %s AND s.reason = %s AND s.detail IS NOT NULL
        GROUP BY s.detail ORDER BY calls DESC, s.detail
        """,
        [step, portal, first, last, reason],
    )
    return await cursor.fetchall()


async def failed_days(connection: Connection, portal: str, step: str) -> tuple[int, date | None, date | None]:
    """How many calls of all days are failed at the step, and the first and the last day of them."""
    cursor = await connection.execute(
        """
        SELECT count(*) AS calls, min(c.day) AS first, max(c.day) AS last
        FROM call_steps s JOIN calls c ON c.portal = s.portal AND c.call_id = s.call_id
        WHERE s.portal = %s AND s.step = %s AND s.state = 'failed'
        """,
        [portal, step],
    )
    row = await cursor.fetchone()
    return (row["calls"], row["first"], row["last"]) if row else (0, None, None)


async def failed(connection: Connection, portal: str, step: str, first: date, last: date) -> set[int]:
    """Ids of the days' calls that are failed at the step."""
    cursor = await connection.execute(
        """
        SELECT c.call_id FROM calls c JOIN call_steps s ON s.portal = c.portal AND s.call_id = c.call_id AND s.step = %s
        WHERE c.portal = %s AND c.day BETWEEN %s AND %s AND s.state = 'failed'
        """,
        [step, portal, first, last],
    )
    return {row["call_id"] for row in await cursor.fetchall()}


async def take_up_again(
    connection: Connection, portal: str, call_id: int, step: str, output_key: str, reason: str
) -> None:
    """Put a finished call back on a step's worklist, because the result that it left is lost; another result stays."""
    await connection.execute(
        """
        UPDATE call_steps SET state = 'waiting', reason = %s, detail = NULL, input_key = NULL, next_try = NULL, updated_at = now()
        WHERE portal = %s AND call_id = %s AND step = %s AND state = 'done' AND output_key = %s
        """,
        [reason, portal, call_id, step, output_key],
    )


async def retry_failed(connection: Connection, portal: str, steps: Sequence[str], first: date, last: date) -> int:
    """Let the failed calls of the days be tried again by the next run of `steps`; returns how many (call, step) there are."""
    cursor = await connection.execute(
        """
        UPDATE call_steps s SET next_try = now() FROM calls c
        WHERE s.portal = %s AND s.step = ANY(%s) AND s.state = 'failed'
            AND c.portal = s.portal AND c.call_id = s.call_id AND c.day BETWEEN %s AND %s
        """,
        [portal, list(steps), first, last],
    )
    return cursor.rowcount


async def adopt_rules(
    connection: Connection, portal: str, step: str, first: date, last: date, rules: Sequence[str], since: datetime
) -> None:
    """Write down `rules` for the days' finished calls of before rules were, if they finished after the rules last changed."""
    await connection.execute(
        """
        UPDATE call_steps s SET rules = %s FROM calls c
        WHERE s.portal = %s AND s.step = %s AND s.rules IS NULL AND s.input_key IS NOT NULL AND s.updated_at >= %s
            AND c.portal = s.portal AND c.call_id = s.call_id AND c.day BETWEEN %s AND %s
        """,
        [list(rules), portal, step, since, first, last],
    )
