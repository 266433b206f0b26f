"""Table transcripts: what the recogniser answered, and the dialog built from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from dialog_assets.dialogs import Turn
from dialog_assets.store.pool import Connection, Row
from dialog_assets.store.upsert import upsert

DUAL_MONO = "dual_mono "
"""Begins the rules of a dialog whose recording is marked so."""

_DIALOG = ("turns", "talk_metrics", "marks", "role_check", "dialog_rules")

_PUT_DIALOG = sql.SQL("UPDATE transcripts SET {} WHERE portal = %(portal)s AND call_id = %(call_id)s").format(
    sql.SQL(", ").join(sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in _DIALOG)
)


async def put(
    connection: Connection,
    portal: str,
    call_id: int,
    *,
    recogniser: str,
    operation_id: str,
    sha256: str,
    raw: dict[str, Any],
    turns: Sequence[Turn],
    talk_metrics: Mapping[str, Any],
    cost_rub: Decimal,
    marks: Sequence[str] = (),
    role_check: Mapping[str, Any] | None = None,
    dialog_rules: str | None = None,
) -> None:
    """Write a call's transcript, replacing an earlier one."""
    await connection.execute(
        upsert(
            "transcripts",
            ("portal", "call_id"),
            ("recogniser", "operation_id", "sha256", "raw", *_DIALOG, "cost_rub"),
            touch="created_at",
        ),
        {
            "portal": portal,
            "call_id": call_id,
            "recogniser": recogniser,
            "operation_id": operation_id,
            "sha256": sha256,
            "raw": Jsonb(raw),
            **_dialog(turns, talk_metrics, marks, role_check, dialog_rules),
            "cost_rub": cost_rub,
        },
    )


async def put_dialog(
    connection: Connection,
    portal: str,
    call_id: int,
    *,
    turns: Sequence[Turn],
    talk_metrics: Mapping[str, Any],
    marks: Sequence[str],
    role_check: Mapping[str, Any] | None,
    dialog_rules: str,
) -> None:
    """Replace the dialog of a transcript that is there; its answer, price and time stay."""
    await connection.execute(
        _PUT_DIALOG,
        {"portal": portal, "call_id": call_id, **_dialog(turns, talk_metrics, marks, role_check, dialog_rules)},
    )


def _dialog(
    turns: Sequence[Turn],
    talk_metrics: Mapping[str, Any],
    marks: Sequence[str],
    role_check: Mapping[str, Any] | None,
    dialog_rules: str | None,
) -> dict[str, Any]:
    """Values of _DIALOG."""
    return {
        "turns": Jsonb([turn.as_json() for turn in turns]),
        "talk_metrics": Jsonb(talk_metrics),
        "marks": list(marks),
        "role_check": None if role_check is None else Jsonb(role_check),
        "dialog_rules": dialog_rules,
    }


async def turns(connection: Connection, portal: str, call_id: int) -> list[Turn]:
    """The dialog as recognised; LookupError when the call has no transcript."""
    cursor = await connection.execute(
        "SELECT turns FROM transcripts WHERE portal = %s AND call_id = %s", [portal, call_id]
    )
    row = await cursor.fetchone()
    if row is None:
        raise LookupError(f"call {call_id} of {portal} has no transcript")
    return [Turn.from_json(turn) for turn in row["turns"]]


async def built_otherwise(
    connection: Connection,
    portal: str,
    recogniser: str,
    first: date,
    last: date,
    *,
    rules: str,
    rules_by_line: Mapping[str, str],
    after: tuple[date, int],
    limit: int = 50,
) -> list[Row]:
    """Finished transcripts of the days whose dialog follows other rules than `rules`, its line's, or its recording's.

    Rows (call_id, day, line, direction, raw, turns, dialog_rules, input_key) behind `after` (day, call id), in that order.
    Only of the recording that is archived now: one that was replaced is about to be recognised anew.
    """
    cursor = await connection.execute(
        """
        SELECT c.call_id, c.day, c.line, c.direction, t.raw, t.turns, t.dialog_rules, s.input_key
        FROM calls c
        JOIN transcripts t ON t.portal = c.portal AND t.call_id = c.call_id AND t.recogniser = %(recogniser)s
        JOIN audio_files a ON a.portal = c.portal AND a.call_id = c.call_id AND a.sha256 = t.sha256
        JOIN call_steps s ON s.portal = c.portal AND s.call_id = c.call_id AND s.step = 'transcripts'
            AND s.state IN ('done', 'skipped') AND s.input_key IS NOT NULL
        WHERE c.portal = %(portal)s AND c.day BETWEEN %(first)s AND %(last)s
            AND t.dialog_rules IS DISTINCT FROM
                CASE WHEN 'dual_mono' = ANY(a.marks) THEN %(dual_mono)s ELSE '' END
                || coalesce(%(by_line)s::jsonb ->> c.line, %(rules)s)
            AND (c.day, c.call_id) > (%(after_day)s::date, %(after_call)s)
        ORDER BY c.day, c.call_id LIMIT %(limit)s
        """,
        {
            "portal": portal,
            "recogniser": recogniser,
            "first": first,
            "last": last,
            "rules": rules,
            "by_line": Jsonb(rules_by_line),
            "dual_mono": DUAL_MONO,
            "after_day": after[0],
            "after_call": after[1],
            "limit": limit,
        },
    )
    return await cursor.fetchall()


async def role_verdicts(connection: Connection, portal: str, first: date, last: date) -> list[Row]:
    """Rows (line, told, disagree): calls of the days whose words tell the roles, and those that tell them otherwise."""
    cursor = await connection.execute(
        """
        SELECT c.line, count(*) AS told, count(*) FILTER (WHERE t.role_check ->> 'verdict' = 'disagrees') AS disagree
        FROM calls c JOIN transcripts t ON t.portal = c.portal AND t.call_id = c.call_id
        WHERE c.portal = %s AND c.day BETWEEN %s AND %s AND t.role_check ->> 'verdict' IN ('agrees', 'disagrees')
        GROUP BY c.line ORDER BY c.line NULLS FIRST
        """,
        [portal, first, last],
    )
    return await cursor.fetchall()
