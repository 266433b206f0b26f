"""Databases as operators have them: other dates, encodings, isolations and rights, and a pooler in front."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from dialog_assets.cli.doctor import database as doctor
from dialog_assets.cli.doctor.examination import Check, Context, Finding, examine_all
from dialog_assets.portals import Portal
from dialog_assets.store import addresses, call_steps, schema, server
from dialog_assets.store.errors import DatabaseUnreachable, UnsuitableDatabase
from dialog_assets.store.leases import step_lock
from dialog_assets.store.pool import open_pool
from dialog_assets.store.schema import SchemaRefused
from dialog_assets_tests.databases import database_is
from dialog_assets_tests.store.rows import PORTAL, call, put_calls

_numbers = itertools.count(1)


@contextmanager
def role(url: str, *statements: str) -> Iterator[str]:
    """The address under a role of its own, which owns the database; `{role}` and `{name}` in the statements are its and its."""
    name = str(conninfo_to_dict(url)["dbname"])
    who = f"operator_{os.getpid()}_{next(_numbers)}"
    names = {"role": sql.Identifier(who), "name": sql.Identifier(name)}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {role} LOGIN IN ROLE postgres").format(**names))
        for statement in statements:
            connection.execute(sql.SQL(statement).format(**names))
    try:
        yield addresses.url({**addresses.parts(url), "user": who})
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP OWNED BY {role}; DROP ROLE {role}").format(**names))


def findings(url: str, portals: Sequence[Portal]) -> list[Finding]:
    """What doctor says of the database."""

    async def look() -> list[Finding]:
        async with open_pool(server.database_url(), size=2) as pool:
            return await examine_all([Check("Postgres", lambda: doctor.tables(Context(portals, pool)))])

    with database_is(url):
        return asyncio.run(look())


def works(url: str) -> None:
    """A step's worklist and a result, under its lease."""

    async def run() -> None:
        async with open_pool(url, size=2) as pool, step_lock(url, PORTAL, "transcripts", "run") as lease:
            pool.lease = lease
            await put_calls(pool, call(1), call(2, raw={"имя": "Ёж 🙂"}))
            pending = [
                one.started_at.isoformat()
                async for one in call_steps.pending(
                    pool, PORTAL, "audio_files", "calls", call(1)["day"], call(1)["day"]
                )
            ]
            assert pending == ["2026-03-02T07:00:01+00:00", "2026-03-02T07:00:02+00:00"]

    asyncio.run(run())


@pytest.mark.parametrize(
    "setting",
    [
        "DateStyle TO German",
        "DateStyle TO 'SQL, DMY'",
        "IntervalStyle TO sql_standard",
        "TimeZone TO '<+03>-03'",
        "client_encoding TO 'WIN1251'",
        "client_encoding TO 'SQL_ASCII'",
        "default_transaction_isolation TO serializable",
        "standard_conforming_strings TO off",
        "bytea_output TO escape",
        "extra_float_digits TO 0",
    ],
)
def test_settings_of_a_role_change_nothing(database: str, portals: list[Portal], setting: str) -> None:
    """Whatever a role's sessions begin with: doctor's round trip and a step's work go well."""
    with role(database, f"ALTER ROLE {{role}} SET {setting}") as url:
        (finding,) = findings(url, portals)
        assert finding.ok, finding.sentence
        works(url)


@pytest.mark.parametrize(("encoding", "locale"), [("WIN1251", "C"), ("SQL_ASCII", "C"), ("LATIN1", "C")])
def test_a_database_that_cannot_hold_every_text_is_refused(postgres: str, encoding: str, locale: str) -> None:
    """One sentence that names the encoding and what to do, before anything else is done."""
    name = f"other_encoding_{os.getpid()}"
    with psycopg.connect(server.with_database(postgres, "postgres"), autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE '{locale}'".encode()
        )
        try:
            with database_is(server.with_database(postgres, name)), pytest.raises(UnsuitableDatabase) as refused:
                server.database_url()
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
    assert f"{name} is encoded in {encoding}, " in str(refused.value)
    assert "ENCODING 'UTF8'" in str(refused.value)


