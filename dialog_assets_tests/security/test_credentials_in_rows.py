"""What a portal's rows bring along of credentials is stored nowhere: in every table, from every field, in every spelling."""

from __future__ import annotations

import importlib.util
import json
import logging
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import sqlalchemy
from alembic.migration import MigrationContext
from alembic.operations import Operations
from psycopg import sql
from psycopg.types.json import Jsonb

from dialog_assets.assets.calls import read_calls
from dialog_assets.assets.entities import read_entities
from dialog_assets.assets.users import read_users
from dialog_assets.redaction import redacted, without_secrets
from dialog_assets.store import schema
from dialog_assets.store.server import with_scheme
from dialog_assets_tests.assets.portal_on_a_socket import portal_site, run_step, site_served
from dialog_assets_tests.sandbox.bitrix24_portal import make_calls, make_portal, make_site

DAYS = date(2026, 3, 1), date(2026, 3, 2)
TOKEN = "a1b2c3d4e5f6a7b8c9d0T0K3N"
"""It stands in every place below and must be left in none."""

LINK = f"https://portal.example/bitrix/components/bitrix/crm.contact.show/show_file.php?auth={TOKEN}&ownerId=5&fileId=9"
REST = f"https://portal.example/rest/7/{TOKEN}/crm.contact.list.json"

TEXTS = [
    LINK,
    REST,
    LINK.replace("auth", "AUTH"),
    LINK.replace("auth=", "access_token="),
    LINK.replace("auth=", "APP_SID="),
    LINK.replace("auth=", "token=disk%7C"),
    LINK.replace("auth=", "sessid="),
    LINK.replace("auth=", "amp;auth="),
    LINK.replace("auth=", "auth[]="),
    LINK.replace("?auth", "#access_token"),
    LINK.replace("auth=", "userToken="),
    LINK.replace("auth=", "AUTH_ID="),
    LINK.replace("auth=", "key="),
    LINK.replace("auth=", "X-Amz-Security-Token="),
    LINK.replace("auth=", "X-Amz-Signature="),
    quote(LINK, safe=""),
    quote(quote(LINK, safe=""), safe=""),
    quote(REST, safe=""),
    REST.replace("/", "\\/"),
    REST.replace("/rest/7", "/rest/api/7"),
    REST.replace("/rest", "/REST").replace("/7/", "//7/"),
    f"/rest/7/{TOKEN}/download/?token=x",
    f"смотри {REST} и {LINK}, позвони",
    json.dumps({"auth": TOKEN}),
    json.dumps(json.dumps({"url": LINK, "auth": TOKEN})),
    json.dumps(json.dumps(json.dumps({"access_token": TOKEN, "url": REST}))),
    json.dumps({"u": LINK}).replace("&", "\\u0026").replace("=", "\\u003d"),
    f"{{'token': '{TOKEN}'}}",
    f"Authorization: Bearer {TOKEN}",
    f"auth={TOKEN}",
    f"?auth%3D{TOKEN}",
    f"https://{TOKEN}@portal.example/x",
    f"https://user:{TOKEN}@portal.example/x",
    f"postgresql://user:pa@{TOKEN}@portal.example/x",
    f'<a href="{LINK}">файл</a>',
    f"password: {TOKEN}",
]

VALUES: list[Any] = [
    *TEXTS,
    *(
        {name: TOKEN}
        for name in ("auth", "AUTH", "access_token", "accessToken", "APP_SID", "sessid", "token", "UF_TOKEN")
    ),
    {
        "id": 5,
        "urlMachine": f"https://portal.example/x.php?whatever={TOKEN}",
        "showUrl": LINK,
        "downloadUrl": f"/x/{TOKEN}",
    },
    [{"id": 5, "urlMachine": [f"https://portal.example/x.php?{TOKEN}"]}, [[LINK]]],
    {"DOWNLOAD_URL": f"https://portal.example/{TOKEN}"},
    {"deep": [{"deeper": {"deepest": [None, 5, REST]}}]},
    {"auth": {"access_token": TOKEN, "expires": 3600}},
    {"auth": [TOKEN, TOKEN]},
    {LINK: "a link as a name"},
]


