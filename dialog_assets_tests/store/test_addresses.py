"""Addresses of a Postgres as people write them: read alike by all, or refused without a word of what is secret."""

from __future__ import annotations

import pytest
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.dialects.postgresql import psycopg2

from dialog_assets.store import addresses
from dialog_assets.store.errors import DatabaseUnreachable

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://anna:{SECRET}@db/calls",
        f"postgres://anna:{SECRET}@db:5432/calls",
        f"postgresql+psycopg2://anna:{SECRET}@db/calls",
        f"postgresql://anna:{SECRET}%40%2F%25%20x@db/calls",
        f"postgresql://anna:{SECRET}#1:2@db/calls",
        f"postgresql://an%40na:{SECRET}@h1:1,h2:2/calls?target_session_attrs=read-write",
        f"postgresql://anna:{SECRET}@[::1]:5432/calls",
        f"postgresql://anna@/calls?host=/var/run/a%20b&password={SECRET}",
        f"host=db dbname=calls user=anna password='{SECRET} @/%x'",
        "host='/run/«папка»' dbname=calls",
        "service=night dbname=calls",
        "postgresql:///calls",
    ],
)
def test_an_address_is_read_alike(text: str) -> None:
    """libpq and SQLAlchemy find in ours what was written."""
    found = addresses.parts(text)
    ours = addresses.url(found)
    assert {name: str(value) for name, value in conninfo_to_dict(ours).items() if value} == found
    _, read = psycopg2.dialect().create_connect_args(sqlalchemy.make_url(addresses.url(found, "postgresql+psycopg2")))  # type: ignore[no-untyped-call]
    assert {name: str(value) for name, value in read.items()} == found


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://anna:{SECRET}@{SECRET}@db/calls",
        f"postgresql://anna:{SECRET}/{SECRET}@db/calls",
        f"postgresql://anna:{SECRET}?{SECRET}@db/calls",
        f"postgresql://anna:{SECRET} {SECRET}@db/calls",
        f"postgresql://anna:{SECRET}%{SECRET}@db/calls",
        f"postgresql://anna:{SECRET}%@db/calls",
        f"postgresql://anna:{SECRET}%00@db/calls",
        f"postgresql://anna:1{SECRET}/2{SECRET}@db/calls",
        f"postgres://anna:{SECRET}[{SECRET}@db/calls",
        f"postgresql://anna:{SECRET}\n@db/calls",
        f"postgresql://anna:{SECRET}@db:{SECRET}/calls",
        f"host=db dbname=calls password='{SECRET}",
        f"host=db {SECRET}",
        f"mysql://anna:{SECRET}@db/calls",
        SECRET,
        f"=={SECRET}",
    ],
)
def test_an_address_that_may_be_misread_is_refused(text: str) -> None:
    """One sentence that says what to do and quotes nothing."""
    with pytest.raises(DatabaseUnreachable) as refused:
        addresses.parts(text)
    told = str(refused.value)
    assert told.startswith("DATABASE_URL ")
    assert "postgresql://user:password@" in told or "percent-encode" in told
    assert SECRET not in told
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None, "a traceback would show it"
