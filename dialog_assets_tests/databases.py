"""Databases beside each other on one server: copies of a database, and which of them this process takes for its own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from dialog_assets.store import server

_numbers = itertools.count(1)


@contextmanager
def copy_of(url: str) -> Iterator[str]:
    """URL of a database with everything that the one at `url` holds; it ends with the context, and Dagster's beside it."""
    name = f"copy_{os.getpid()}_{next(_numbers)}"
    template = conninfo_to_dict(url)["dbname"]
    admin = server.with_database(url, "postgres")
    with psycopg.connect(admin, autocommit=True) as connection:
        # Where nothing waits for the disk, files are copied at a third of the cost of writing their pages to the log.
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                sql.Identifier(name), sql.Identifier(str(template))
            )
        )
    try:
        yield server.with_database(url, name)
    finally:
        with psycopg.connect(admin, autocommit=True) as connection:
            for leftover in (name, f"{name}_dagster"):
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(leftover)))


@contextmanager
def database_is(url: str) -> Iterator[None]:
    """This process's DATABASE_URL is `url`."""
    before = os.environ.get("DATABASE_URL")
    os.environ["DATABASE_URL"] = url
    try:
        yield
    finally:
        os.environ.pop("DATABASE_URL", None)
        if before is not None:
            os.environ["DATABASE_URL"] = before