@pytest.mark.parametrize("value", VALUES)
def test_nothing_is_left_of_a_credential(value: Any) -> None:
    """Whatever the spelling and the depth; and what is cleaned stays as it is when it is cleaned again."""
    kept = redacted(value)
    assert TOKEN not in json.dumps(kept, ensure_ascii=False)
    assert redacted(kept) == kept


@pytest.mark.parametrize(
    "text",
    [
        "Автор: Иванов, author=Пушкин, окна 5x7?",
        "+7 (912) 000-11-22 & сын",
        "https://portal.example/crm/deal/details/5/?IFRAME=Y&IFRAME_TYPE=SIDE_SLIDER",
        "ivan@example.com",
        "/rest/ и /resto/7/",
        "отдых rest/7 дней",
        "signal: 5, design=2, monkey=1",
        "",
    ],
)
def test_what_is_no_credential_stays(text: str) -> None:
    """Words that only look like one, other links and people's addresses are kept to the last character."""
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    "text",
    ["a" * 50_000, "auth" * 12_000, "token=" * 9_000, "%25" * 16_000, "\\" * 50_000, "/rest/7/" * 6_000, "://" * 16_000,
     "key=\\" * 10_000, '"' * 50_000, "a_" * 25_000, "?k=" * 16_000, "auth" + " " * 50_000, "auth=" + "%" * 50_000],
)  # fmt: skip
@pytest.mark.timeout(20)
def test_a_long_text_is_read_in_time(text: str) -> None:
    """Texts that make an expression go back again and again end at once: the test's own time out is minutes away from that."""
    for _ in range(3):
        without_secrets(text)


def planted() -> dict[str, Any]:
    """Own fields with a credential in every spelling."""
    return {f"UF_CRM_{number}": value for number, value in enumerate(VALUES)} | {"COMMENTS": " | ".join(TEXTS)}


def everything(database: str) -> str:
    """Every row of every table, as text."""
    told = []
    with psycopg.connect(database) as connection:
        names = connection.execute(
            "SELECT c.oid::regclass::text FROM pg_class c WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        for (name,) in names:
            query = sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(name))
            told += [row[0] for row in connection.execute(query).fetchall()]
    return "\n".join(told)


@pytest.mark.parametrize("readable", [True, False])
def test_rows_of_a_portal_leave_no_credential(
    database: str, caplog: pytest.LogCaptureFixture, *, readable: bool
) -> None:
    """Calls, users, contacts, leads, companies and deals, whether they can be read or are kept apart."""
    caplog.set_level(logging.DEBUG)
    broken: dict[str, Any] = {} if readable else {"ASSIGNED_BY_ID": {"a": LINK}, "UF_DEPARTMENT": "x"}
    calls = make_calls(6)
    kinds = ["CONTACT", "LEAD", "COMPANY", "CONTACT", "LEAD", "COMPANY"]
    for call, kind in zip(calls, kinds, strict=True):
        call.fields.update(planted() | {"CRM_ENTITY_TYPE": kind, "CRM_ENTITY_ID": "5", "PORTAL_USER_ID": "10"})
        if not readable:
            call.fields["COST"] = LINK
    row = {"ID": "5", "TITLE": LINK, "NAME": REST, "LAST_NAME": LINK, **planted(), **broken}
    deal = {**row, "ID": "1", "CONTACT_ID": "5"}
    user = {**row, "ID": "10", "ACTIVE": True, "WORK_POSITION": LINK}
    site = portal_site(
        make_portal(calls, contacts={5: row}, leads={5: row}, companies={5: row}, deals={1: deal}, users={10: user})
    )
    with site:
        for step, core in (("calls", read_calls), ("users", read_users), ("entities", read_entities)):
            run_step(database, step, core, *DAYS)
    stored = everything(database)
    assert ("UF_CRM_5" in stored) and ("row_unreadable" in stored) is not readable
    assert TOKEN not in stored
    assert TOKEN not in caplog.text


