"""The schema: migrations, each portal's partitions, and its flat view. What `dialog-assets setup-portals` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psycopg
from psycopg import sql

from dialog_assets.portals import Portal
from dialog_assets.store import criteria_scores, rules, stages
from dialog_assets.store.server import with_scheme

MIGRATIONS = Path(__file__).parent / "migrations"

PARTITIONED_TABLES = (
    "users",
    "entities",
    "entity_deals",
    "entity_changes",
    "calls",
    "audio_files",
    "transcripts",
    "fixed_dialogs",
    "categories",
    "criteria",
    "classifications",
    "criteria_scores",
    "entity_summaries",
    "call_steps",
    "unreadable_rows",
    "withdrawn_results",
    "ledger",
)


def migrate(url: str) -> None:
    """Bring the database at `url` to the newest revision; safe to run again, and from several processes at once."""
    # Alembic and SQLAlchemy are wanted here only, and take long to import.
    import sqlalchemy
    from alembic import command
    from alembic.config import Config

    engine = sqlalchemy.create_engine(with_scheme(url, "postgresql+psycopg"), poolclass=sqlalchemy.NullPool)
    config = Config(attributes={"connection": None})
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(hashtext('dialog_assets/migrate'))"))
        connection.commit()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def setup_portals(url: str, portals: Sequence[Portal]) -> list[str]:
    """Migrate, then make partitions and views for `portals` and record them, their categories and criteria.

    Safe to run again, from several processes at once, and while runs work on other portals. Returns the names of the
    portals that lacked partitions before.
    """
    migrate(url)
    new: list[str] = []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtext('dialog_assets/setup_portals'))")
        for portal in portals:
            if _create_partitions(connection, portal.portal):
                new.append(portal.portal)
            with connection.transaction():
                _create_view(connection, portal.portal)
                stages.create_view(connection, portal.portal)
                _record(connection, portal)
    return new


def _create_partitions(connection: psycopg.Connection, portal: str) -> bool:
    """Make the partitions that `portal` lacks, each in its own transaction; returns whether there was one.

    Attached rather than created in place: CREATE TABLE … PARTITION OF would lock each common table against all runs, and
    deadlock with one that uses two of them.
    """
    created = False
    for table in PARTITIONED_TABLES:
        name = f"{portal}_{table}"
        attached = connection.execute(
            "SELECT 1 FROM pg_inherits WHERE inhrelid = to_regclass(%s) AND inhparent = %s::regclass",
            [f'"{name}"', table],
        ).fetchone()
        if attached:
            continue
        partition, parent = sql.Identifier(name), sql.Identifier(table)
        with connection.transaction():
            connection.execute(
                sql.SQL("CREATE TABLE IF NOT EXISTS {} (LIKE {} INCLUDING ALL)").format(partition, parent)
            )
            connection.execute(
                sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES IN ({})").format(
                    parent, partition, sql.Literal(portal)
                )
            )
        created = True
    return created


def _create_view(connection: psycopg.Connection, portal: str) -> None:
    """One flat row per call with everything an analyst wants, for one portal.

    Replaced in place, so that grants on it and views over it survive; only another set of columns makes it anew.
    """
    create = _view(portal)
    try:
        with connection.transaction():
            connection.execute(create)
    except psycopg.errors.InvalidTableDefinition:
        connection.execute(sql.SQL("DROP VIEW {}").format(sql.Identifier(f"{portal}_dialogs")))
        connection.execute(create)


def _view(portal: str) -> sql.Composed:
    return sql.SQL(
        """
            CREATE OR REPLACE VIEW {view} AS
            SELECT
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
                (SELECT nullif(y.text, '') FROM entity_summaries y WHERE y.portal = c.portal AND y.entity_type = c.entity_type
                    AND y.entity_id = c.entity_id ORDER BY y.version DESC LIMIT 1) AS entity_summary,
                (SELECT jsonb_object_agg(p.step, p.state || coalesce(': ' || p.reason, '')) FROM call_steps p
                    WHERE p.portal = c.portal AND p.call_id = c.call_id) AS steps,
                (SELECT sum(l.cost_rub) FROM ledger l WHERE l.portal = c.portal AND l.call_id = c.call_id) AS cost_rub,
                (SELECT jsonb_object_agg(d.deal_id,
                    entity_value_at(x.portal, 'deal', x.entity_id, 'stage', x.stage, c.started_at))
                    FROM entity_deals d JOIN entities x ON x.portal = d.portal AND x.entity_type = 'deal'
                        AND x.entity_id = d.deal_id AND coalesce(x.created_at, '-infinity') <= c.started_at
                    WHERE d.portal = c.portal AND d.entity_type = c.entity_type AND d.entity_id = c.entity_id
                ) AS deal_stages_at_call,
                t.marks, t.role_check, a.marks AS audio_marks
            FROM calls c
            LEFT JOIN users u ON u.portal = c.portal AND u.user_id = c.user_id
            LEFT JOIN entities e ON e.portal = c.portal AND e.entity_type = c.entity_type AND e.entity_id = c.entity_id
            LEFT JOIN audio_files a ON a.portal = c.portal AND a.call_id = c.call_id
            LEFT JOIN transcripts t ON t.portal = c.portal AND t.call_id = c.call_id
            LEFT JOIN fixed_dialogs f ON f.portal = c.portal AND f.call_id = c.call_id
            LEFT JOIN LATERAL (
                SELECT jsonb_object_agg(in_force.criterion, in_force.score) AS scores,
                       round(avg(100.0 * (in_force.score - in_force.scale_min) / (in_force.scale_max - in_force.scale_min)), 1)
                           AS score_percent
                FROM (
                    SELECT DISTINCT ON (x.criterion) x.criterion, x.score, r.scale_min, r.scale_max
                    FROM criteria_scores x
                    LEFT JOIN criteria r ON r.portal = x.portal AND r.name = x.criterion AND r.version = x.version
                    WHERE x.portal = c.portal AND x.call_id = c.call_id AND {in_force}
                    ORDER BY x.criterion, x.created_at DESC
                ) in_force
            ) s ON true
            WHERE c.portal = {portal}
            """
    ).format(view=sql.Identifier(f"{portal}_dialogs"), portal=sql.Literal(portal), in_force=criteria_scores.IN_FORCE)


def _record(connection: psycopg.Connection, portal: Portal) -> None:
    connection.execute(
        """
        INSERT INTO portals (portal, title, domain, time_zone) VALUES (%s, %s, %s, %s)
        ON CONFLICT (portal) DO UPDATE SET title = excluded.title, domain = excluded.domain,
            time_zone = excluded.time_zone, last_seen_at = now()
        """,
        [portal.portal, portal.title, portal.domain, portal.time_zone],
    )
    for statement, values in rules.statements(portal):
        connection.execute(statement, values)
