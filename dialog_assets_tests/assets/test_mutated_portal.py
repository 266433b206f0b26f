"""A portal whose answers are spoiled at random: every step ends with a result or one sentence, every call with a state.

Here: single answers of Bitrix24, changed inside their JSON and around it, below all steps that ask a portal.
Not here: manners that portals are known for, each of which has a test of its own.
"""

from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dialog_assets.assets import audio_files as asset
from dialog_assets.assets.audio_files import archive_recordings
from dialog_assets.assets.calls import read_calls
from dialog_assets.assets.entities import read_entities
from dialog_assets.assets.steps import StepRun
from dialog_assets.assets.users import read_users
from dialog_assets.bitrix24 import client, operating
from dialog_assets.cli.doctor.bitrix24 import credential
from dialog_assets.cli.doctor.examination import Unwell
from dialog_assets.errors import DialogAssetsError
from dialog_assets.portals import Portal
from dialog_assets.resources.bitrix24 import Bitrix24Resource
from dialog_assets.resources.s3 import ArchiveResource
from dialog_assets.sandbox.world.model import Call, SandboxPortal
from dialog_assets_tests.assets.portal_on_a_socket import Core, okna_sever, run_step
from dialog_assets_tests.resources.archive_on_a_socket import Bucket, served_bucket
from dialog_assets_tests.sandbox.bitrix24_portal import make_calls, make_portal, make_recording, make_site, served
from dialog_assets_tests.store.rows import with_pool

DAYS = date(2026, 3, 1), date(2026, 3, 2)
SPOKEN = Path(asset.__file__).parents[1] / "sandbox" / "world" / "audio" / "okna_sever_7001.mp3"
SECRET = "s3cret"
RECORDED = 4
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7, 50, 7.5, 2**31, 2**63, 10**30, 10**400, float("nan"), float("inf"), -float("inf")),
    *("", " ", "0", "-1", "7", "7.0", "٧", "1_0", "1e9", "1e999999999", "N", "null", "NaN", "\x00", "\ud800", "\u202eа", "ё"),
    *("2026-03-02T00:00:00+03:00", "2026-03-02", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "слово " * 2000),
    *("https://[", "//", "http://127.0.0.1:1/x", "https://other.example/1.mp3", "/disk/501", "ftp://x", "http://x:99999/"),
    *([], {}, [None], [[]], [{}], {"0": None}, {"a": {"b": []}}, ["7"], {"items": []}, {"error": "X"}),
    *("QUERY_LIMIT_EXCEEDED", "expired_token", "ACCESS_DENIED", "ERROR_NOT_FOUND", "CONTACT", "DEAL"),
)  # fmt: skip
STATUSES = (200, 201, 204, 206, 301, 302, 400, 401, 403, 404, 408, 410, 416, 418, 429, 500, 502, 503, 504, 599)
HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-type", b"text/html; charset=windows-1251"),
    (b"content-type", b"application/json; charset=utf-16"),
    (b"content-type", b""),
    (b"content-type", b"audio/mpeg"),
    (b"content-type", b"\xd0\xb0/\xff"),
    (b"content-encoding", b"gzip"),
    (b"content-encoding", b"br"),
    (b"content-encoding", b"unknown, gzip"),
    (b"location", b"https://other.example/"),
    (b"location", b"http://["),
    (b"location", b"\xff"),
    (b"content-range", b"bytes 5-7/1"),
    (b"etag", b'"\xd1\x8f"'),
    (b"retry-after", b"soon"),
)


def spoil(value: Any, chance: random.Random) -> Any:
    """The value with one of its parts, at any depth, gone, under another name, twice, or another one."""
    deeper = chance.random() < 0.85
    if isinstance(value, list) and value and deeper:
        place = chance.randrange(len(value))
        way = chance.random()
        if way < 0.1:
            return value[:place] + value[place + 1 :]
        if way < 0.2:
            return [*value, value[place]]
        if way < 0.25:
            return {str(2 * number): part for number, part in enumerate(value)}
        return [*value[:place], spoil(value[place], chance), *value[place + 1 :]]
    if isinstance(value, dict) and value and deeper:
        key = chance.choice(list(value))
        way = chance.random()
        if way < 0.1:
            return {name: part for name, part in value.items() if name != key}
        if way < 0.2:
            renamed = chance.choice([key.swapcase(), f"{key}_", "error", "items", "id", "ID", ""])
            return {(renamed if name == key else name): part for name, part in value.items()}
        if way < 0.25:
            return list(value.values())
        return {**value, key: spoil(value[key], chance)}
    if isinstance(value, str) and value.isdecimal() and chance.random() < 0.3:
        return int(value) + chance.choice([0, 1, -1, 1000])
    return chance.choice(VALUES)