def test_the_portals_own_credential_is_in_no_row(database: str) -> None:
    """File fields of the stand-in carry the caller's own webhook, plain and without any name beside it."""
    calls = make_calls(4)
    for call in calls:
        call.fields.update(
            {"CRM_ENTITY_TYPE": "CONTACT", "CRM_ENTITY_ID": "5", "COMMENT": "наш код s3cretw3bh00k1, пиши"}
        )
    site = make_site(make_portal(calls, webhook_secret="s3cretw3bh00k1"))
    site.server.set_habits({"file_fields": True})
    with site_served(site, secret="s3cretw3bh00k1"):
        run_step(database, "calls", read_calls, *DAYS)
        run_step(database, "entities", read_entities, *DAYS)
    stored = everything(database)
    assert "urlMachine" in stored
    assert "s3cretw3bh00k1" not in stored


def migration() -> ModuleType:
    folder = Path(schema.__file__).parent / "migrations" / "versions"
    (path,) = folder.glob("*_no_credentials_in_rows.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_old_rows_are_cleaned(database: str) -> None:
    """Rows that were stored with credentials lose them, the others are not touched; a second time changes nothing."""
    clean = {"TITLE": "Окна", "n": 1.5, "big": 12345678901234567890, "t": "Ключ 5 & 7?"}
    with psycopg.connect(database) as connection:
        insert = (
            "INSERT INTO entities (portal, entity_type, entity_id, found, title, raw) "
            "VALUES ('okna_sever', 'contact', %s, true, %s, %s)"
        )
        connection.execute(insert, [1, LINK, Jsonb(planted())])
        connection.execute(insert, [2, "Окна", Jsonb(clean)])
        connection.execute(
            "INSERT INTO users (portal, user_id, found, name, raw) VALUES ('okna_sever', 1, true, %s, %s)",
            [REST, Jsonb(planted())],
        )
        connection.execute(
            "INSERT INTO unreadable_rows (portal, kind, row_key, method, field, expected, raw) "
            "VALUES ('okna_sever', 'contact', '7', 'crm.contact.list', 'ID', 'x', %s)",
            [Jsonb(planted())],
        )
        changes = [(LINK, LINK.replace(TOKEN, TOKEN[::-1])), (LINK, "Окна"), ("Окна", "Двери"), (None, LINK)]
        for before, after in changes:
            connection.execute(
                "INSERT INTO entity_changes (portal, entity_type, entity_id, field, before, after) "
                "VALUES ('okna_sever', 'contact', 1, 'title', %s, %s)",
                [before, after],
            )
        untouched = connection.execute("SELECT xmin::text, ctid::text FROM entities WHERE entity_id = 2").fetchone()
    module = migration()
    engine = sqlalchemy.create_engine(with_scheme(database, "postgresql+psycopg"))
    for _ in range(2):
        with engine.begin() as connection_, Operations.context(MigrationContext.configure(connection_)):
            module.upgrade()
    engine.dispose()
    stored = everything(database)
    assert TOKEN not in stored
    assert TOKEN[::-1] not in stored
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT raw FROM entities WHERE entity_id = 2").fetchone() == (clean,)
        assert (
            connection.execute("SELECT xmin::text, ctid::text FROM entities WHERE entity_id = 2").fetchone()
            == untouched
        )
        found = connection.execute("SELECT before IS NULL, after FROM entity_changes ORDER BY id").fetchall()
        hidden = without_secrets(LINK)
        assert found == [(False, "Окна"), (False, "Двери"), (True, hidden)]
