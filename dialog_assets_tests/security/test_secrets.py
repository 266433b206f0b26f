"""No secret is in what runs say or store, and nobody's name or phone in what they say, whatever goes wrong (rule 5)."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from dialog_assets.cli.world import SandboxProcess
from dialog_assets.sandbox.world import load_world
from dialog_assets.sandbox.world.model import SandboxPortal
from dialog_assets_tests.faults.scripts import script
from dialog_assets_tests.faults.support import MONDAY, PORTAL, TUESDAY, Runs

DATABASE_PASSWORD = "db-pass-9f3kQz71"
SECRETS_OF_ENVIRONMENT = (
    "OKNA_SEVER_WEBHOOK",
    "VOICEKIT_API_KEY",
    "VOICEKIT_SECRET_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "OPENAI_API_KEY",
    "DEEPSEEK_API_KEY",
)
BROKEN = (
    [
        {"service": "bitrix24", "kind": "json_200", "match": "download", "times": 1},
        {"service": "bitrix24", "kind": "redirect", "match": "download", "times": 1, "value": "http://localhost:9"},
        {
            "service": "bitrix24",
            "kind": "command_error",
            "match": "user.get",
            "times": 1,
            "value": "insufficient_scope",
        },
        {"service": "deepseek", "kind": "401"},
    ],
    [{"service": "voicekit", "kind": "unauthenticated"}],
)
"""Faults that stop steps, each with error texts and stack traces of its own: two steps first, then one."""

TOKENS = {
    "a token of the recogniser": re.compile(r"eyJ[\w-]{8,}\."),
    "a download token": re.compile(r"token=(?!…)\w|disk(?:\||%7C)aWQ9", re.IGNORECASE),
    "a signature": re.compile(r"X-Amz-Signature=\w|AWSAccessKeyId=\w", re.IGNORECASE),
}

Needles = dict[str, re.Pattern[str]]


def secrets(environment: dict[str, str]) -> Needles:
    """What to look for, by what it is: credentials in every form they take in texts, and what is made for one request."""
    values = {name: environment[name] for name in SECRETS_OF_ENVIRONMENT}
    values["the webhook's secret"] = values["OKNA_SEVER_WEBHOOK"].rstrip("/").rsplit("/", 1)[-1]
    values["the database's password"] = DATABASE_PASSWORD
    return {name: any_form(value) for name, value in values.items()} | TOKENS


def people(portal: SandboxPortal) -> Needles:
    """Full names, surnames and phones of everybody in the portal, by row."""
    needles: Needles = {}
    for kind in ("users", "contacts", "leads"):
        for number, row in getattr(portal, kind).items():
            for field in ("LAST_NAME", "PERSONAL_MOBILE", "WORK_PHONE"):
                if row.get(field):
                    needles[f"{kind} {number} {field}"] = any_form(str(row[field]))
            for phone in row.get("PHONE") or ():
                needles[f"{kind} {number} PHONE"] = any_form(str(phone["VALUE"])[-10:])
    for call in portal.calls:
        phone = str(call.fields.get("PHONE_NUMBER") or "")
        if len(phone) >= 10:
            needles[f"call {call.id} PHONE_NUMBER"] = any_form(phone[-10:])
    return needles


def any_form(value: str) -> re.Pattern[str]:
    """The text as it is, in JSON's ASCII and in a URL."""
    forms = {value, json.dumps(value)[1:-1], quote(value, safe=""), quote(value)}
    return re.compile("|".join(re.escape(form) for form in sorted(forms)))


def said(records: Path) -> Iterator[tuple[str, str]]:
    """(place, text) of everything that runs said: logs, output, and every row of Dagster's storage."""
    for path in sorted(records.rglob("*")):
        if not path.is_file():
            continue
        where = str(path.relative_to(records))
        if path.suffix == ".db":
            yield from _rows(path, where)
        else:
            yield where, path.read_text(encoding="utf-8", errors="replace")