class Spoilt:
    """An app whose answers are spoiled, a share `often` of them; `app` as it is where `often` is 0."""

    def __init__(self, app: ASGIApp, chance: random.Random, often: float) -> None:
        self.app, self.chance, self.often = app, chance, often

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One answer."""
        if scope["type"] != "http" or self.chance.random() >= self.often:
            await self.app(scope, receive, send)
            return
        told: list[Message] = []

        async def keep(message: Message) -> None:
            told.append(message)

        await self.app(scope, receive, keep)
        await self._send(told, send)

    async def _send(self, told: list[Message], send: Send) -> None:
        chance = self.chance
        status: int = told[0]["status"]
        body = b"".join(message.get("body", b"") for message in told[1:])
        headers = {name.lower(): value for name, value in told[0]["headers"]}
        way = chance.random()
        if way < 0.75:
            body = self._rewritten(body)
        elif way < 0.83:
            status = chance.choice(STATUSES)
        elif way < 0.93:
            headers.update([chance.choice(HEADERS)])
        if way > 0.9:
            body = body[: chance.randrange(len(body) + 1)]
        if status == 204:
            body = b""
        if b"content-length" in headers and (way < 0.97 or status == 204):
            headers[b"content-length"] = str(len(body)).encode()
        await send({"type": "http.response.start", "status": status, "headers": list(headers.items())})
        try:
            await send({"type": "http.response.body", "body": body})
        except RuntimeError:
            return  # shorter than told: the server cuts the connection

    def _rewritten(self, body: bytes) -> bytes:
        chance = self.chance
        try:
            value = json.loads(body)
        except ValueError:
            place = chance.randrange(len(body) + 1)
            return body[:place] + chance.choice([b"", b"\x00" * 9, b"<html>", b'{"error": 1}']) + body[place:]
        for _ in range(chance.randrange(1, 4)):
            value = spoil(value, chance)
        text = json.dumps(value, ensure_ascii=True)
        if chance.random() < 0.9:
            return text.encode()
        return chance.choice([f"\ufeff{text}", f"Warning: x\n{text}", f"{text}\n<br>", text * 2]).encode(
            chance.choice(["utf-8", "utf-16", "cp1251"]), "replace"
        )


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    """One S3 service for all tests here."""
    with served_bucket() as bucket:
        yield bucket


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for long; the server's own lines about answers that it had to cut are not for the report."""
    monkeypatch.setattr(client, "pause_s", lambda error, attempt: 0.0)
    monkeypatch.setattr(operating, "UNKNOWN_RESET_S", 0.01)
    monkeypatch.setattr(operating, "_WINDOW_S", 0.01)
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "disabled", True)


def small_world(count: int) -> SandboxPortal:
    """So many calls of a day, some with a contact, a user, a recording."""
    recordings = [
        replace(make_recording(SPOKEN, f"{number}.mp3"), file_id=500 + number) for number in range(1, RECORDED + 1)
    ]
    calls: list[Call] = []
    for one in make_calls(count):
        fields: dict[str, Any] = {**one.fields, "CRM_ENTITY_ID": str(one.id % 7)}
        record = recordings[one.id - 1] if one.id <= RECORDED else None
        if record is not None:
            fields |= {"RECORD_FILE_ID": record.file_id, "RECORD_DURATION": "7"}
        calls.append(replace(one, fields=fields, recording=record))
    return make_portal(tuple(calls))


def configured() -> Portal:
    """The portal's file with a bucket that is never full."""
    portal = okna_sever()
    return portal.model_copy(
        update={"bitrix24": portal.bitrix24.model_copy(update={"bucket_size": 10_000, "downloads": 1})}
    )


