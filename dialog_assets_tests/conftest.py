"""What the suites share: an embedded Postgres, a fresh migrated database a test, and one sandbox process a worker."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

from dialog_assets.cli.world import SandboxProcess, pointed_at, sandbox_process
from dialog_assets.portals import Portal, load_portals
from dialog_assets.store import addresses, embedded, schema, server
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


@pytest.fixture
def pgbouncer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Starts a pgbouncer in transaction mode before a database; gives the address through it."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("there is no pgbouncer on this machine: apt-get install pgbouncer")
    started: list[subprocess.Popen[bytes]] = []

    def start(url: str) -> str:
        found = addresses.parts(url)
        folder = Path(tmp_path_factory.mktemp("pgbouncer"))
        owner = Path(found["host"]).owner()
        for parent in (folder, *folder.parents[:3]):
            if parent.owner() == "root" and str(parent).startswith("/tmp/") and os.geteuid() == 0:
                parent.chmod(0o755)
        shutil.chown(folder, owner)
        port = 20_000 + os.getpid() % 20_000
        settings = folder / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host={found['host']} port={found.get('port', '5432')} user=postgres\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            "pool_mode = transaction\nmax_client_conn = 200\ndefault_pool_size = 6\n"
        )
        settings.chmod(0o644)
        arguments = [program, "-q", *(["-u", owner] if os.geteuid() == 0 else []), str(settings)]
        started.append(subprocess.Popen(arguments, stderr=subprocess.DEVNULL))
        through = addresses.url({"host": "127.0.0.1", "port": str(port), "user": "postgres", "dbname": found["dbname"]})
        for _ in range(200):
            try:
                psycopg.connect(through).close()
            except psycopg.OperationalError:
                assert started[-1].poll() is None, "pgbouncer has ended"
                asyncio.run(asyncio.sleep(0.05))
            else:
                return through
        raise AssertionError("pgbouncer does not answer")

    yield start
    for process in started:
        process.terminate()
        process.wait(10)
