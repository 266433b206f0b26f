"""The views for analysts: `dialogs` and `scores` over all portals, and each portal's own `{portal}_dialogs`.

Here: one flat row a call, one row a score in force, and what each column means. Not here: the tables' columns (migrations),
stages over time (stages.py). Only results in force are shown: what was withdrawn is in withdrawn_results.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import LiteralString

import psycopg
from psycopg import sql

from dialog_assets.store import criteria_scores

_DIALOGS: LiteralString = """
    SELECT {portal_column}
        c.call_id, c.day, c.started_at, c.direction, c.duration_s, c.failed_code, c.phone,
        c.user_id, u.name AS user_name, u.position AS user_position,
        c.entity_type, c.entity_id, e.title AS entity_title, e.responsible_id,
        (SELECT count(*) FROM entity_deals d WHERE d.portal = c.portal
            AND d.entity_type = c.entity_type AND d.entity_id = c.entity_id) AS deals,
        a.s3_bucket, a.s3_key, a.duration_s AS audio_seconds, a.channels,
        (SELECT string_agg(format('[%s:%s] %s: %s', to_char((turn ->> 'start_ms')::bigint / 60000, 'FM9900'),
                to_char((turn ->> 'start_ms')::bigint / 1000 % 60, 'FM00'), turn ->> 'role', turn ->> 'text'),
                E'\\n' ORDER BY position)
            FROM jsonb_array_elements(coalesce(f.turns, t.turns)) WITH ORDINALITY AS turns (turn, position)) AS dialog,
        t.talk_metrics,
        (SELECT array_agg(k.category ORDER BY k.confidence DESC, k.category) FROM classifications k
            WHERE k.portal = c.portal AND k.call_id = c.call_id) AS categories,
        s.scores, s.score_percent,
        nullif(y.text, '') AS entity_summary,
        (SELECT jsonb_object_agg(p.step, p.state || coalesce(': ' || p.reason, '')) FROM call_steps p
            WHERE p.portal = c.portal AND p.call_id = c.call_id) AS steps,
        (SELECT sum(l.cost_rub) FROM ledger l WHERE l.portal = c.portal AND l.call_id = c.call_id) AS cost_rub,
        (SELECT jsonb_object_agg(d.deal_id,
            entity_value_at(x.portal, 'deal', x.entity_id, 'stage', x.stage, c.started_at))
            FROM entity_deals d JOIN entities x ON x.portal = d.portal AND x.entity_type = 'deal'
                AND x.entity_id = d.deal_id AND coalesce(x.created_at, '-infinity') <= c.started_at
            WHERE d.portal = c.portal AND d.entity_type = c.entity_type AND d.entity_id = c.entity_id
        ) AS deal_stages_at_call,
        t.marks, t.role_check, a.marks AS audio_marks,
        c.started_at AT TIME ZONE p.time_zone AS started_at_local,
        u.departments AS user_departments,
        (SELECT array_agg(coalesce(r.title, k.category) ORDER BY k.confidence DESC, k.category) FROM classifications k
            LEFT JOIN categories r ON r.portal = k.portal AND r.name = k.category AND r.version = k.category_version
            WHERE k.portal = c.portal AND k.call_id = c.call_id) AS category_titles,
        s.scores_by_title,
        e.stage AS entity_stage,
        entity_value_at(c.portal, c.entity_type, c.entity_id, 'stage', e.stage, c.started_at) AS entity_stage_at_call,
        {card_url} AS card_url,
        's3://' || a.s3_bucket || '/' || a.s3_key AS recording,
        y.inputs_left_out AS summary_inputs_left_out
    FROM calls c
    LEFT JOIN portals p ON p.portal = c.portal
    LEFT JOIN users u ON u.portal = c.portal AND u.user_id = c.user_id
    LEFT JOIN entities e ON e.portal = c.portal AND e.entity_type = c.entity_type AND e.entity_id = c.entity_id
    LEFT JOIN audio_files a ON a.portal = c.portal AND a.call_id = c.call_id
    LEFT JOIN transcripts t ON t.portal = c.portal AND t.call_id = c.call_id
    LEFT JOIN fixed_dialogs f ON f.portal = c.portal AND f.call_id = c.call_id
    LEFT JOIN LATERAL (
        SELECT jsonb_object_agg(in_force.criterion, in_force.score) AS scores,
               jsonb_object_agg(in_force.title, in_force.score) AS scores_by_title,
               round(avg(100.0 * (in_force.score - in_force.scale_min) / (in_force.scale_max - in_force.scale_min)), 1)
                   AS score_percent
        FROM (
            SELECT DISTINCT ON (x.criterion) x.criterion, x.score, r.scale_min, r.scale_max,
                coalesce(r.title, x.criterion) AS title
            FROM criteria_scores x
            LEFT JOIN criteria r ON r.portal = x.portal AND r.name = x.criterion AND r.version = x.version
            WHERE x.portal = c.portal AND x.call_id = c.call_id AND {in_force}
            ORDER BY x.criterion, x.created_at DESC
        ) in_force
    ) s ON true
    LEFT JOIN LATERAL (
        SELECT y.text, y.inputs_left_out FROM entity_summaries y WHERE y.portal = c.portal
            AND y.entity_type = c.entity_type AND y.entity_id = c.entity_id ORDER BY y.version DESC LIMIT 1
    ) y ON true
    """

_SCORES: LiteralString = """
    SELECT
        x.portal, x.call_id, c.day, c.started_at AT TIME ZONE p.time_zone AS started_at_local, c.direction, c.duration_s,
        c.user_id, u.name AS user_name, c.entity_type, c.entity_id, e.title AS entity_title,
        (SELECT array_agg(coalesce(g.title, k.category) ORDER BY k.confidence DESC, k.category) FROM classifications k
            LEFT JOIN categories g ON g.portal = k.portal AND g.name = k.category AND g.version = k.category_version
            WHERE k.portal = x.portal AND k.call_id = x.call_id) AS category_titles,
        x.criterion, coalesce(r.title, x.criterion) AS criterion_title, x.version, r.text AS criterion_text,
        x.applicable, x.score, r.scale_min, r.scale_max,
        round(100.0 * (x.score - r.scale_min) / (r.scale_max - r.scale_min), 1) AS score_percent,
        x.text,
        (SELECT string_agg(format('%s [%s:%s] «%s»', quote ->> 'line',
                to_char((quote ->> 'start_ms')::bigint / 60000, 'FM9900'),
                to_char((quote ->> 'start_ms')::bigint / 1000 % 60, 'FM00'), quote ->> 'text'), E'\\n' ORDER BY position)
            FROM jsonb_array_elements(x.quotes) WITH ORDINALITY AS quotes (quote, position)) AS evidence,
        (SELECT count(*) FROM jsonb_array_elements(x.quotes) AS quote WHERE quote ->> 'verbatim' = 'false')
            AS quotes_not_verbatim,
        x.quotes, {card_url} AS card_url,
        's3://' || a.s3_bucket || '/' || a.s3_key AS recording,
        x.model, x.prompt_version, x.cost_rub, x.created_at AS scored_at
    FROM criteria_scores x
    JOIN calls c ON c.portal = x.portal AND c.call_id = x.call_id
    LEFT JOIN portals p ON p.portal = x.portal
    LEFT JOIN criteria r ON r.portal = x.portal AND r.name = x.criterion AND r.version = x.version
    LEFT JOIN users u ON u.portal = c.portal AND u.user_id = c.user_id
    LEFT JOIN entities e ON e.portal = c.portal AND e.entity_type = c.entity_type AND e.entity_id = c.entity_id
    LEFT JOIN audio_files a ON a.portal = x.portal AND a.call_id = x.call_id
    WHERE {in_force} AND NOT EXISTS (
        SELECT FROM criteria_scores n JOIN classifications k ON k.portal = n.portal AND k.call_id = n.call_id
            AND n.criterion || '@' || n.version = ANY(k.criteria)
        WHERE n.portal = x.portal AND n.call_id = x.call_id AND n.criterion = x.criterion
            AND (n.created_at, n.version) > (x.created_at, x.version))
    """

_CARD_URL = sql.SQL("'https://' || p.domain || '/crm/' || c.entity_type || '/details/' || c.entity_id || '/'")

_DIALOG_COLUMNS = {
    "portal": "the portal's name in its file",
    "call_id": "ID of the call in the portal's statistics",
    "day": "day of the call in the portal's time zone",
    "started_at": "when the call began",
    "direction": "incoming, outgoing and the like",
    "duration_s": "length of the call in seconds, by the portal",
    "failed_code": "the telephony's result code: 200 is a talk",
    "phone": "the other side's number",
    "user_id": "the employee, by the portal",
    "user_name": "the employee's name",
    "user_position": "the employee's position",
    "entity_type": "contact, lead or company that the call belongs to",
    "entity_id": "ID of that card in the CRM",
    "entity_title": "title of the card",
    "responsible_id": "the employee who is responsible for the card",
    "deals": "how many deals the card has",
    "s3_bucket": "bucket of the recording in the archive",
    "s3_key": "key of the recording in the archive",
    "audio_seconds": "length of the recording",
    "channels": "channels of the recording: 2 where each side has its own",
    "dialog": "the dialog, corrected if it is, one line a turn: [minutes:seconds] who: what",
    "talk_metrics": "figures of the dialog, every name is explained in docs/figures.md",
    "categories": "categories of the dialog, the surest first",
    "scores": "criterion → score in force; null where it does not apply",
    "score_percent": "mean of the scores in force, each in percent of its scale",
    "entity_summary": "the card's newest summary; empty where nothing is left to summarise",
    "steps": "step → state of the call, with the reason where it is not done",
    "cost_rub": "what was paid for this call, in roubles",
    "deal_stages_at_call": "deal → its stage when the call began",
    "marks": "what is odd about the dialog: see docs/figures.md",
    "role_check": "whether the words agree with who is said to be the operator",
    "audio_marks": "what is odd about the recording: see docs/figures.md",
    "started_at_local": "when the call began, in the portal's time zone",
    "user_departments": "IDs of the employee's departments in the portal",
    "category_titles": "titles of the categories, in the same order",
    "scores_by_title": "criterion's title → score in force",
    "entity_stage": "stage of the card now, by its code in the CRM (leads and deals have one)",
    "entity_stage_at_call": "stage of the card when the call began",
    "card_url": "the card in the portal",
    "recording": "the recording in the archive",
    "summary_inputs_left_out": "how many older notes the card's summary had no room for; null: made before this was counted",
}

_SCORE_COLUMNS = {
    **{
        name: _DIALOG_COLUMNS[name]
        for name in (
            *("portal", "call_id", "day", "started_at_local", "direction", "duration_s", "user_id", "user_name"),
            *("entity_type", "entity_id", "entity_title", "category_titles", "card_url", "recording"),
        )
    },
    "criterion": "name of the criterion",
    "criterion_title": "title of the criterion",
    "version": "which wording of the criterion the score was given by",
    "criterion_text": "that wording",
    "applicable": "false: this dialog gave no occasion for the criterion",
    "score": "the score on the criterion's scale; null where it does not apply",
    "scale_min": "lowest score of the scale",
    "scale_max": "highest score of the scale",
    "score_percent": "the score in percent of its scale: comparable between criteria and wordings",
    "text": "why this score",
    "evidence": "the quotes, one a line: line of the dialog [minutes:seconds] «words»",
    "quotes_not_verbatim": "how many of the quotes are not word for word what the line says",
    "quotes": "the quotes as JSON: line, turn from 0, start_ms, text, verbatim",
    "model": "the model that gave the score",
    "prompt_version": "which text of the prompt it was asked with",
    "cost_rub": "the score's share of what its request cost, in roubles",
    "scored_at": "when the score was stored",
}

_STAGE_COLUMNS = {
    "entity_type": "lead or deal",
    "entity_id": "its ID in the CRM",
    "title": "its title now",
    "stage": "the stage, by its code in the CRM",
    "since": "when it came into the stage: by the CRM's time where it gives one, else when we saw it",
    "until": "when it left the stage; null: it is still there",
    "seen_at": "when we saw it come",
}


def create_common(connection: psycopg.Connection) -> None:
    """The views `dialogs` and `scores`, which answer across portals."""
    dialogs = sql.SQL(_DIALOGS).format(
        portal_column=sql.SQL("c.portal, "), card_url=_CARD_URL, in_force=criteria_scores.IN_FORCE
    )
    scores = sql.SQL(_SCORES).format(card_url=_CARD_URL, in_force=criteria_scores.IN_FORCE)
    _create(connection, "dialogs", dialogs)
    _describe(
        connection, "dialogs", "one row a call of any portal, with everything that is known of it", _DIALOG_COLUMNS
    )
    _create(connection, "scores", scores)
    _describe(
        connection, "scores", "one row a score in force, of any portal, with its text and evidence", _SCORE_COLUMNS
    )


def create_portals(connection: psycopg.Connection, portal: str) -> None:
    """The view `{portal}_dialogs`; comments of `{portal}_stages`."""
    query = sql.SQL(_DIALOGS).format(portal_column=sql.SQL(""), card_url=_CARD_URL, in_force=criteria_scores.IN_FORCE)
    name = f"{portal}_dialogs"
    _create(connection, name, query + sql.SQL("WHERE c.portal = {}").format(sql.Literal(portal)))
    columns = {column: comment for column, comment in _DIALOG_COLUMNS.items() if column != "portal"}
    _describe(connection, name, f"one row a call of {portal}, with everything that is known of it", columns)
    _describe(
        connection,
        f"{portal}_stages",
        "one row a stage that a deal or lead was in, and from when to when",
        _STAGE_COLUMNS,
    )


def _create(connection: psycopg.Connection, view: str, query: sql.Composed) -> None:
    """Replaced in place, so that grants on it and views over it survive; only another set of columns makes it anew."""
    create = sql.SQL("CREATE OR REPLACE VIEW {} AS {}").format(sql.Identifier(view), query)
    try:
        with connection.transaction():
            connection.execute(create)
    except psycopg.errors.InvalidTableDefinition:
        connection.execute(sql.SQL("DROP VIEW {}").format(sql.Identifier(view)))
        connection.execute(create)


def _describe(connection: psycopg.Connection, view: str, meaning: str, columns: Mapping[str, str]) -> None:
    name = sql.Identifier(view)
    statements = [sql.SQL("COMMENT ON VIEW {} IS {}").format(name, sql.Literal(meaning))]
    statements += [
        sql.SQL("COMMENT ON COLUMN {}.{} IS {}").format(name, sql.Identifier(column), sql.Literal(comment))
        for column, comment in columns.items()
    ]
    connection.execute(sql.SQL("; ").join(statements))