async def _archive(run: StepRun, bitrix24: Bitrix24Resource) -> None:
    await archive_recordings(run, bitrix24, ArchiveResource(attempts=1).open())


STEPS: dict[str, Core] = {
    "calls": read_calls,
    "users": read_users,
    "entities": read_entities,
    "audio_files": _archive,
}


def is_sentence(error: DialogAssetsError) -> bool:
    """One line for a person, without the credential."""
    text = str(error)
    return bool(text.strip()) and text.isprintable() and SECRET not in text and "Traceback" not in text


def night(database: str) -> set[str]:
    """The steps that came to their end; each other one told why."""
    ended = set()
    for step, core in STEPS.items():
        try:
            run_step(database, step, core, *DAYS, portal=configured())
            ended.add(step)
        except DialogAssetsError as error:
            assert is_sentence(error), str(error)
    return ended


def check(database: str, ended: set[str]) -> None:
    """Each call has a state at each step that ended, and whatever is not done a reason, which is no fault of ours."""
    with psycopg.connect(database) as connection:
        calls = {row[0] for row in connection.execute("SELECT call_id FROM calls")}
        rows = connection.execute("SELECT step, call_id, state, reason, detail FROM call_steps").fetchall()
    for step in ended:
        assert {row[1] for row in rows if row[0] == step} == calls, step
    for step, call_id, state, reason, detail in rows:
        assert state == "done" or reason, (step, call_id, state)
        assert reason not in ("internal_error", "unstorable_result"), (step, call_id, reason, detail)
        assert SECRET not in (detail or "")


def doctor(database: str) -> None:
    """Its look at the portal ends with what it found, or one sentence."""
    try:
        assert with_pool(database, lambda pool: credential(pool, configured()))
    except DialogAssetsError as error:
        assert is_sentence(error), str(error)


@pytest.mark.parametrize(
    ("scopes", "told"),
    [
        (None, "does not tell the credential's scopes"),
        ("telephony", "does not tell the credential's scopes"),
        (7, "does not tell the credential's scopes"),
        ([], "lacks the scopes crm, disk, telephony, user_basic"),
        ({}, "lacks the scopes crm, disk, telephony, user_basic"),
        ([["disk"]], "lacks the scopes crm, disk, telephony, user_basic"),
        ([{}, None], "lacks the scopes crm, disk, telephony, user_basic"),
        ({"a": 1}, "lacks the scopes crm, disk, telephony, user_basic"),
        ({"0": "telephony", "2": "disk", "3": "crm"}, "lacks the scopes user_basic"),
    ],
)  # fmt: skip
def test_scopes_of_another_shape(database: str, scopes: object, told: str) -> None:
    """Doctor says what is amiss; PHP's list with gaps is a list."""
    body = json.dumps({"result": scopes}).encode()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})

    with served(make_site(small_world(1)), app, lifespan="off") as base, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OKNA_SEVER_WEBHOOK", f"{base}/rest/1/{SECRET}/")
        with pytest.raises(Unwell, match=told):
            with_pool(database, lambda pool: credential(pool, configured()))


def play(database: str, seed: int) -> None:
    """A night with a portal that is beside itself, doctor's look at it, and the night after, when it is well again."""
    chance = random.Random(seed)
    site = make_site(small_world(chance.choice([24, 120])))
    app = Spoilt(site.server.app, chance, chance.choice([0.1, 0.3, 0.6]))
    with served(site, app) as base:
        os.environ["OKNA_SEVER_WEBHOOK"] = f"{base}/rest/1/{SECRET}/"
        try:
            check(database, night(database))
            doctor(database)
            app.often = 0.0
            ended = night(database)
        finally:
            del os.environ["OKNA_SEVER_WEBHOOK"]
    assert ended == set(STEPS)
    check(database, ended)


@pytest.mark.usefixtures("quick", "bucket")
@pytest.mark.parametrize("seed", range(5))
def test_a_few_spoiled_nights(database: str, seed: int) -> None:
    """Five of them."""
    play(database, seed)


@pytest.mark.long
@pytest.mark.usefixtures("quick", "bucket")
@pytest.mark.parametrize("seed", range(100, 300))
def test_many_spoiled_nights(database: str, seed: int) -> None:
    """Two hundred of them."""
    play(database, seed)