def _rows(path: Path, where: str) -> Iterator[tuple[str, str]]:
    connection = sqlite3.connect(path)
    try:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                yield f"{where}:{table}", "\n".join(map(str, row))
    finally:
        connection.close()


def stored(database: str) -> Iterator[tuple[str, str]]:
    """(place, text) of every row of the application database, in the form that Postgres gives a whole row."""
    with psycopg.connect(database) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        for (table,) in tables.fetchall():
            rows = connection.execute(sql.SQL("SELECT to_jsonb(t)::text FROM {} t").format(sql.Identifier(table)))
            for (row,) in rows.fetchall():
                yield f"table {table}", row


def leaks(texts: Iterator[tuple[str, str]], needles: Needles) -> list[str]:
    """A line for each place and what was found there; never the thing itself."""
    found = {(name, where) for where, text in texts for name, pattern in needles.items() if pattern.search(text)}
    return sorted(f"{name} in {where}" for name, where in found)


def test_nothing_is_seen_of_secrets_and_people(database: str, sandbox: SandboxProcess, tmp_path: Path) -> None:
    """Runs among faults, every logger at DEBUG: no secret said or stored, no person said; and a planted one is found."""
    records = tmp_path / "records"
    records.mkdir()
    with_password = database.replace("postgres:@", f"postgres:{DATABASE_PASSWORD}@")
    runs = Runs(sandbox, with_password, tmp_path, PORTAL, MONDAY, TUESDAY, records)
    sandbox.post("/faults", script(4))
    stopped = [runs.to_its_end()]
    for faults in BROKEN:
        _begin_again(database)
        sandbox.post("/faults", faults)
        stopped.append(runs.to_its_end())

    needles = secrets(sandbox.environment)
    persons = people(load_world().portals[PORTAL])
    assert [len(errors) for errors in stopped[1:]] == [2, 1], stopped
    assert leaks(said(records), needles) == []
    assert leaks(stored(database), needles) == []
    assert leaks(said(records), persons) == []

    _plant(records, database, sandbox.environment, "+74951234567")
    planted = {"a phone": any_form("4951234567")}
    assert {"OPENAI_API_KEY in log.txt", "a token of the recogniser in stderr.txt"} <= {*leaks(said(records), needles)}
    assert "OKNA_SEVER_WEBHOOK in history/runs/index.db:event_logs" in leaks(said(records), needles)
    assert "a phone in history/runs.db:run_tags" in leaks(said(records), planted)
    assert leaks(stored(database), needles) == ["VOICEKIT_SECRET_KEY in table okna_sever_call_steps"]


def _begin_again(database: str) -> None:
    """Let the next run work on recordings and dialogs that an earlier one has done."""
    with psycopg.connect(database) as connection:
        connection.execute(
            "UPDATE call_steps SET input_key = 'older' WHERE step IN ('audio_files', 'transcripts', 'fixed_dialogs')"
        )


def _plant(records: Path, database: str, environment: dict[str, str], phone: str) -> None:
    """Put one secret or phone into each kind of place, in a form that it takes there."""
    with (records / "log.txt").open("a") as log:
        log.write(f"DEBUG:somebody:using {environment['OPENAI_API_KEY']}\n")
    with (records / "stderr.txt").open("a") as errors:
        errors.write("authorization: Bearer eyJhbGciOiJIUzI1NiJ9.e30.sig\n")
    for name, change, value in (
        (
            "runs/index.db",
            "UPDATE event_logs SET event = ? WHERE id = 1",
            json.dumps(environment["OKNA_SEVER_WEBHOOK"]),
        ),
        ("runs.db", "UPDATE run_tags SET value = ? WHERE id = 1", phone),
    ):
        storage = sqlite3.connect(records / "history" / name)
        storage.execute(change, [value])
        storage.commit()
        storage.close()
    with psycopg.connect(database) as connection:
        connection.execute(
            "UPDATE call_steps SET detail = %s WHERE step = 'calls'", [environment["VOICEKIT_SECRET_KEY"]]
        )