def test_a_database_that_is_not_there_is_made(postgres: str) -> None:
    """Made in UTF-8, from several sides at once, and without reading the server's words."""
    name = f"made_{os.getpid()}"
    url = server.with_database(postgres, name)
    code = "from dialog_assets.store import server; print(server.database_url())"
    environment = {**os.environ, "DATABASE_URL": url}
    with psycopg.connect(server.with_database(postgres, "postgres"), autocommit=True) as connection:
        try:
            makers = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(3)]
            assert [maker.wait(120) for maker in makers] == [0, 0, 0]
            row = connection.execute(
                "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = %s", [name]
            ).fetchone()
            assert row == ("UTF8",)
        finally:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def test_a_read_only_role_is_refused(database: str) -> None:
    """One sentence, before anything is bought."""
    with (
        role(database, "ALTER ROLE {role} SET default_transaction_read_only TO on") as url,
        database_is(url),
        pytest.raises(UnsuitableDatabase, match="read-only for this role"),
    ):
        server.database_url()


def test_a_role_without_rights_is_told(database: str, portals: list[Portal]) -> None:
    """It may not make tables, or not write them, or not make databases: each is one sentence."""
    third = portals[0].model_copy(update={"portal": "third"})
    plain = ("REVOKE postgres FROM {role}", "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    with role(database, *plain) as url:
        (finding,) = findings(url, portals)
        assert not finding.ok
        with pytest.raises(SchemaRefused, match=r"cannot be made.*lacks a right.*42501\)\.$") as refused:
            schema.setup_portals(url, [third])
        assert "INSERT" not in str(refused.value)
        with (
            database_is(server.with_database(url, "not_there")),
            pytest.raises(DatabaseUnreachable, match="may not create"),
        ):
            server.database_url()
    grants = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
    with role(database, *plain, grants) as url:
        assert [finding.state for finding in findings(url, portals)] == ["ok", "warn"]
        works(url)


def test_tables_of_another_version(database: str, portals: list[Portal]) -> None:
    """Newer ones are refused by migration and doctor, older ones by doctor; neither is touched."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(SchemaRefused, match="newer version"):
            schema.migrate(database)
        (finding,) = findings(database, portals)
        assert "newer version" in finding.sentence
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
        (finding,) = findings(database, portals)
        assert finding.sentence.endswith("run dialog-assets setup-portals.")


def test_migrating_while_tables_are_held(database: str, portals: list[Portal], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds a table for long is not waited for without an end: one sentence, and nothing is half done."""
    monkeypatch.setattr(schema, "_PATIENT", "SELECT set_config('lock_timeout', '100ms', true)")
    third = portals[0].model_copy(update={"portal": "third"})
    with psycopg.connect(database) as night:
        night.execute("LOCK TABLE calls IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(SchemaRefused, match=r"a lock was not had in time: .*55P03"):
            schema.setup_portals(database, [third])
    assert schema.setup_portals(database, [third]) == ["third"]


def test_behind_a_transaction_pooler(database: str, portals: list[Portal], pgbouncer: Callable[[str], str]) -> None:
    """Two runs go one after the other, work is stored, portals are set up, and no lock is left with anybody's session."""
    through = pgbouncer(database)
    third = portals[0].model_copy(update={"portal": "third"})
    (finding,) = findings(through, portals)
    assert finding.ok, finding.sentence
    assert "through a pooler" in finding.sentence
    order: list[str] = []

    async def run() -> None:
        async def one(name: str) -> None:
            async with open_pool(through, size=4) as pool, step_lock(through, PORTAL, "transcripts", name) as lease:
                pool.lease = lease
                order.append(f"{name} begins")
                for number in range(20):
                    await pool.transact(
                        lambda connection, number=number: call_steps.record(  # type: ignore[misc]
                            connection, PORTAL, [number], "transcripts", "done", output_key=name
                        )
                    )
                order.append(f"{name} ends")

        await asyncio.gather(*(one(name) for name in "abcd"))

    asyncio.run(run())
    assert [line.partition(" ")[0] for line in order][::2] == [line.partition(" ")[0] for line in order][1::2]
    assert schema.setup_portals(through, [third]) == ["third"]
    works(through)
    with psycopg.connect(database) as connection:
        assert connection.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database())"
        ).fetchone() == (0,)
