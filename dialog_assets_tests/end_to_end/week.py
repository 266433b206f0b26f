"""The sandbox's week through the real job.

Here: running the job and reading the database. Not here: what is expected (sandbox.world.oracle), and assertions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, LiteralString

import boto3
import dagster as dg
import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from dialog_assets.assets.jobs import job_name, range_tags
from dialog_assets.definitions import build_defs
from dialog_assets.portals import Portal

DAYS = tuple(date(2026, 3, day) for day in range(2, 7))
"""The five days of the world."""

EMPTY_DAYS = (date(2026, 3, 7), date(2026, 3, 8))

RANGES = {"okna_sever": (DAYS[0], DAYS[-1]), "avto_ural": (DAYS[0], EMPTY_DAYS[-1])}
"""What the week's runs ask for; avto_ural's range ends with two days on which nobody called."""

STEPS = (
    "calls",
    "users",
    "entities",
    "audio_files",
    "transcripts",
    "fixed_dialogs",
    "classifications",
    "criteria_scores",
    "entity_summaries",
)

RESULTS = {
    "users": "updated_at",
    "entities": "updated_at",
    "calls": "updated_at",
    "audio_files": "archived_at",
    "transcripts": "created_at",
    "fixed_dialogs": "created_at",
    "classifications": "created_at",
    "criteria_scores": "created_at",
    "entity_summaries": "created_at",
}
"""The result tables, and the column that tells when a row was written."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Week:
    """The week's runs when they were over: the database, the sandbox's books, Dagster's results, the archive's objects."""

    database: str
    books: dict[str, Any]
    runs: dict[str, dg.ExecuteInProcessResult]
    archive: dict[str, tuple[bytes, str]] = field(default_factory=dict)


def run_range(
    portal: Portal,
    first: date,
    last: date,
    steps: Sequence[str] = (),
    *,
    resources: Mapping[str, Any] | None = None,
    log_level: str = "CRITICAL",
) -> dg.ExecuteInProcessResult:
    """The portal's job over a range as one run, in this process, on an instance of its own; one day as a plain partition.

    `resources` replace the job's own; `log_level` is the console's.
    """
    one_day: dict[str, Any] = {"partition_key": first.isoformat()} if first == last else {}
    with dg.DagsterInstance.ephemeral() as instance:
        return (
            build_defs([portal], resources)
            .get_repository_def()
            .get_job(job_name(portal.portal))
            .execute_in_process(
                instance=instance,
                tags={} if one_day else range_tags(first, last),
                asset_selection=[dg.AssetKey([portal.portal, step]) for step in steps] or None,
                run_config={"loggers": {"console": {"config": {"log_level": log_level}}}},
                raise_on_error=False,
                **one_day,
            )
        )


def rows(url: str, query: LiteralString, *values: object) -> list[Row]:
    """The rows of a query."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return connection.execute(query, values).fetchall()


def snapshot(url: str, tables: Sequence[str]) -> dict[str, list[str]]:
    """Every row of the tables as text: what must be equal when nothing is rewritten."""
    with psycopg.connect(url) as connection:
        return {
            table: sorted(
                str(row[0])
                for row in connection.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table)))
            )
            for table in tables
        }


def archived() -> dict[str, tuple[bytes, str]]:
    """The objects of the sandbox's bucket: key → bytes and content type."""
    client = boto3.client("s3")
    bucket = os.environ["S3_BUCKET"]
    found = {}
    for entry in client.list_objects_v2(Bucket=bucket).get("Contents", []):
        answer = client.get_object(Bucket=bucket, Key=entry["Key"])
        found[entry["Key"]] = (answer["Body"].read(), answer["ContentType"])
    return found


def materializations(
    result: dg.ExecuteInProcessResult, portal: str, step: str
) -> dict[str, Mapping[str, dg.MetadataValue[Any]]]:
    """Partition → metadata of the step's last materialization of it in this run."""
    return {
        event.materialization.partition or "": event.materialization.metadata
        for event in result.all_events
        if event.is_step_materialization and event.materialization.asset_key == dg.AssetKey([portal, step])
    }


def average(scores: Sequence[int]) -> Decimal:
    """The mean to two places, as a person rounds it."""
    return (Decimal(sum(scores)) / len(scores)).quantize(Decimal("0.01"), ROUND_HALF_UP)
