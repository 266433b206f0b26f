"""What the suites share: an embedded Postgres, a fresh migrated database a test, and one sandbox process a worker."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

from dialog_assets.cli.world import SandboxProcess, pointed_at, sandbox_process
from dialog_assets.portals import Portal, load_portals
from dialog_assets.store import embedded, schema, server
from dialog_assets_tests.databases import copy_of, database_is

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


# The same examples for everybody, whatever the machine's pace; others are looked for with --hypothesis-profile=explore.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", settings.get_profile("explore"), derandomize=True)
settings.load_profile("repeatable")


@pytest.hookimpl(trylast=True)  # after hypothesis has read its option
def pytest_configure(config: pytest.Config) -> None:
    """The mark is known without xdist too, and no example depends on what a worker has imported by then."""
    config.addinivalue_line("markers", "xdist_group(name): the tests of a group run on one worker")
    if settings.get_current_profile_name() == "repeatable":
        # Hypothesis draws from the constants of every local module too, and derandomize does not end that.
        providers._get_local_constants = Constants


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests through a real daemon mostly wait: they start first, and the other worker runs the rest meanwhile."""

    def group(item: pytest.Item) -> object:
        mark = item.get_closest_marker("xdist_group")
        return mark.args[0] if mark else None

    items.sort(key=lambda item: group(item) != "daemon")


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """No credential, address or database of the machine reaches a test."""
    names = (
        "DATABASE_URL",
        "DAGSTER_POSTGRES_URL",
        "DAGSTER_HOME",
        "DIALOG_ASSETS_PORTALS",
        "DIALOG_ASSETS_DATA",
        "DIALOG_ASSETS_SECRET_KEY",
        "DIALOG_ASSETS_CA_BUNDLE",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    )
    prefixes = ("AWS_", "S3_", "BITRIX24_", "VOICEKIT_", "OPENAI_", "ANTHROPIC_", "DEEPSEEK_")
    kept = dict(os.environ)
    for name in kept:
        if (
            name in names
            or name.startswith(prefixes)
            or name.endswith(("_WEBHOOK", "_CLIENT_ID", "_CLIENT_SECRET", "_REFRESH_TOKEN"))
        ):
            del os.environ[name]
    os.environ["DIALOG_ASSETS_PORTALS"] = str(ROOT / "portals")
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
    yield
    os.environ.clear()
    os.environ.update(kept)


@pytest.fixture(scope="session")
def portals() -> list[Portal]:
    """The two fictional portals, avto_ural and okna_sever."""
    return load_portals(ROOT / "portals")


@pytest.fixture(scope="session")
def postgres(_clean_environment: None, portals: list[Portal]) -> Iterator[str]:
    """URL of an embedded server's template database, migrated and with both portals set up."""
    folder = Path(tempfile.mkdtemp(prefix="dialog_assets_tests-"))
    os.environ["DIALOG_ASSETS_DATA"] = str(folder)
    url = server.database_url()
    with psycopg.connect(url, autocommit=True) as connection:
        # Test databases need not survive a power cut, and making them would wait for the disk.
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off")
        connection.execute("SELECT pg_reload_conf()")
    schema.setup_portals(url, portals)
    yield url
    embedded.let_go(folder / "postgres")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    """URL of a fresh database with the schema and both portals; also this process's DATABASE_URL."""
    with copy_of(postgres) as url, database_is(url):
        yield url


@pytest.fixture(scope="session")
def sandbox_world(_clean_environment: None) -> Iterator[SandboxProcess]:
    """The sandbox as a process of its own, one for all tests of a worker."""
    with sandbox_process("--week-ends", "2026-03-06") as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(sandbox_world: SandboxProcess) -> Iterator[SandboxProcess]:
    """The sandbox at its start: empty books, no faults, the whole week in the past; this process's environment points at it."""
    sandbox_world.post("/reset")
    with pointed_at(sandbox_world):
        yield sandbox_world
